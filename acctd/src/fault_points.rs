//! Points where tests kill or delay acctd or make a call fail. They exist only with the feature `fault-points`;
//! in an ordinary build they are empty.

use std::io;

use rustix::io::Errno;

/// Fails with EIO the first `ACCTD_FAILING_SYNCS` times.
#[cfg_attr(
    not(feature = "fault-points"),
    expect(clippy::unnecessary_wraps, reason = "it fails in tests")
)]
pub(crate) fn sync() -> io::Result<()> {
    #[cfg(feature = "fault-points")]
    {
        use std::sync::atomic::{AtomicU32, Ordering};

        static TIMES: AtomicU32 = AtomicU32::new(0);
        let n_failing = std::env::var("ACCTD_FAILING_SYNCS").unwrap_or_default();
        if TIMES.fetch_add(1, Ordering::Relaxed) < n_failing.parse().unwrap_or(0) {
            return Err(Errno::IO.into());
        }
    }
    Ok(())
}

/// If `ACCTD_RENAMEAT2` is set, fails as on a file system without renameat2.
#[cfg_attr(
    not(feature = "fault-points"),
    expect(clippy::unnecessary_wraps, reason = "it fails in tests")
)]
pub(crate) fn renameat2() -> Result<(), Errno> {
    #[cfg(feature = "fault-points")]
    if std::env::var_os("ACCTD_RENAMEAT2").is_some() {
        return Err(Errno::INVAL);
    }
    Ok(())
}

/// Fails after a call that succeeded, as if its answer was lost: the first time at each point that
/// `ACCTD_LOST_ANSWER` names (`POINT=ERRNO,POINT=ERRNO`).
#[cfg_attr(
    not(feature = "fault-points"),
    expect(
        clippy::unnecessary_wraps,
        unused_variables,
        reason = "it fails in tests"
    )
)]
pub(crate) fn answer(point: &str) -> Result<(), Errno> {
    #[cfg(feature = "fault-points")]
    {
        use std::sync::Mutex;

        static LOST: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let all = std::env::var("ACCTD_LOST_ANSWER").unwrap_or_default();
        let mut all = all.split(',').filter_map(|one| one.split_once('='));
        if let Some((_, errno)) = all.find(|(wanted, _)| *wanted == point)
            && let Ok(errno) = errno.parse()
            && let Ok(mut lost) = LOST.lock()
            && !lost.iter().any(|before| before == point)
        {
            lost.push(point.to_owned());
            return Err(Errno::from_raw_os_error(errno));
        }
    }
    Ok(())
}

#[cfg(not(feature = "fault-points"))]
pub(crate) fn reached(_point: &str) {}

/// Kills the process if `ACCTD_KILL_AT` names this point (`POINT#N`: the Nth time). Waits if `ACCTD_WAIT_AT` names
/// it (`POINT=SECONDS`), or while the path exists that `ACCTD_HANG_AT` names (`POINT=PATH`).
#[cfg(feature = "fault-points")]
pub(crate) fn reached(point: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    static TIMES: AtomicU32 = AtomicU32::new(0);
    let kill = std::env::var("ACCTD_KILL_AT").unwrap_or_default();
    let (wanted, nth) = kill.split_once('#').unwrap_or((&kill, "1"));
    if wanted == point {
        let times = TIMES.fetch_add(1, Ordering::Relaxed) + 1;
        if nth == times.to_string() {
            let this = rustix::process::getpid();
            let _dies = rustix::process::kill_process(this, rustix::process::Signal::KILL);
        }
    }
    let wait = std::env::var("ACCTD_WAIT_AT").unwrap_or_default();
    if let Some((wanted, seconds)) = wait.split_once('=')
        && wanted == point
        && let Ok(seconds) = seconds.parse()
    {
        std::thread::sleep(Duration::from_secs_f64(seconds));
    }
    let hang = std::env::var("ACCTD_HANG_AT").unwrap_or_default();
    if let Some((wanted, path)) = hang.split_once('=')
        && wanted == point
    {
        while std::path::Path::new(path).exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(not(feature = "fault-points"))]
pub(crate) fn panic_at(_point: &str) {}

/// Panics if `ACCTD_PANIC_AT` names this point.
#[cfg(feature = "fault-points")]
pub(crate) fn panic_at(point: &str) {
    let wanted = std::env::var("ACCTD_PANIC_AT").unwrap_or_default();
    assert!(wanted != point, "ACCTD_PANIC_AT is {point}");
}
