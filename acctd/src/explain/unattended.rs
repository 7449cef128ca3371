//! `--explain`: the daemon has its worst prefixes explained by itself, each once.
//!
//! ```text
//!  last file's worst prefixes ─► sample ─► report ─► helper: rules, causes ─► log, intervals.jsonl
//! ```
//!
//! The daemon has no right to start nft, so a helper does: acctd itself, started before rights are dropped. Both speak
//! JSON, a line each way.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use ipnet::IpNet;
use log::warn;
use serde::{Deserialize, Serialize};

use crate::model::explanation::{Explained, Explanation};
use crate::model::human::thousands;
use crate::model::interval::UnixNanos;
use crate::model::prefix::Family;
use crate::model::verdict::Verdict;
use crate::observe::state::RuntimeState;
use crate::process::priority::yield_to_readers_and_others;
use crate::sampling::report::Report;
use crate::sampling::run::{Question, Sampling};

/// By this name acctd is the helper.
pub(super) const HELPER_NAME: &str = "acctd-explain";
/// How long each sample takes.
const LENGTH: Duration = Duration::from_secs(10);
/// How often to look for a new file.
const PAUSE: Duration = Duration::from_secs(1);
/// So many prefixes are known as explained; then all may be explained again.
const MAX_KNOWN: usize = 10_000;

#[derive(Serialize, Deserialize)]
pub(super) enum Ask {
    /// A sample begins.
    Before,
    /// It has ended.
    Explain(Box<Report>),
}

/// The causes, or why there are none.
pub(super) type Answer = Result<Vec<Explanation>, String>;

/// The process that reads the rules. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Helper {
    process: Child,
    answers: BufReader<ChildStdout>,
}

impl Helper {
    /// Must be called before rights are dropped.
    pub(crate) fn start() -> Result<Self> {
        let start = || -> Result<Self> {
            let mut process = Command::new("/proc/self/exe")
                .arg0(HELPER_NAME)
                .env_remove("NOTIFY_SOCKET")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let answers = process.stdout.take().context("it has no output")?;
            Ok(Self {
                process,
                answers: BufReader::new(answers),
            })
        };
        start().context("cannot start the process that reads the rules for --explain")
    }

    fn ask(&mut self, ask: &Ask) -> Result<()> {
        let mut line = serde_json::to_vec(ask)?;
        line.push(b'\n');
        let asks = self.process.stdin.as_mut().context("it has no input")?;
        Ok(asks.write_all(&line)?)
    }

    fn explain(&mut self, report: Report) -> Result<Vec<Explanation>> {
        self.ask(&Ask::Explain(Box::new(report)))?;
        let mut line = String::new();
        let length = self.answers.read_line(&mut line)?;
        ensure!(length > 0, "the process that reads the rules has ended");
        serde_json::from_str::<Answer>(&line)?.map_err(|error| anyhow!("{error}"))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // This closes its input, which ends it.
        let _ended = self.process.wait();
    }
}

/// Starts the thread that looks at each file's verdicts, until the process ends.
pub(crate) fn start(
    helper: Helper,
    state: Arc<RuntimeState>,
    sampling: Arc<Sampling>,
) -> Result<()> {
    let run = move || {
        yield_to_readers_and_others();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(explain_all(helper, &state, &sampling))
    };
    thread::Builder::new()
        .name("explain".into())
        .spawn(move || {
            if let Err(error) = run() {
                warn!("--explain has failed: {error:#}; accounting continues without it");
            }
        })
        .context("cannot start the thread of --explain")?;
    Ok(())
}

async fn explain_all(mut helper: Helper, state: &RuntimeState, sampling: &Sampling) -> Result<()> {
    ensure!(
        sampling.sampler.is_some(),
        "the programs of --crosscheck-object do not sample"
    );
    let mut known = BTreeSet::new();
    let mut last = None;
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some((end, prefixes)) = worst(state) else {
            continue;
        };
        let is_new = last.replace(end) != Some(end);
        let prefixes: Vec<IpNet> = prefixes.difference(&known).copied().collect();
        if !is_new || prefixes.is_empty() {
            continue;
        }
        helper.ask(&Ask::Before)?;
        let question = Question {
            prefixes: prefixes.clone(),
            length: LENGTH,
        };
        let report = match sampling.answer(&question).await {
            Ok(report) => report,
            Err(error) => {
                warn!("--explain cannot sample: {error:#}");
                continue;
            }
        };
        let sampled = report.totals.sampled;
        let causes = helper.explain(report)?;
        // The others are asked for again when they have packets.
        if sampled > 0 {
            if known.len() > MAX_KNOWN {
                known.clear();
            }
            known.extend(&prefixes);
        }
        for cause in &causes {
            warn!("{}", line(cause));
        }
        state.record_explained(Explained {
            prefixes: prefixes.iter().map(ToString::to_string).collect(),
            sampled,
            causes,
        });
    }
}

/// The end of the last file, and its worst prefixes that mean a fault of the rules.
fn worst(state: &RuntimeState) -> Option<(UnixNanos, BTreeSet<IpNet>)> {
    let snapshot = state.snapshot();
    if !snapshot.crosscheck.is_active {
        return None;
    }
    let end = snapshot.files.last?.period.end;
    let worst = snapshot.crosscheck.last?.worst;
    let at_fault = worst
        .iter()
        .filter(|it| matches!(it.verdict, Verdict::Uncovered | Verdict::Extra));
    let prefixes = at_fault.filter_map(|it| {
        let mut groups = state.groups.iter().map(|(group, _)| group.prefix_length);
        let is_of = |family| (family == Family::Ip4) == it.address.is_ipv4();
        let length = groups.find(|length| is_of(length.family()))?;
        IpNet::new(it.address, length.bits()).ok()
    });
    Some((end, prefixes.collect()))
}

fn line(explained: &Explanation) -> String {
    let first = explained.flows.first().map_or("", String::as_str);
    format!(
        "explained: {} packets, most of {first}, because {} [{}] -> {}",
        thousands(explained.packets),
        explained.cause,
        explained.id,
        explained.cure
    )
}
