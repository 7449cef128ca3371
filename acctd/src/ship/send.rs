//! Sends what waits: in batches, the oldest first, until it is all there.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use log::{error, info};

use super::central::{Central, Mark};
use super::local::{Content, Finished, Local, Sums};
use super::sink::{Compared, Outcome, Sink};
use super::state::State;
use crate::cli::server::ServerUrl;
use crate::cli::ship::ShipArgs;
use crate::client::clickhouse::ClickHouse;
use crate::fault_points::reached;
use crate::files::calendar::{Calendar, utc_day};
use crate::model::interval::UnixNanos;

/// A batch has at most so many files, and so many bytes unless it is one file.
const MAX_FILES: usize = 200;
const MAX_BYTES: u64 = 16 << 20;
/// A day is added up so long after its end.
const ROLL_UP_DELAY: Duration = Duration::from_secs(15 * 60);
const NANOS: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * NANOS;

/// Sends the files of one directory to one database.
#[derive(Debug)]
pub(super) struct Sender {
    args: ShipArgs,
    url: ServerUrl,
    host: String,
    machine: String,
    local: Local,
    central: Option<Central>,
    /// Of files that are in the database.
    marks: HashMap<String, Mark>,
    /// The sizes of files that could not be sent. If the size of one changes, it is sent again.
    refused: HashMap<String, u64>,
    /// Files that were sent, and may not be there.
    sent: HashMap<String, u32>,
    /// Whether the newest file is next, and not the oldest.
    is_newest_next: bool,
    /// The end of the last day that was added up.
    rolled_up: i64,
    /// Of the last file that was sent.
    interval: Duration,
    state: Arc<State>,
}

/// Files of one request, and what they have.
#[derive(Debug, Default)]
struct Batch {
    files: Vec<Finished>,
    content: Vec<Content>,
    is_again: bool,
}

impl Sender {
    pub(super) fn new(
        args: &ShipArgs,
        url: &ServerUrl,
        host: String,
        machine: String,
        calendar: Calendar,
    ) -> Result<Self> {
        // Flags, files and certificates are checked before the start.
        server(args, url)?;
        Ok(Self {
            args: args.clone(),
            url: url.clone(),
            host,
            machine,
            local: Local::new(&args.directory, calendar),
            central: None,
            marks: HashMap::new(),
            refused: HashMap::new(),
            sent: HashMap::new(),
            is_newest_next: false,
            rolled_up: 0,
            interval: Duration::ZERO,
            state: Arc::new(State::new()),
        })
    }

    /// Finished files that the database has, or should have.
    fn kept(&mut self) -> Result<Vec<Finished>> {
        let start_of = |name: &str| Some(UnixNanos(self.marks.get(name)?.start * NANOS));
        let marked = self.local.marked(start_of)?;
        Ok(self.not_too_old(marked).chain(self.waiting()?).collect())
    }

    /// The database deletes older rows.
    fn not_too_old(&self, files: Vec<Finished>) -> impl Iterator<Item = Finished> + use<> {
        let oldest = self.args.keep.map(|keep| UnixNanos::now().minus(keep));
        let is_kept =
            move |file: &Finished| oldest.is_none_or(|oldest| file.period.start >= oldest);
        files.into_iter().filter(is_kept)
    }

    /// The database. The first time, it is asked what it has.
    fn central(&mut self) -> Result<&Central> {
        if self.central.is_none() {
            let server = server(&self.args, &self.url)?;
            let central = Central::open(server, &self.host, self.machine.clone())?;
            self.marks = central.marks()?;
            info!(
                "{} files of {} are in {}",
                self.marks.len(),
                self.host,
                central.shown()
            );
            self.central = Some(central);
        }
        self.central.as_ref().context("no database")
    }

