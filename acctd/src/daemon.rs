//! The story of a run: open the groups, start a reader for each, close intervals when they are over, and finish
//! without loss of what the kernel still holds.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use log::{info, warn};
use tokio::sync::{Mutex, oneshot};

use crate::close::engine::Engine;
use crate::close::kernel::KernelCount;
use crate::config::Config;
use crate::count::accumulator::Accumulator;
use crate::count::reader::{Reader, ReaderHandle};
use crate::count::slots::Settings;
use crate::crosscheck::session::CrossCheck;
use crate::explain::unattended::{self, Helper};
use crate::model::interval::UnixNanos;
use crate::model::shutdown_mode::ShutdownMode;
use crate::nflog::binding::Bindings;
use crate::nflog::network_namespace::NetworkNamespace;
use crate::nflog::open::{self, OpenGroup};
use crate::nflog::receive_stamps::ReceiveStamps;
use crate::observe::http::Listeners;
use crate::observe::paths::Paths;
use crate::observe::profile::CpuProfile;
use crate::observe::status::Status;
use crate::output::recovery::{self, Recovered, ResumePoint};
use crate::process::kernel::raise_memlock_limit;
use crate::process::signals::{Received, Request, Requests, Shutdown};
use crate::restart::handover::{self, FdStore, Handover, RECEIVE_STAMPS, socket_name};
use crate::restart::inherited::NamedFd;
use crate::restart::systemd::{self, Watchdog};
use crate::sampling::rates::LiveRates;
use crate::sampling::run::Sampling;
use crate::startup::{preflight, privilege};

/// The longest pause of the main loop, even if nothing is due: the clock may be set at any time, and a loss is
/// reported while it lasts.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Runs until a signal ends it. `inherited` are the descriptors from the service manager. When this returns, all
/// that was counted is written, or the error says what is not.
pub fn run(config: &Config, inherited: io::Result<Vec<NamedFd>>) -> Result<()> {
    let inherited = inherited.unwrap_or_else(|error| {
        warn!("cannot use the descriptors from the service manager: {error}; see LISTEN_FDS");
        Vec::new()
    });
    let explains = config.crosscheck.as_ref().is_some_and(|it| it.explain);
    // Before rights are dropped: it reads the rules.
    let helper = explains.then(Helper::start).transpose()?;
    let user = config.user.as_ref();
    preflight::make_directory(&config.log_directory, user)?;
    if let Some(user) = user {
        // First, so that everything else that acctd creates belongs to the user.
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
    // Before rights that this requires are dropped.
    let listeners = Listeners::bind(&config.listen)?;
    if config.crosscheck.is_some() {
        raise_memlock_limit();
    }
    // Before other threads start, because Linux has capabilities per thread.
    privilege::drop_capabilities(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.n_threads)
        // For the writer, which writes one file at a time, and the cross-check.
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .context("cannot start the threads")?;
    let served = runtime.block_on(serve(config, inherited, lock.is_some(), listeners, helper));
    // Does not wait for a write without an answer, which the engine has given up.
    runtime.shutdown_background();
    let profiled = profile.map_or(Ok(()), CpuProfile::finish);
    if let (Err(_), Err(error)) = (&served, &profiled) {
        log::error!("{error:#}");
    }
    served.and(profiled)?;
    info!("Exit");
    Ok(())
}

/// Threads that start later inherit it.
fn set_priority(priority: i32) {
    if let Err(error) = rustix::process::setpriority_process(None, priority) {
        warn!(
            "Failed to set priority {priority}: {error}; packets may be lost sooner on a busy machine: grant CAP_SYS_NICE, raise LimitNICE (ulimit -e), or start with --priority 0"
        );
    }
}

async fn serve(
    config: &Config,
    inherited: Vec<NamedFd>,
    is_locked: bool,
    listeners: Listeners,
    helper: Option<Helper>,
) -> Result<()> {
    // Before the cross-check: a signal must not leave its programs on an interface.
    let mut shutdown = Shutdown::listen().context("cannot handle signals")?;
    let mut requests = Requests::listen().context("cannot handle signals")?;
    // Before the groups, because the kernel must count each packet that NFLOG counts.
    let mut crosscheck = config
        .crosscheck
        .as_ref()
        .map(|crosscheck| CrossCheck::start(crosscheck, config.interval))
        .transpose()?;
    let stamps = ReceiveStamps::for_nflog();
    if let Some(stamps) = &stamps {
        stamps.keep();
    }
    // Before the groups are opened, so that no packet has a time stamp before the first period. After the
    // programs are attached, because a period may end while that takes time.
    let start = UnixNanos::now();
    let mut store = FdStore::for_groups(&config.groups, inherited);
    let groups = preflight::open_groups(config, &mut store)?;
    // After all that may prevent the start, so that then the note and the checkpoints stay as they are.
    let handover = store.take_note();
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
    let weak_readers: Vec<_> = config
        .groups
        .iter()
        .copied()
        .zip(readers.iter().map(ReaderHandle::weak))
        .collect();
    let rates = Arc::new(LiveRates::new(weak_readers.clone()));
    let sampling = Arc::new(Sampling {
        sampler: crosscheck
            .as_mut()
            .and_then(CrossCheck::take_sampler)
            .map(Mutex::new),
        interfaces: config
            .crosscheck
            .iter()
            .flat_map(|it| &it.watched)
            .map(|it| it.interface.clone())
            .collect(),
        readers: weak_readers,
    });
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
    let state = Arc::clone(engine.state());
    let paths = Paths::new(state, Arc::clone(&sampling), rates);
    let _socket_files = listeners.serve(Arc::new(paths))?;
    if let Some(helper) = helper {
        unattended::start(helper, Arc::clone(engine.state()), sampling)?;
    }
    systemd::ready();
    let ended = run_until_signal(&mut engine, &mut shutdown, &mut requests).await;
    info!("Stopping accounting");
    systemd::stopping();
    let mode = *ended.as_ref().unwrap_or(&ShutdownMode::Unbind);
    let stopped = engine.stop(mode).await;
    let finished = finish(engine, &mut shutdown).await;
    if stamps.is_some() && mode == ShutdownMode::Unbind {
        systemd::remove_stored(RECEIVE_STAMPS);
    }
    let left = stopped.and_then(|handover| leave_groups(config, mode, &handover));
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

/// After a second signal, the writer tries once more, and gives up a disk that does not answer for ten seconds.
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
    // The engine may have finished meanwhile.
    let _ignored = hurry.send(());
    finishing.await
}

/// All groups are bound. If the previous acctd left a group bound, but its socket could not be taken over, the
/// group has a gap until now.
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
        let reader = Reader::start(socket, *group, accumulator)
            .with_context(|| format!("cannot read group {}", group.group))?;
        readers.push(reader);
    }
    Ok(readers)
}

