//! Samples on both sides for a while.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use acctd_common::contract::{EGRESS_LEAD_NANOS, SIDE_SOURCE};
use acctd_common::sample::{EGRESS, MAX_LIMIT, STAMPED, Sample, WINDOW_NANOS};
use anyhow::{Result, bail};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::header::Header;
use super::matching::{Bounds, Seen, judge};
use super::report::{Group, Report};
use crate::count::capture::{Capture, Wanted, window_of};
use crate::count::reader::Request;
use crate::crosscheck::sampler::Sampler;
use crate::crosscheck::tc_netlink::name_of;
use crate::model::group::GroupConfig;
use crate::model::interval::{FLUSH_TIMEOUT, UnixNanos};
use crate::model::prefix::Side;

/// How long a sample may be taken.
pub(crate) const MAX_LENGTH: Duration = Duration::from_secs(30);
/// The most samples: this bounds the memory of both sides.
const MAX_SAMPLES: u64 = 10_000;
/// A reader keeps so many times what the programs sample, so that it has all of these in a flood.
const NFLOG_SHARE: u64 = 10;
/// How often the ring buffer is read.
const READ_INTERVAL: Duration = Duration::from_millis(50);
/// After the sample: until NFLOG's packets are with the readers.
const FLUSHED: Duration = FLUSH_TIMEOUT.saturating_add(Duration::from_millis(500));

/// What is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    /// All prefixes if there is none.
    pub(crate) prefixes: Vec<IpNet>,
    pub(crate) length: Duration,
}

/// The two sides of a running acctd.
#[derive(Debug)]
pub(crate) struct Sampling {
    /// `None` without a cross-check, or if its object does not sample. Locked while somebody asks.
    pub(crate) sampler: Option<Mutex<Sampler>>,
    pub(crate) interfaces: Vec<String>,
    pub(crate) readers: Vec<(GroupConfig, mpsc::WeakUnboundedSender<Request>)>,
}

impl Sampling {
    /// Answers after the question's length and the time that NFLOG needs.
    pub(crate) async fn answer(&self, question: &Question) -> Result<Report> {
        let Some(sampler) = &self.sampler else {
            bail!(
                "this acctd has no cross-check that samples: start it with --crosscheck IFACE (and without --crosscheck-object, or with an object that samples)"
            );
        };
        let Ok(mut sampler) = sampler.try_lock() else {
            bail!("another acctd explain is running: try again when it has ended");
        };
        let prefixes = match &question.prefixes[..] {
            [] => vec!["0.0.0.0/0".parse()?, "::/0".parse()?],
            prefixes => prefixes.to_vec(),
        };
        let length = question.length.min(MAX_LENGTH);
        let n_windows = length.as_nanos().div_ceil(u128::from(WINDOW_NANOS)).max(1);
        let limit = u64::try_from(u128::from(MAX_SAMPLES) / n_windows)?.clamp(1, MAX_LIMIT);
        let wanted = Wanted {
            prefixes: prefixes.clone().into(),
            limit: limit * NFLOG_SHARE,
        };
        // Before TC, and until after it.
        self.ask_readers(|| Request::StartCapture(wanted.clone()));
        let sample = async {
            let taken = take_samples(&mut sampler, &prefixes, limit, length).await;
            tokio::time::sleep(FLUSHED).await;
            taken
        };
        let taken = tokio::select! {
            taken = sample => taken,
            () = self.have_sockets_emptied() => bail!("it never ends"),
        };
        let mut captures = Vec::new();
        for (_, reader) in &self.readers {
            let (reply, answer) = oneshot::channel();
            if let Some(reader) = reader.upgrade() {
                let _gone = reader.send(Request::EndCapture(reply));
            }
            captures.extend(answer.await.ok().flatten());
        }
        let groups = self.readers.iter().map(|(group, _)| Group {
            number: group.group.0,
            ip_version: group.prefix_length.family().version(),
            side: group.side,
        });
        Ok(Report {
            seconds: length.as_secs_f64(),
            groups: groups.collect(),
            interfaces: self.interfaces.clone(),
            ..compare(&taken?, &captures)
        })
    }

    fn ask_readers(&self, request: impl Fn() -> Request) {
        for (_, reader) in &self.readers {
            if let Some(reader) = reader.upgrade() {
                let _gone = reader.send(request());
            }
        }
    }

    /// A reader that gets no CPU time is late with this too: so it is known how long packets may have waited for it.
    async fn have_sockets_emptied(&self) {
        loop {
            tokio::time::sleep(READ_INTERVAL).await;
            self.ask_readers(|| Request::ReadWhatWaits);
        }
    }
}

/// What the programs have sampled.
struct Taken {
    samples: Vec<Sample>,
    limit: u64,
    n_lost: u64,
    from: UnixNanos,
    until: UnixNanos,
}