    /// Files that are not in the database, in the order of their times.
    fn waiting(&mut self) -> Result<Vec<Finished>> {
        let Self {
            local,
            marks,
            machine,
            ..
        } = self;
        let finished =
            local.finished(|name| marks.get(name).is_none_or(|mark| mark.machine != *machine))?;
        let finished = self
            .not_too_old(finished)
            .filter(|file| self.refused.get(&file.name) != Some(&file.size));
        let (waiting, foreign): (Vec<_>, Vec<_>) =
            finished.partition(|file| !self.marks.contains_key(&file.name));
        for file in foreign {
            self.check_foreign(&file)?;
        }
        self.state.waiting.set(i64::try_from(waiting.len())?);
        self.state
            .set_oldest(waiting.first().map(|file| file.period.end));
        Ok(waiting)
    }

    /// Another machine has sent a file of this name: this one, if it was installed again; else both would mix their rows.
    fn check_foreign(&mut self, file: &Finished) -> Result<()> {
        let mark = self.marks.get_mut(&file.name).context("no mark")?;
        ensure!(
            file.content()?.sha256 == mark.sha256,
            "another machine has sent files as {}, among them another {}: give each its own --host",
            self.host,
            file.name
        );
        mark.machine.clone_from(&self.machine);
        Ok(())
    }

    /// The oldest files; but of the batches on the way at once, each second time one has the newest, so that a backlog does
    /// not delay them.
    fn batches(&mut self, waiting: Vec<Finished>) -> Vec<Batch> {
        let mut waiting = VecDeque::from(waiting);
        let n_batches = usize::from(self.args.in_flight);
        let batches = (1..=n_batches).map(|number| {
            let is_newest = self.is_newest_next && number == n_batches;
            self.batch(&mut waiting, is_newest)
        });
        let mut batches: Vec<Batch> = batches.collect();
        batches.retain(|batch| !batch.files.is_empty());
        self.is_newest_next = !self.is_newest_next;
        batches
    }

    /// Takes files from the front, or the newest from the back, until the batch is full.
    fn batch(&mut self, waiting: &mut VecDeque<Finished>, is_newest: bool) -> Batch {
        let mut batch = Batch::default();
        let mut n_bytes = 0;
        while batch.files.len() < MAX_FILES {
            let next = if is_newest {
                waiting.pop_back()
            } else {
                waiting.pop_front()
            };
            let Some(file) = next else { break };
            let described = self.local.describe(file.clone());
            let read = described.and_then(|file| Ok((file.content()?, file)));
            let (content, file) = match read {
                Ok(read) => read,
                Err(error) => {
                    self.refuse(&file, &error);
                    continue;
                }
            };
            let is_alike = batch
                .content
                .first()
                .is_none_or(|first| first.columns == content.columns);
            if !is_alike || (n_bytes > 0 && n_bytes + file.size > MAX_BYTES) {
                if is_newest {
                    waiting.push_back(file);
                } else {
                    waiting.push_front(file);
                }
                break;
            }
            n_bytes += file.size;
            batch.is_again |= self.sent.contains_key(&file.name);
            batch.files.push(file);
            batch.content.push(content);
        }
        batch
    }

    /// It is not sent until it has changed.
    fn refuse(&mut self, file: &Finished, error: &anyhow::Error) {
        if self.refused.insert(file.name.clone(), file.size).is_none() {
            error!("{} is not sent: {error:#}", file.path.display());
        }
        self.state
            .refused
            .set(i64::try_from(self.refused.len()).unwrap_or(i64::MAX));
    }

    /// They are in the database.
    fn note(&mut self, batch: Batch) {
        for (file, content) in batch.files.into_iter().zip(batch.content) {
            self.local.forget(&file.name);
            self.state.files.inc();
            self.state.rows.inc_by(content.sums.rows);
            self.state.bytes.inc_by(file.size);
            self.state.waiting.dec();
            if self.sent.remove(&file.name).is_some_and(|n| n > 1) {
                self.state.repeated.inc();
            }
            self.refused.remove(&file.name);
            // A day that was added up has one more file.
            self.rolled_up = self.rolled_up.min(file.period.start.0);
            self.interval = file.period.start.until(file.period.end);
            let mark = Mark::new(&file, content.sha256, &self.machine);
            self.marks.insert(file.name, mark);
        }
    }