/// Leaves a note for the next acctd, or removes the groups' sockets from the service manager's store.
fn leave_groups(config: &Config, mode: ShutdownMode, handover: &Handover) -> Result<()> {
    match mode {
        ShutdownMode::Unbind => {
            for group in &config.groups {
                systemd::remove_stored(&socket_name(group.group));
            }
            Ok(())
        }
        ShutdownMode::KeepBound => handover
            .leave()
            .context("cannot leave a note for the next acctd, which will begin as after a kill"),
    }
}

/// Closes intervals until a signal ends the run, or until an error.
async fn run_until_signal(
    engine: &mut Engine,
    shutdown: &mut Shutdown,
    requests: &mut Requests,
) -> Result<ShutdownMode> {
    let mut watchdog = Watchdog::start();
    loop {
        watchdog.send_due(|| Status::of(engine.state()).line());
        // First, so that an interval is not closed before its gaps are known.
        engine.check_bindings().await?;
        engine.close_what_is_due().await?;
        engine.save_if_due().await;
        engine.tick().await;
        engine.report();
        let pause = engine.until_due().min(MAX_PAUSE);
        let Received { name, mode } = tokio::select! {
            signal = shutdown.signal() => signal,
            request = requests.next() => {
                answer(request, engine);
                continue;
            }
            () = tokio::time::sleep(pause) => continue,
        };
        info!("{name} received - shutting down");
        if mode == ShutdownMode::KeepBound && !systemd::is_present() {
            warn!(
                "no service manager keeps the groups for a restart: what is logged until then is not counted"
            );
            return Ok(ShutdownMode::Unbind);
        }
        return Ok(mode);
    }
}

fn answer(request: Request, engine: &Engine) {
    match request {
        Request::Status => {
            for line in Status::of(engine.state()).to_string().lines() {
                info!("{line}");
            }
        }
        Request::Reload => warn!(
            "hangup received: acctd does not read its flags again; restart it, which loses nothing under systemd"
        ),
    }
}