async fn take_samples(
    source: &mut Sampler,
    prefixes: &[IpNet],
    limit: u64,
    length: Duration,
) -> Result<Taken> {
    let mut samples = Vec::new();
    source.start(prefixes, limit)?;
    let from = UnixNanos::now();
    let end = tokio::time::Instant::now() + length;
    while tokio::time::Instant::now() < end {
        tokio::time::sleep(READ_INTERVAL.min(length)).await;
        source.read(&mut samples);
    }
    let until = UnixNanos::now();
    let n_lost = source.stop()?;
    source.read(&mut samples);
    Ok(Taken {
        samples,
        limit,
        n_lost,
        from,
        until,
    })
}

fn compare(taken: &Taken, captures: &[Capture]) -> Report {
    let (samples, tc): (Vec<&Sample>, Vec<Seen>) = taken
        .samples
        .iter()
        .filter_map(|sample| Some((sample, seen_by_tc(sample)?)))
        .unzip();
    let kept = captures.iter().flat_map(|capture| {
        let packets = capture.packets.iter();
        packets.map(move |captured| (capture.group, captured))
    });
    let (logged, nflog): (Vec<_>, Vec<Seen>) = kept
        .filter_map(|(group, captured)| {
            let seen = Seen {
                time: captured.time,
                is_stamped: captured.is_stamped,
                side: group.side,
                header: Header::parse(&captured.header)?,
            };
            Some(((group.group.0, captured), seen))
        })
        .unzip();
    let (of_tc, of_nflog) = judge(&tc, &nflog, &bounds(taken, &samples, captures));
    let mut report = Report::default();
    let passed = samples.iter().zip(&tc).zip(&of_tc);
    report.add_passed(
        passed.map(|((sample, seen), by)| (*sample, seen, *by)),
        shown_name,
    );
    let logged = logged.iter().zip(&nflog).zip(&of_nflog);
    let logged = logged.map(|(((group, captured), seen), by)| (*group, *captured, seen, *by));
    report.add_logged(logged, shown_name);
    report.totals.samples_lost = taken.n_lost;
    report.totals.overran = captures.iter().any(|it| it.overran);
    report
}

fn seen_by_tc(sample: &Sample) -> Option<Seen> {
    let header = sample.header.get(..usize::from(sample.header_bytes))?;
    let is_stamped = sample.flags & STAMPED != 0;
    // So much earlier is the time that the program takes for its interval.
    let lead = match sample.flags & EGRESS {
        0 => 0,
        _ if is_stamped => 0,
        _ => EGRESS_LEAD_NANOS,
    };
    Some(Seen {
        time: UnixNanos(i64::try_from(sample.time.saturating_add(lead)).ok()?),
        is_stamped,
        side: match sample.side {
            SIDE_SOURCE => Side::Source,
            _ => Side::Dest,
        },
        header: Header::parse(header)?,
    })
}

fn bounds(taken: &Taken, samples: &[&Sample], captures: &[Capture]) -> Bounds {
    let mut in_window: HashMap<(bool, i64), u64> = HashMap::new();
    for sample in samples {
        let time = UnixNanos(i64::try_from(sample.time).unwrap_or(0));
        let key = (sample.flags & EGRESS != 0, window_of(time));
        *in_window.entry(key).or_default() += 1;
    }
    let full = in_window.iter().filter(|(_, n)| **n >= taken.limit);
    let full_at_tc: HashSet<i64> = full.map(|((_, window), _)| *window).collect();
    let mut full_at_nflog: BTreeMap<i64, UnixNanos> = BTreeMap::new();
    for (window, left_out) in captures.iter().flat_map(|it| &it.full) {
        let first = full_at_nflog.entry(*window).or_insert(*left_out);
        *first = (*first).min(*left_out);
    }
    Bounds {
        from: taken.from,
        until: taken.until,
        full_at_tc,
        full_at_nflog,
        tc_lost: taken.n_lost > 0,
        nflog_lost: captures.iter().any(|it| it.overran),
        longest_wait: captures
            .iter()
            .map(|it| i64::try_from(it.longest_wait.as_nanos()).unwrap_or(i64::MAX))
            .max()
            .unwrap_or(0),
    }
}

/// An interface's name; its index if it is gone, and nothing for 0.
fn shown_name(index: u32) -> String {
    match index {
        0 => String::new(),
        index => name_of(index).unwrap_or_else(|| index.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_the_time_at_which_it_passed() {
        let time = |flags| {
            let mut sample = Sample::parse(&[0; size_of::<Sample>()]).unwrap();
            (sample.time, sample.flags) = (1_000_000_000, flags);
            sample.header_bytes = 20;
            // An IPv4 header without options, of 20 bytes in all.
            sample.header[..4].copy_from_slice(&[0x45, 0, 0, 20]);
            seen_by_tc(&sample).map(|seen| seen.time.0)
        };
        assert_eq!(time(0), Some(1_000_000_000));
        assert_eq!(time(EGRESS | STAMPED), Some(1_000_000_000));
        assert_eq!(time(EGRESS), Some(1_050_000_000));
    }
}
