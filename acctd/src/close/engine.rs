//! Closes intervals: asks the timeline which periods are over, collects their ledgers from the readers, and passes
//! both to the writer. The clock is passed in, so the tests can step it.

use std::collections::BTreeMap;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use log::{info, warn};

use super::comparable::NotComparable;
use crate::close::closed_slots::ClosedSlots;
use crate::close::kernel::{KernelCount, KernelWatch};
use crate::close::saving::Saving;
use crate::close::timeline::{Due, Timeline};
use crate::config::Config;
use crate::count::reader::{Command, ReaderHandle};
use crate::count::slots::ClosedSlot;
use crate::model::closed_interval::{ClosedInterval, Gap, GroupInterval};
use crate::model::group::{GroupConfig, NflogGroup};
use crate::model::interval::{Period, PeriodIndex, UnixNanos};
use crate::model::shutdown_mode::ShutdownMode;
use crate::model::zone::Zone;
use crate::nflog::binding::{Bindings, Change};
use crate::nflog::rule_watch::{RuleSocket, RuleWatch};
use crate::observe::state::RuntimeState;
use crate::observe::warnings::Monitor;
use crate::output::checkpoint::Checkpoint;
use crate::output::recovery::Recovered;
use crate::output::writer::Writer;
use crate::output::writer::destination::Destination;
use crate::restart::handover::Handover;

/// The wall clock.
pub(crate) type Clock = Box<dyn Fn() -> UnixNanos + Send + Sync>;

/// The readers, the open interval, and the writer.
pub(crate) struct Engine {
    groups: Vec<GroupConfig>,
    /// One for each group, in the same order, like the monitors.
    readers: Vec<ReaderHandle>,
    monitors: Vec<Monitor>,
    timeline: Timeline,
    clock: Clock,
    writer: Writer,
    kernel: KernelWatch,
    not_comparable: NotComparable,
    /// How long the kernel may hold back a packet.
    flush_timeout: Duration,
    saving: Saving,
    bindings: Bindings,
    /// `None` if the rules cannot be watched.
    rules: Option<RuleWatch>,
    state: Arc<RuntimeState>,
    zone: Zone,
    verbose: bool,
    /// The group of a reader that has panicked.
    failed: Option<NflogGroup>,
}

impl Engine {
    /// Begins the first interval at `start`, like the readers.
    pub(crate) fn start(
        config: &Config,
        readers: Vec<ReaderHandle>,
        crosscheck: Option<Box<dyn KernelCount>>,
        recovered: Recovered,
        bindings: Bindings,
        start: UnixNanos,
        clock: Clock,
    ) -> Result<Self> {
        let watched = config.crosscheck.as_ref().map(|config| &config.watched);
        let destination = Destination {
            directory: config.log_directory.clone(),
            zone: config.zone,
            watched: watched.cloned().unwrap_or_default(),
            wire: config.crosscheck.as_ref().is_some_and(|it| it.wire),
            tag: config.tag(),
            backlog: config.backlog,
        };
        let mut saving = Saving {
            interval: config.interval,
            tag: config.tag(),
            pause: config.checkpoint,
            due_at: Instant::now() + config.checkpoint.unwrap_or_default(),
            files: BTreeMap::new(),
            resumed: None,
            n_datagrams: 0,
        };
        if let Some(resumed) = recovered.resumed {
            let index = resumed.checkpoint.index;
            saving.files.insert(index, resumed.file);
            saving.resumed = Some(resumed.checkpoint);
        }
        let counts = readers.iter().map(|reader| Arc::clone(&reader.counts));
        let state = Arc::new(RuntimeState::new(config, counts, start));
        let engine = Self {
            groups: config.groups.clone(),
            readers,
            monitors: config.groups.iter().copied().map(Monitor::new).collect(),
            timeline: Timeline::start(config.interval, start),
            clock,
            writer: Writer::start(destination, Arc::clone(&state))?,
            kernel: crosscheck.map_or(KernelWatch::Off, |crosscheck| {
                KernelWatch::Active(Some(crosscheck))
            }),
            not_comparable: NotComparable::default(),
            flush_timeout: config.flush_timeout,
            saving,
            bindings,
            rules: None,
            state,
            zone: config.zone,
            verbose: config.verbose,
            failed: None,
        };
        for interval in recovered.finished {
            engine.writer.write(interval)?;
        }
        engine.log_next();
        Ok(engine)
    }

