//! The story of a run: open the groups, start a reader for each, close intervals when they are
//! over, and finish without losing what the kernel still holds.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use log::{info, warn};
use tokio::sync::oneshot;

use crate::close::engine::Engine;
use crate::close::kernel::KernelCount;
use crate::config::Config;
use crate::count::accumulator::Accumulator;
use crate::count::reader::{Reader, ReaderHandle};
use crate::count::slots::Settings;
use crate::crosscheck::session::CrossCheck;
use crate::model::interval::UnixNanos;
use crate::model::shutdown_mode::ShutdownMode;
use crate::nflog::binding::Bindings;
use crate::nflog::network_namespace::NetworkNamespace;
use crate::nflog::open;
use crate::nflog::open::OpenGroup;
use crate::observe::http::Listeners;
use crate::observe::profile::CpuProfile;
use crate::observe::status::Status;
use crate::output::recovery::{self, Recovered, ResumePoint};
use crate::process::signals::{Question, Questions, Received, Shutdown};
use crate::restart::handover::{self, Handover, Kept, socket_name};
use crate::restart::inherited::Named;
use crate::restart::systemd::{self, Watchdog};
use crate::startup::{preflight, privilege};

/// The clock and the counters are looked at this often even if nothing is due: the clock may be
/// set at any time, and a loss should be said while it lasts.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// Signals this soon after the second are no third: a shell and a supervisor may each send theirs at
/// the same moment, and no disk can have answered by then.
const TOGETHER: Duration = Duration::from_secs(1);

