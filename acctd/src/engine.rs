//! Closes intervals: asks the clock what is over and the readers for their ledgers, and hands the
//! two together to the writer. The clock is passed in, so that the tests can step it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use log::{info, warn};

use crate::accumulator::ClosedSlot;
use crate::config::{Config, GroupConfig};
use crate::interval::{Period, PeriodIndex, UnixNanos};
use crate::monitor::Monitor;
use crate::naming::Zone;
use crate::nflog_socket::NflogGroup;
use crate::reader::{Command, ReaderHandle};
use crate::rows::{ClosedInterval, GroupInterval};
use crate::timeline::{Due, Timeline};
use crate::writer::{Destination, Writer};

/// The wall clock.
pub type Clock = Box<dyn Fn() -> UnixNanos + Send + Sync>;

/// The readers, the open interval, and the writer.
pub struct Engine {
    groups: Vec<GroupConfig>,
    /// One for each group, in the same order; so are the monitors.
    readers: Vec<ReaderHandle>,
    monitors: Vec<Monitor>,
    timeline: Timeline,
    clock: Clock,
    writer: Writer,
    zone: Zone,
    verbose: bool,
    /// The group of a reader that has panicked.
    failed: Option<NflogGroup>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("groups", &self.groups)
            .field("timeline", &self.timeline)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Begins the first interval at `start`; the readers were started with the same time.
    #[must_use]
    pub fn start(
        config: &Config,
        readers: Vec<ReaderHandle>,
        start: UnixNanos,
        clock: Clock,
    ) -> Self {
        let destination = Destination {
            directory: config.log_directory.clone(),
            zone: config.zone,
        };
        let engine = Self {
            groups: config.groups.clone(),
            readers,
            monitors: config.groups.iter().copied().map(Monitor::new).collect(),
            timeline: Timeline::start(config.interval, start),
            clock,
            writer: Writer::start(destination),
            zone: config.zone,
            verbose: config.verbose,
            failed: None,
        };
        engine.log_next();
        engine
    }

    /// When the period that is open by the clock ends: with a short interval, the oldest that is not
    /// closed has ended already.
    fn log_next(&self) {
        if self.verbose {
            let end = self.timeline.end_of_period((self.clock)());
            info!("Next stats dump at {}", self.zone.row_time(end));
        }
    }

    /// How long until an interval is over, if the clock is left alone.
    #[must_use]
    pub fn until_due(&self) -> Duration {
        self.timeline.until_due((self.clock)())
    }

    /// Closes the intervals that are over, if any.
    pub async fn close_what_is_due(&mut self) -> Result<()> {
        let now = (self.clock)();
        match self.timeline.poll(now) {
            None => {}
            Some(Due::Close(first_open)) => {
                let closed = self.ask_readers(Command::CloseBefore(first_open)).await;
                let periods = self.timeline.close_before(first_open, &closed.with_data());
                self.log_next();
                self.write(periods, closed)?;
            }
            Some(Due::Restart) => {
                warn!(
                    "the clock was set back: the open interval ends here and a new one begins; \
                     a file name that is taken gets a suffix"
                );
                let closed = self.ask_readers(Command::Restart(now)).await;
                let periods = self.timeline.finish(now, &closed.with_data());
                self.timeline.restart(now);
                self.log_next();
                self.write(periods, closed)?;
            }
        }
        self.no_reader_failed()
    }

    /// Logs what the counters show.
    pub fn warn_of_trouble(&mut self) {
        let now = Instant::now();
        for (monitor, reader) in self.monitors.iter_mut().zip(&self.readers) {
            monitor.check(&reader.counts.load(), now);
        }
    }

    /// Lets go of the groups, writes what is open, and waits until all is on disk, or until the
    /// disk refuses it after `hurry` has come true.
    pub async fn finish(mut self, hurry: impl Future<Output = ()>) -> Result<()> {
        let closed = self.ask_readers(Command::Finish).await;
        let periods = self.timeline.finish((self.clock)(), &closed.with_data());
        self.write(periods, closed)?;
        for (monitor, reader) in self.monitors.iter_mut().zip(&self.readers) {
            monitor.report(&reader.counts.load(), Instant::now());
        }
        let all_readers_well = self.no_reader_failed();
        self.writer.finish(hurry).await.and(all_readers_well)
    }

    /// Sends `command` to all readers at once and waits for all of them. One that has panicked is
    /// noted: what the others have counted is written all the same.
    async fn ask_readers(&mut self, command: Command) -> ClosedSlots {
        let answers: Vec<_> = self
            .readers
            .iter()
            .map(|reader| reader.request(command))
            .collect();
        let mut closed = ClosedSlots::default();
        for (reader, answer) in answers.into_iter().enumerate() {
            let Ok(slots) = answer.await else {
                self.failed = Some(self.groups[reader].group);
                continue;
            };
            for slot in slots {
                closed.0.entry(slot.index).or_default().push((reader, slot));
            }
        }
        closed
    }

    fn no_reader_failed(&self) -> Result<()> {
        match self.failed {
            None => Ok(()),
            Some(group) => Err(anyhow!(
                "the reader of group {group} has failed: what it had counted in its open intervals is lost; please report this"
            )),
        }
    }

    fn write(&self, periods: Vec<(PeriodIndex, Period)>, mut closed: ClosedSlots) -> Result<()> {
        for (index, period) in periods {
            let mut groups: Vec<GroupInterval> =
                self.groups.iter().map(|&config| config.into()).collect();
            for (reader, slot) in closed.take_through(index) {
                groups[reader].counts.add(&slot.counts);
                groups[reader].entries.push(slot.entries);
            }
            self.writer.write(ClosedInterval { period, groups })?;
        }
        Ok(())
    }
}

/// What the readers handed over, by period; with each the number of its reader.
#[derive(Default)]
struct ClosedSlots(BTreeMap<PeriodIndex, Vec<(usize, ClosedSlot)>>);

impl ClosedSlots {
    fn with_data(&self) -> BTreeSet<PeriodIndex> {
        self.0.keys().copied().collect()
    }

    /// Those of this period, and of any before it that was not named.
    fn take_through(&mut self, index: PeriodIndex) -> impl Iterator<Item = (usize, ClosedSlot)> {
        let later = self.0.split_off(&index.next());
        std::mem::replace(&mut self.0, later)
            .into_values()
            .flatten()
    }
}

#[cfg(test)]
mod tests;