    pub(crate) fn state(&self) -> &Arc<RuntimeState> {
        &self.state
    }

    /// From now on, records when the rules of a group are removed.
    pub(crate) fn watch_rules(&mut self) {
        let groups: Vec<NflogGroup> = self.groups.iter().map(|group| group.group).collect();
        let opened = self.bindings.in_namespace(RuleSocket::open);
        let started = opened.and_then(|socket| RuleWatch::start(&groups, socket?));
        self.rules = started
            .inspect_err(|error| {
                warn!(
                    "cannot watch the rules: {error}; if they are removed, acctd does not report it"
                );
            })
            .ok();
    }

    /// The sockets were kept for this process. They hold packets that were logged before the cross-check started, so
    /// the intervals until now cannot be compared.
    pub(crate) fn mark_taken_over(&mut self) {
        let received = (self.clock)().plus(self.flush_timeout);
        self.not_comparable.through = Some(self.saving.interval.index_of(received));
    }

    /// Logs when the period that holds the present time ends. With a short interval, the oldest open period has
    /// ended already.
    fn log_next(&self) {
        if self.verbose {
            let end = self.timeline.end_of_period((self.clock)());
            info!("Next stats dump at {}", self.zone.row_time(end));
        }
    }

    /// How long until something is due, if nobody sets the clock.
    pub(crate) fn until_due(&self) -> Duration {
        let until_close = self.timeline.until_due((self.clock)());
        let due_at = self.saving.pause.map(|_| self.saving.due_at);
        let until_save = due_at.map(|at| at.saturating_duration_since(Instant::now()));
        let others = [until_save, self.bindings.until_next_try()];
        others
            .into_iter()
            .flatten()
            .fold(until_close, Duration::min)
    }

    /// Binds groups again that are not bound any more. Fails if acctd is not permitted to enter their new network
    /// namespace.
    pub(crate) async fn check_bindings(&mut self) -> Result<()> {
        self.ask_whether_bound();
        self.collect_answers().await;
        let found = self.bindings.repair((self.clock)())?;
        if found.has_moved && matches!(self.kernel, KernelWatch::Active(_)) {
            self.kernel
                .give_up(&anyhow!("its interfaces went with their network namespace"));
        }
        for (reader, change) in found.changes {
            self.change(reader, change).await;
        }
        if found.has_moved {
            // The gap of the groups covers the time without rules.
            self.watch_rules();
        }
        Ok(())
    }

    fn ask_whether_bound(&mut self) {
        let now = (self.clock)();
        let answers = self.readers.iter().map(ReaderHandle::check_binding);
        self.bindings.expect_answers(now, answers);
    }

    async fn collect_answers(&mut self) {
        for (reader, change) in self.bindings.collect_answers((self.clock)()).await {
            self.change(reader, change).await;
        }
    }

    async fn change(&mut self, reader: usize, change: Change) {
        let is_new = matches!(change, Change::Adopt(_));
        match self.readers[reader].change(change).await {
            Ok(Err(error)) if is_new => self.bindings.adopt_failed(reader, &error, (self.clock)()),
            // If a failed socket still held packets, they are part of the gap.
            Ok(_) => {}
            Err(_panicked) => self.failed = Some(self.groups[reader].group),
        }
    }

    /// If a checkpoint is due, passes a copy of the open periods to the writer.
    pub(crate) async fn save_if_due(&mut self) {
        let Some(pause) = self.saving.pause else {
            return;
        };
        let now = Instant::now();
        if now < self.saving.due_at {
            return;
        }
        self.saving.due_at = now + pause;
        let counts = self.readers.iter().map(|reader| reader.counts.load());
        let n_datagrams = counts.map(|counts| counts.datagrams).sum();
        let is_saved = n_datagrams == self.saving.n_datagrams && self.writer.last_save_succeeded();
        // While the disk has not accepted the last checkpoint, it gets no other.
        if is_saved || self.writer.is_saving() {
            return;
        }
        self.saving.n_datagrams = n_datagrams;
        let saved_at = (self.clock)();
        let mut copied = self.ask_readers(Command::Copy).await;
        if !copied.slots.is_empty() {
            // If the oldest open period has no packets, the next start learns of it by this.
            copied.slots.entry(self.timeline.first_open()).or_default();
        }
        for (index, slots) in copied.slots {
            let start = self.timeline.start_of(index);
            let end = saved_at.max(start);
            let resumed = self.saving.resumed.as_ref();
            let resumed = resumed.filter(|resumed| resumed.index == index).cloned();
            let (groups, gaps) = self.assemble(Period { start, end }, slots, resumed);
            let file = Checkpoint::file_name(self.saving.tag, start);
            self.saving.files.insert(index, file.clone());
            let checkpoint = Checkpoint {
                interval: self.saving.interval,
                index,
                start,
                saved_at: end,
                groups,
                gaps,
            };
            self.writer.save(file, checkpoint);
        }
    }

