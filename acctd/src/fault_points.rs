//! Places where the tests have acctd killed or held up, to see what it leaves behind. They are there
//! with the feature `fault-points` alone, which no ordinary build has.

#[cfg(not(feature = "fault-points"))]
pub(crate) fn reached(_point: &str) {}

/// Kills the process if `ACCTD_KILL_AT` names this point, or waits there if `ACCTD_WAIT_AT` does
/// (`POINT=SECONDS`).
#[cfg(feature = "fault-points")]
pub(crate) fn reached(point: &str) {
    use std::time::Duration;

    if std::env::var("ACCTD_KILL_AT").is_ok_and(|wanted| wanted == point) {
        let _dies =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    let wait = std::env::var("ACCTD_WAIT_AT").unwrap_or_default();
    if let Some((wanted, seconds)) = wait.split_once('=')
        && wanted == point
        && let Ok(seconds) = seconds.parse()
    {
        std::thread::sleep(Duration::from_secs_f64(seconds));
    }
}
