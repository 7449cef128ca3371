//! The story of a run: open the groups, start a reader for each, close intervals when they are
//! over, and finish without losing what the kernel still holds.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use log::{info, warn};
use tokio::sync::{mpsc, oneshot};

use crate::accumulator::{Accumulator, Rules};
use crate::binding::Bindings;
use crate::config::Config;
use crate::crosscheck::CrossCheck;
use crate::engine::{Beginning, Engine};
use crate::interval::UnixNanos;
use crate::network_namespace::Home;
use crate::preflight::{self, Opened};
use crate::privilege;
use crate::profile::CpuProfile;
use crate::reader::{Failure, Reader, ReaderHandle};
use crate::recovery::{self, LONGEST_WAY_BACK, Recovered};
use crate::service_manager::{self, Kept, State};
use crate::shutdown::Shutdown;

/// The clock and the counters are looked at this often even if nothing is due: the clock may be
/// set at any time, and a loss should be said while it lasts.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// Signals this soon after the second are no third: a shell and a supervisor may each send theirs at
/// the same moment, and no disk can have answered by then.
const TOGETHER: Duration = Duration::from_secs(1);

/// Runs until a signal ends it. All that was counted is written when this returns, or the error
/// says what is not.
pub fn run(config: &Config) -> Result<()> {
    preflight::prepare_directory(&config.log_directory)?;
    let lock = recovery::lock(config)?;
    set_priority(config.priority);
    let profile = config
        .cpuprofile
        .as_deref()
        .map(CpuProfile::start)
        .transpose()?;
    preflight::refuse_taken_groups(&config.groups)?;
    // Before any other thread is started.
    privilege::give_up(config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.n_threads)
        // For the writer, which has one file at a time in hand, and the cross-check.
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .context("cannot start the threads")?;
    let served = runtime.block_on(serve(config, lock.is_some()));
    // Does not wait for a write that hangs, which only an end without patience leaves behind.
    runtime.shutdown_background();
    let profiled = profile.map_or(Ok(()), CpuProfile::finish);
    if let (Err(_), Err(error)) = (&served, &profiled) {
        log::error!("{error:#}");
    }
    served.and(profiled)?;
    info!("Exit");
    Ok(())
}

/// Threads started later inherit it.
fn set_priority(priority: i32) {
    if let Err(error) = rustix::process::setpriority_process(None, priority) {
        warn!(
            "Failed to set priority {priority}: {error}; packets may be lost sooner on a busy machine: grant CAP_SYS_NICE, raise LimitNICE (ulimit -e), or start with --priority 0"
        );
    }
}

async fn serve(config: &Config, is_locked: bool) -> Result<()> {
    // Before the cross-check: a signal must not leave its programs on an interface.
    let mut shutdown = Shutdown::listen().context("cannot take over signals")?;
    // Before the groups: what NFLOG counts, the kernel must have counted.
    let mut crosscheck = config
        .crosscheck
        .as_ref()
        .map(|crosscheck| CrossCheck::start(crosscheck, config.interval))
        .transpose()?;
    // Before the groups are opened, so that no packet is stamped before the first period. Loading and
    // attaching programs takes its time, in which a period may end: that is over.
    let start = UnixNanos::now();
    let mut kept = Kept::take();
    let opened = preflight::open_groups(config, &mut kept)?;
    let is_taken_over = !opened.taken_over.is_empty();
    // Behind all that may refuse the start: what was left stays as it is until then.
    let recovered = if is_locked {
        recovery::recover(config, start, is_taken_over)
    } else {
        Recovered::default()
    };
    info!("Starting accounting");
    let (failed, mut failures) = mpsc::unbounded_channel();
    let state = kept.state.filter(|_| is_taken_over);
    let start = first_interval_begins(&recovered, state.as_ref(), start);
    let port_ids = opened.sockets.iter();
    let port_ids: Vec<_> = port_ids.map(|socket| socket.port_id().ok()).collect();
    let bindings = Bindings::new(config, Home::here(), &port_ids, UnixNanos::now());
    let readers = start_readers(config, opened, start, state.as_ref(), &failed)?;
    if let Some(crosscheck) = &mut crosscheck {
        crosscheck.begin()?;
    }
    let beginning = Beginning {
        start,
        // Packets have waited that the cross-check has not seen.
        last_uneven: is_taken_over.then(|| config.interval.index_of(UnixNanos::now())),
    };
    let clock = Box::new(UnixNanos::now);
    let mut engine = Engine::start(
        config, readers, crosscheck, recovered, bindings, beginning, clock,
    )?;
    info!("Started accounting");
    service_manager::ready();
    let ended = run_until_over(&mut engine, &mut shutdown, &mut failures).await;
    info!("Stopping accounting");
    service_manager::stopping();
    let finished = finish(engine, &mut shutdown).await;
    info!("Stopped accounting");
    ended.and(finished)
}