    /// With the sums that the database has.
    fn compared(&self, file: &Finished, found: &HashMap<String, Sums>) -> Compared {
        let content = file.content();
        let rows = content.as_ref().map_or(0, |content| content.sums.rows);
        let (outcome, why) = match (content, self.marks.get(&file.name)) {
            (Err(error), _) => (Outcome::Changed, format!("{error:#}")),
            (Ok(_), None) => (Outcome::NotThere, "it is not in the database".to_owned()),
            (Ok(content), Some(mark)) if content.sha256 != mark.sha256 => (
                Outcome::Changed,
                "it is not the file that was sent: it was changed, or another machine sends as this host".to_owned(),
            ),
            (Ok(content), Some(_)) => {
                let found = found.get(&file.name).copied().unwrap_or_default();
                if found == content.sums {
                    (Outcome::Same, String::new())
                } else {
                    (Outcome::Differs, content.sums.differs(&found))
                }
            }
        };
        Compared {
            file: file.name.clone(),
            rows,
            outcome,
            why,
        }
    }
}

impl Sink for Sender {
    fn state(&self) -> &Arc<State> {
        &self.state
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn round(&mut self) -> Result<usize> {
        self.central()?;
        let waiting = self.waiting()?;
        let batches = self.batches(waiting);
        let central = self.central.as_ref().context("no database")?;
        for batch in &batches {
            for file in &batch.files {
                *self.sent.entry(file.name.clone()).or_default() += 1;
            }
        }
        let results: Vec<Result<()>> = thread::scope(|scope| {
            let threads: Vec<_> = batches
                .iter()
                .map(|batch| scope.spawn(|| batch.store(central)))
                .collect();
            let results = threads.into_iter().map(|thread| {
                thread
                    .join()
                    .map_err(|_panicked| anyhow!("a thread has panicked"))?
            });
            results.collect()
        });
        let mut n_sent = 0;
        let mut failed = None;
        for (batch, result) in batches.into_iter().zip(results) {
            match result {
                Ok(()) => {
                    n_sent += batch.files.len();
                    self.note(batch);
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(n_sent),
        }
    }

    /// Days that are over, and of which all files are there.
    fn roll_up(&mut self) -> Result<()> {
        let now = UnixNanos::now().minus(ROLL_UP_DELAY);
        let until = now.0.div_euclid(DAY) * DAY;
        if until > self.rolled_up {
            let n_days = self.central()?.roll_up(UnixNanos(until))?;
            if n_days > 0 {
                info!("{n_days} days are added up");
            }
            self.rolled_up = until;
        }
        Ok(())
    }

    fn disconnect(&mut self) {
        self.central = None;
    }

    fn compare(&mut self, each: &mut dyn FnMut(&str, Vec<Compared>) -> Result<()>) -> Result<()> {
        self.central()?;
        let mut days: BTreeMap<String, Vec<Finished>> = BTreeMap::new();
        for file in self.kept()? {
            days.entry(utc_day(file.period.start))
                .or_default()
                .push(file);
        }
        for (day, files) in days {
            let found = self.central()?.sums(&files)?;
            let compared = files.iter().map(|file| self.compared(file, &found));
            each(&day, compared.collect())?;
        }
        Ok(())
    }

    fn send_again(&mut self, name: String) {
        self.marks.remove(&name);
        self.local.read_journal_again();
        self.sent.insert(name, 1);
    }

    fn check_roll_ups(&mut self) -> Result<usize> {
        let n_days = self.central()?.check_roll_ups()?;
        if n_days > 0 {
            self.rolled_up = 0;
        }
        Ok(n_days)
    }
}

fn server(args: &ShipArgs, url: &ServerUrl) -> Result<ClickHouse> {
    ClickHouse::new(url, &args.server, args.compression)
}

impl Batch {
    fn store(&self, central: &Central) -> Result<()> {
        reached("ship-send");
        central.send(&self.files, &self.content, self.is_again)?;
        reached("ship-compare");
        central.compare(&self.files, &self.content)?;
        reached("ship-mark");
        central.mark(&self.files, &self.content, UnixNanos::now())?;
        reached("ship-marked");
        Ok(())
    }
}