    /// Closes the intervals that are over.
    pub(crate) async fn close_what_is_due(&mut self) -> Result<()> {
        let now = (self.clock)();
        match self.timeline.poll(now) {
            None => {}
            Some(Due::Close(first_open)) => {
                let begun = Instant::now();
                let mut closed = self.ask_readers(Command::CloseBefore(first_open)).await;
                closed.kernel = self
                    .kernel
                    .run(move |kernel| kernel.close_before(first_open, now))
                    .await;
                let periods = self.timeline.close_before(first_open, &closed.with_data());
                self.log_next();
                self.write(periods, closed)?;
                let took = begun.elapsed().as_secs_f64();
                self.state.close_seconds.observe(took);
            }
            Some(Due::Restart) => {
                warn!(
                    "the clock was set back: the open interval ends here and a new one begins; \
                     a file name that is taken gets a suffix"
                );
                let mut closed = self.ask_readers(Command::Restart(now)).await;
                closed.kernel = self.kernel.run(move |kernel| kernel.restart(now)).await;
                closed.join_epochs_after(self.timeline.last_period(now));
                let periods = self.timeline.finish(now, &closed.with_data());
                self.timeline.restart(now);
                let received = now.plus(self.flush_timeout);
                let through = &mut self.not_comparable.through;
                *through = through.map(|_| self.saving.interval.index_of(received));
                self.log_next();
                self.write(periods, closed)?;
                self.bindings.clock_set_back(now);
                if let Some(rules) = &self.rules {
                    rules.clock_set_back(now);
                }
            }
        }
        self.check_readers()
    }

    /// Runs once per second.
    pub(crate) async fn tick(&mut self) {
        self.kernel
            .run(|kernel| kernel.tick().map(|()| Vec::new()))
            .await;
    }

    /// Logs what the counters show, and updates the runtime state.
    pub(crate) fn report(&mut self) {
        let now = Instant::now();
        for (monitor, reader) in self.monitors.iter_mut().zip(&self.readers) {
            monitor.check(&reader.counts.load(), now);
        }
        let now = (self.clock)();
        let open = Period {
            start: self.timeline.start_of(self.saving.interval.index_of(now)),
            end: self.timeline.end_of_period(now),
        };
        self.state.record_tick(open, self.bindings.are_bound());
        if let Some(rules) = &self.rules {
            self.state.record_rules(rules.are_gone());
        }
        match &self.kernel {
            KernelWatch::Off | KernelWatch::Active(None) => {}
            KernelWatch::Active(Some(crosscheck)) => {
                let looked = (crosscheck.runs().to_vec(), crosscheck.interfaces());
                self.state.record_crosscheck(Some(looked));
            }
            KernelWatch::Failed => self.state.record_crosscheck(None),
        }
    }

    /// Closes and writes all open periods. Returns what the next process needs if it takes over the groups.
    pub(crate) async fn stop(&mut self, mode: ShutdownMode) -> Result<Handover> {
        let now = (self.clock)();
        if mode == ShutdownMode::KeepBound {
            // The packets that the kernel holds back go to the next process.
            let incomplete = now.minus(self.flush_timeout);
            self.not_comparable.from = Some(self.saving.interval.index_of(incomplete));
        }
        // Before the groups are unbound: afterwards NFLOG misses what the kernel still counts.
        let end = self.timeline.latest(now);
        self.kernel
            .run(move |kernel| kernel.stop_at(end).map(|()| Vec::new()))
            .await;
        let mut closed = self.ask_readers(Command::Finish(mode)).await;
        closed.kernel = self.kernel.finish().await;
        let last = self.timeline.last_period(now);
        closed.join_slots_after(last);
        closed.join_epochs_after(last);
        // The cross-check's last epoch ended at `now`, so the last period ends there as well.
        let periods = self.timeline.finish(now, &closed.with_data());
        let positions = std::mem::take(&mut closed.positions);
        let handover = Handover {
            end: periods.last().map_or(now, |(_, period)| period.end),
            groups: positions
                .into_iter()
                .map(|(reader, position)| (self.groups[reader].group, position))
                .collect(),
        };
        self.write(periods, closed)?;
        for (monitor, reader) in self.monitors.iter_mut().zip(&self.readers) {
            monitor.report(&reader.counts.load(), Instant::now());
        }
        Ok(handover)
    }