/// Runs until a signal ends it, with the descriptors that the service manager has handed over. All that
/// was counted is written when this returns, or the error says what is not.
pub fn run(config: &Config, inherited: io::Result<Vec<Named>>) -> Result<()> {
    let inherited = inherited.unwrap_or_else(|error| {
        warn!("what the service manager hands over cannot be used: {error}; see LISTEN_FDS");
        Vec::new()
    });
    let user = config.user.as_ref();
    preflight::make_directory(&config.log_directory, user)?;
    if let Some(user) = user {
        // Before anything else is made, so that all of it is the user's.
        privilege::become_user(user)?;
    }
    preflight::check_directory(&config.log_directory, user)?;
    let lock = recovery::lock(config)?;
    set_priority(config.priority);
    let profile = config
        .cpuprofile
        .as_deref()
        .map(CpuProfile::start)
        .transpose()?;
    open::refuse_taken_groups(&config.groups)?;
    // Which takes rights that are given up.
    let listeners = Listeners::bind(&config.listen)?;
    // Before any other thread is started.
    privilege::give_up(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.n_threads)
        // For the writer, which has one file at a time in hand, and the cross-check.
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .context("cannot start the threads")?;
    let served = runtime.block_on(serve(config, inherited, lock.is_some(), listeners));
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

async fn serve(
    config: &Config,
    inherited: Vec<Named>,
    is_locked: bool,
    listeners: Listeners,
) -> Result<()> {
    // Before the cross-check: a signal must not leave its programs on an interface.
    let mut shutdown = Shutdown::listen().context("cannot take over signals")?;
    let mut questions = Questions::listen().context("cannot take over signals")?;
    // Before the groups: what NFLOG counts, the kernel must have counted.
    let mut crosscheck = config
        .crosscheck
        .as_ref()
        .map(|crosscheck| CrossCheck::start(crosscheck, config.interval))
        .transpose()?;
    // Before the groups are opened, so that no packet is stamped before the first period. Loading and
    // attaching programs takes its time, in which a period may end: that is over.
    let start = UnixNanos::now();
    let mut kept = Kept::for_groups(&config.groups, inherited);
    let groups = preflight::open_groups(config, &mut kept)?;
    // Behind all that may refuse the start: what was left stays as it is until then.
    let handover = kept.take_note();
    let resume_point = resume_point(handover.as_ref(), &groups, start);
    let recovered = if is_locked {
        recovery::recover(config, resume_point)
    } else {
        Recovered::default()
    };
    let start = recovered.begins_at(resume_point.start);
    info!("Starting accounting");
    let bindings = bindings(config, handover.as_ref(), &groups, resume_point.now);
    let is_taken_over = groups.iter().any(|group| group.kept.is_some());
    let readers = start_readers(config, groups, handover.as_ref(), start)?;
    if let Some(crosscheck) = &mut crosscheck {
        crosscheck.begin()?;
    }
    let clock = Box::new(UnixNanos::now);
    let kernel = crosscheck.map(|crosscheck| Box::new(crosscheck) as Box<dyn KernelCount>);
    let mut engine = Engine::start(config, readers, kernel, recovered, bindings, start, clock)?;
    engine.watch_rules();
    if is_taken_over {
        engine.mark_taken_over();
    }
    info!("Started accounting");
    let _answering = listeners.answer(Arc::clone(engine.state()))?;
    systemd::ready();
    let ended = run_until_over(&mut engine, &mut shutdown, &mut questions).await;
    info!("Stopping accounting");
    systemd::stopping();
    let parting = *ended.as_ref().unwrap_or(&ShutdownMode::Unbind);
    let stopped = engine.stop(parting).await;
    let finished = finish(engine, &mut shutdown).await;
    let left = stopped.and_then(|handover| leave(config, parting, &handover));
    info!("Stopped accounting");
    ended.and(left).and(finished)
}

fn resume_point(
    handover: Option<&Handover>,
    groups: &[OpenGroup],
    start: UnixNanos,
) -> ResumePoint {
    let kept = || groups.iter().filter_map(|group| group.kept);
    let now = UnixNanos::now();
    let start = handover::begins_at(handover, kept().map(|waiting| waiting.since), start);
    let is_kept = kept().count() == groups.len();
    let known_from = match handover {
        _ if !is_kept => now,
        Some(_) => start,
        None => kept()
            .map(|waiting| waiting.since.unwrap_or(now))
            .fold(start, UnixNanos::max),
    };
    ResumePoint {
        start,
        known_from: known_from.min(now),
        now,
        is_kept,
    }
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
        signal = shutdown.signal() => signal.name,
    };
    warn!("{signal} received again: not waiting for a disk that refuses");
    // The engine may have finished in this moment.
    let _finished = hurry.send(());
    let second = Instant::now();
    let third = async {
        loop {
            let signal = shutdown.signal().await.name;
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

/// The groups are bound, but those that were left by the acctd before and could not be taken over were not
/// until now.
fn bindings(
    config: &Config,
    handover: Option<&Handover>,
    groups: &[OpenGroup],
    now: UnixNanos,
) -> Bindings {
    let mut bindings = Bindings::new(config, NetworkNamespace::current(), now);
    for group in groups.iter().filter(|group| group.kept.is_none()) {
        let group = group.socket.group();
        if let Some(handover) = handover
            && handover.position(group).is_some()
        {
            bindings.add_gap(group, handover.end, now);
        }
    }
    bindings
}

fn start_readers(
    config: &Config,
    open: Vec<OpenGroup>,
    handover: Option<&Handover>,
    start: UnixNanos,
) -> Result<Vec<ReaderHandle>> {
    let mut readers = Vec::new();
    for (OpenGroup { socket, kept }, group) in open.into_iter().zip(&config.groups) {
        let mut accumulator = Accumulator::new(Settings::of(config, group), start);
        if let Some(waiting) = kept {
            let position = handover.and_then(|handover| handover.position(group.group));
            if let Some(position) = position {
                accumulator.resume_from(position);
            }
            if waiting.overran {
                accumulator.overrun(start);
            }
        }
        let reader = Reader::start(socket, accumulator)
            .with_context(|| format!("cannot read group {}", group.group))?;
        readers.push(reader);
    }
    Ok(readers)
}

/// Leaves the groups to the next acctd, or sees to it that nothing is left of them.
fn leave(config: &Config, parting: ShutdownMode, handover: &Handover) -> Result<()> {
    match parting {
        ShutdownMode::Unbind => {
            for group in &config.groups {
                systemd::forget(&socket_name(group.group));
            }
            Ok(())
        }
        ShutdownMode::KeepBound => handover
            .leave()
            .context("cannot leave a note for the next acctd, which begins as after a kill"),
    }
}

/// Closes intervals until a signal comes, which says how to part with the groups, or something cannot go
/// on.
async fn run_until_over(
    engine: &mut Engine,
    shutdown: &mut Shutdown,
    questions: &mut Questions,
) -> Result<ShutdownMode> {
    let mut watchdog = Watchdog::new();
    loop {
        watchdog.ping(|| Status::of(engine.state()).line());
        // First, so that an interval is not closed before its gaps are known.
        engine.check_bindings().await?;
        engine.close_what_is_due().await?;
        engine.save_if_due().await;
        engine.tick().await;
        engine.report();
        let pause = engine.until_due().min(LOOK_AROUND);
        let Received { name, parting } = tokio::select! {
            signal = shutdown.signal() => signal,
            question = questions.next() => {
                answer(question, engine);
                continue;
            }
            () = tokio::time::sleep(pause) => continue,
        };
        info!("{name} received - shutting down");
        if parting == ShutdownMode::KeepBound && !systemd::is_there() {
            warn!(
                "no service manager keeps the groups for a restart: what is logged until then is not counted"
            );
            return Ok(ShutdownMode::Unbind);
        }
        return Ok(parting);
    }
}

fn answer(question: Question, engine: &Engine) {
    match question {
        Question::Status => {
            for line in Status::of(engine.state()).to_string().lines() {
                info!("{line}");
            }
        }
        Question::Reload => warn!(
            "hangup received: acctd does not read its flags again; restart it, which loses nothing under systemd"
        ),
    }
}