/// The second signal asks not to wait for a disk that refuses, the third not even for one that does
/// not answer.
async fn finish(engine: Engine, shutdown: &mut Shutdown) -> Result<()> {
    let (hurry, hurried) = oneshot::channel();
    let finishing = engine.finish(async { hurried.await.unwrap_or(()) });
    tokio::pin!(finishing);
    let signal = tokio::select! {
        biased;
        finished = &mut finishing => return finished,
        signal = shutdown.signal() => signal,
    };
    warn!("{signal} received again: not waiting for a disk that refuses");
    // The engine may have finished in this moment.
    let _finished = hurry.send(());
    let second = Instant::now();
    let third = async {
        loop {
            let signal = shutdown.signal().await;
            if second.elapsed() >= TOGETHER {
                break signal;
            }
        }
    };
    tokio::select! {
        biased;
        finished = &mut finishing => finished,
        signal = third => Err(anyhow!(
            "{signal} received a third time, while the disk does not answer: what it has not taken is lost"
        )),
    }
}

/// Where the last run has ended, so that no time is left out and none is counted twice; else now.
fn first_interval_begins(
    recovered: &Recovered,
    state: Option<&State>,
    now: UnixNanos,
) -> UnixNanos {
    let resumed = recovered.resumed.as_ref();
    let resumed = resumed.map(|resumed| resumed.checkpoint.start);
    let left_at = state.map(|state| state.end);
    // A clock that was set in between says nothing about where it was.
    let left_at = left_at.filter(|&end| end <= now && now.minus(LONGEST_WAY_BACK) < end);
    resumed.or(left_at).unwrap_or(now)
}

fn start_readers(
    config: &Config,
    opened: Opened,
    start: UnixNanos,
    state: Option<&State>,
    failed: &mpsc::UnboundedSender<Failure>,
) -> Result<Vec<ReaderHandle>> {
    let mut readers = Vec::new();
    let taken_over = opened.taken_over;
    for (socket, group) in opened.sockets.into_iter().zip(&config.groups) {
        let mut accumulator = Accumulator::new(Rules::of(config, group), start);
        let positions = state.iter().flat_map(|state| &state.groups);
        let position = positions
            .filter(|position| taken_over.contains(&position.group))
            .find(|position| position.group == group.group);
        if let Some(position) = position {
            accumulator.go_on_at((position.next_sequence, position.last_time));
        }
        let reader = Reader::start(socket, accumulator, failed.clone())
            .with_context(|| format!("cannot read group {}", group.group))?;
        readers.push(reader);
    }
    Ok(readers)
}

/// Everything that can wake the daemon.
enum Event {
    /// Look at the clock and the counters.
    Tick,
    Signal(&'static str),
    SocketFailed(Failure),
}

/// Closes intervals until a signal comes or something cannot go on.
async fn run_until_over(
    engine: &mut Engine,
    shutdown: &mut Shutdown,
    failures: &mut mpsc::UnboundedReceiver<Failure>,
) -> Result<()> {
    loop {
        // First, so that an interval is not closed before its gaps are known.
        engine.look_at_bindings().await?;
        engine.close_what_is_due().await?;
        engine.save_if_due().await;
        engine.look_around().await;
        engine.warn_of_trouble();
        let pause = engine.until_due().min(LOOK_AROUND);
        let event = tokio::select! {
            signal = shutdown.signal() => Event::Signal(signal),
            Some(failure) = failures.recv() => Event::SocketFailed(failure),
            () = tokio::time::sleep(pause) => Event::Tick,
        };
        match event {
            Event::Tick => {}
            Event::Signal(signal) => {
                info!("{signal} received - shutting down");
                return Ok(());
            }
            Event::SocketFailed(failure) => engine.give_up_socket(failure).await,
        }
    }
}