    /// Waits until everything is on disk; see [`Writer::finish`] for `hurry`.
    pub(crate) async fn finish(self, hurry: impl Future<Output = ()>) -> Result<()> {
        let readers = self.check_readers();
        self.writer.finish(hurry).await.and(readers)
    }

    /// Sends `command` to all readers at once and waits for their replies. If a reader has panicked, the counts of
    /// the others are still written. The bindings are checked too, so that all gaps until now are known.
    async fn ask_readers(&mut self, command: Command) -> ClosedSlots {
        self.ask_whether_bound();
        let answers: Vec<_> = self
            .readers
            .iter()
            .map(|reader| reader.request(command))
            .collect();
        let mut closed = ClosedSlots::default();
        for (reader, answer) in answers.into_iter().enumerate() {
            let Ok(answer) = answer.await else {
                self.failed = Some(self.groups[reader].group);
                continue;
            };
            closed.positions.push((reader, answer.position));
            if let Some(period) = answer.renumbered {
                self.bindings.add_renumbering(reader, period);
            }
            for slot in answer.slots {
                closed
                    .slots
                    .entry(slot.index)
                    .or_default()
                    .push((reader, slot));
            }
            closed
                .open_losses
                .extend(answer.open_loss.map(|periods| (reader, periods)));
        }
        self.collect_answers().await;
        closed
    }

    fn check_readers(&self) -> Result<()> {
        match self.failed {
            None => Ok(()),
            Some(group) => Err(anyhow!(
                "the reader of group {group} has failed: what it had counted in its open intervals is lost; please report this"
            )),
        }
    }

    /// All that was counted in a period: by the readers (each with its number), and by a killed acctd, from its
    /// checkpoint.
    fn assemble(
        &self,
        period: Period,
        slots: impl IntoIterator<Item = (usize, ClosedSlot)>,
        resumed: Option<Checkpoint>,
    ) -> (Vec<GroupInterval>, Vec<Gap>) {
        let mut groups: Vec<GroupInterval> =
            self.groups.iter().map(|&config| config.into()).collect();
        for (reader, slot) in slots {
            groups[reader].counts.add(&slot.counts);
            groups[reader].entries.push(slot.entries);
        }
        let mut gaps = Vec::new();
        if let Some(resumed) = resumed {
            for saved in resumed.groups {
                let group = groups.iter_mut().find(|group| group.config == saved.config);
                if let Some(group) = group {
                    group.counts.add(&saved.counts);
                    group.entries.extend(saved.entries);
                }
            }
            gaps = resumed.gaps;
        }
        gaps.extend(self.bindings.gaps_in(period));
        let rules = self.rules.iter();
        gaps.extend(rules.flat_map(|rules| rules.gaps_in(period)));
        (groups, gaps)
    }

    fn write(
        &mut self,
        periods: Vec<(PeriodIndex, Period)>,
        mut closed: ClosedSlots,
    ) -> Result<()> {
        for (index, period) in periods {
            let saved = self.saving.take_through(index);
            let is_resumed = saved.resumed.is_some();
            let slots = closed.take_through(index);
            let (mut groups, gaps) = self.assemble(period, slots, saved.resumed);
            for (reader, group) in groups.iter_mut().enumerate() {
                group.loss_is_open = closed.has_open_loss(reader, index);
            }
            let kernel = match self.kernel {
                KernelWatch::Off => None,
                KernelWatch::Active(_) | KernelWatch::Failed => {
                    let mut kernel = closed.take_kernel(index);
                    // What the killed acctd's programs counted is lost.
                    kernel.is_comparable &= !is_resumed && !self.not_comparable.has(index);
                    kernel.explained = self.state.take_explained();
                    Some(kernel)
                }
            };
            self.writer.write(ClosedInterval {
                kernel,
                gaps,
                checkpoints: saved.files,
                ..ClosedInterval::new(period, groups)
            })?;
            self.bindings.forget_before(period.end);
            if let Some(rules) = &self.rules {
                rules.forget_before(period.end);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
