//! How many packets NFLOG delivers per group. doctor reads a group itself if it is free, and otherwise asks the acctd
//! that reads it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::hooks::Snapshot;
use crate::config::Config;
use crate::config::listen_address::ListenAddress;
use crate::doctor::facts::Facts;
use crate::nflog::decode::{Record, Records};
use crate::nflog::socket::{MAX_DATAGRAM, NflogSocket, Received};
use crate::observe::status;

/// Short, so that packets from before the measurement do not arrive during it.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(10);
const IDLE_PAUSE: Duration = Duration::from_millis(2);
/// A running acctd has all packets after its flush timeout (1 s) and its reader's pause.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// `--listen` of the package's unit.
const DEFAULT_LISTEN: &str = "/run/acctd/acctd.sock";

#[derive(Clone, Debug)]
pub(crate) enum Logged {
    Known {
        packets: u64,
        /// Packets that the kernel numbered and then dropped.
        lost: u64,
        /// The process that received them, in words.
        by: String,
    },
    Unknown(String),
}

#[derive(Debug)]
pub(crate) struct Readers {
    own: Vec<u16>,
    counts: Arc<Vec<Tally>>,
    is_ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
    acctd: Option<(ListenAddress, Vec<u16>)>,
    unknown: BTreeMap<u16, String>,
    /// Received and lost packets at the beginning.
    before: BTreeMap<u16, (u64, u64)>,
    pid: u32,
}

#[derive(Debug, Default)]
struct Tally {
    packets: AtomicU64,
    lost: AtomicU64,
}

impl Readers {
    /// Binds the free groups, and starts to read them.
    pub(crate) fn open(config: &Config, facts: &Facts) -> Self {
        let usual = std::path::Path::new(DEFAULT_LISTEN);
        let usual = || usual.exists().then(|| ListenAddress::Unix(usual.into()));
        let address = config.listen.first().cloned().or_else(usual);
        let mut unknown = BTreeMap::new();
        let (mut sockets, mut of_acctd) = (Vec::new(), Vec::new());
        for group in &config.groups {
            let number = group.group.0;
            let taken = facts.bound_groups.iter().flatten();
            let owner = taken
                .filter(|(other, _)| *other == number)
                .map(|(_, owner)| owner)
                .next();
            let Some(owner) = owner else {
                let family = group.prefix_length.family();
                match NflogSocket::open(group.group, family, FLUSH_TIMEOUT) {
                    Ok(socket) => sockets.push(socket),
                    Err(error) => {
                        let why = format!("the group cannot be read: {error}");
                        unknown.insert(number, why);
                    }
                }
                continue;
            };
            if address.is_some() {
                of_acctd.push(number);
            } else {
                let owner = owner.as_deref().unwrap_or("another process");
                let why = format!("{owner} reads the group: if it is acctd, give its --listen");
                unknown.insert(number, why);
            }
        }
        let own: Vec<u16> = sockets.iter().map(|it| it.group().0).collect();
        let counts: Vec<Tally> = own.iter().map(|_| Tally::default()).collect();
        let counts = Arc::new(counts);
        let is_ending = Arc::new(AtomicBool::new(false));
        let thread = (!sockets.is_empty()).then(|| {
            let (counts, is_ending) = (Arc::clone(&counts), Arc::clone(&is_ending));
            thread::spawn(move || read(&sockets, &counts, &is_ending))
        });
        let acctd = address.filter(|_| !of_acctd.is_empty());
        Self {
            own,
            counts,
            is_ending,
            thread,
            acctd: acctd.map(|address| (address, of_acctd)),
            unknown,
            before: BTreeMap::new(),
            pid: 0,
        }
    }

    /// Starts to count.
    pub(crate) fn begin(mut self) -> Self {
        self.before = self.received();
        if let Some((address, groups)) = &self.acctd {
            match status::counts(address) {
                Ok((pid, counts)) => {
                    self.pid = pid;
                    for group in groups {
                        let of_group = counts.iter().find(|(other, _)| other == group);
                        let Some((_, counts)) = of_group else {
                            let why = format!("the acctd at {address} does not read the group");
                            self.unknown.insert(*group, why);
                            continue;
                        };
                        let packets = counts.packets + counts.undecodable();
                        self.before.insert(*group, (packets, counts.lost));
                    }
                }
                Err(error) => {
                    for group in groups {
                        self.unknown.insert(*group, format!("{error:#}"));
                    }
                }
            }
        }
        self
    }

    /// Stops. A running acctd may need a while to receive the last packets that matched between the snapshots.
    pub(crate) fn end(mut self, first: &Snapshot, last: &Snapshot) -> BTreeMap<u16, Logged> {
        self.is_ending.store(true, Ordering::Relaxed);
        let mut failed = None;
        if let Some(thread) = self.thread.take() {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failed = Some(error.to_string()),
                Err(_) => failed = Some("the reader has panicked".to_owned()),
            }
        }
        let mut logged = BTreeMap::new();
        for (group, (packets, lost)) in self.received() {
            let (packets_before, lost_before) = self.before.get(&group).copied().unwrap_or((0, 0));
            let known = match &failed {
                None => Logged::Known {
                    packets: packets - packets_before,
                    lost: lost - lost_before,
                    by: "this acctd doctor".to_owned(),
                },
                Some(error) => Logged::Unknown(format!("cannot read the group: {error}")),
            };
            logged.insert(group, known);
        }
        if let Some((address, groups)) = &self.acctd {
            let known = groups
                .iter()
                .filter(|group| !self.unknown.contains_key(group));
            let known: Vec<u16> = known.copied().collect();
            let met: BTreeMap<u16, u64> = known
                .iter()
                .filter_map(|group| Some((*group, met(*group, first, last)?)))
                .collect();
            logged.extend(self.poll_acctd(address, &known, &met));
        }
        let unknown = self.unknown.into_iter();
        logged.extend(unknown.map(|(group, why)| (group, Logged::Unknown(why))));
        logged
    }

    /// Asks acctd until it has received as many packets as matched the rules, or until the timeout.
    fn poll_acctd(
        &self,
        address: &ListenAddress,
        groups: &[u16],
        met: &BTreeMap<u16, u64>,
    ) -> BTreeMap<u16, Logged> {
        let end = Instant::now() + ANSWER_TIMEOUT;
        let mut logged: BTreeMap<u16, Logged> = BTreeMap::new();
        loop {
            let counts = match status::counts(address) {
                Ok((pid, counts)) if pid == self.pid => counts,
                answer => {
                    let why = match answer {
                        Ok(_) => "acctd restarted during the measurement".to_owned(),
                        Err(error) => format!("{error:#}"),
                    };
                    let unknown = |group: &u16| (*group, Logged::Unknown(why.clone()));
                    return groups.iter().map(unknown).collect();
                }
            };
            let is_late = Instant::now() >= end;
            for group in groups {
                let of_group = counts.iter().find(|(other, _)| other == group);
                if logged.contains_key(group) {
                    continue;
                }
                let (packets_before, lost_before) =
                    self.before.get(group).copied().unwrap_or((0, 0));
                let now =
                    of_group.map_or((0, 0), |(_, it)| (it.packets + it.undecodable(), it.lost));
                let packets = now.0.saturating_sub(packets_before);
                let lost = now.1.saturating_sub(lost_before);
                let is_all = met.get(group).is_some_and(|met| packets + lost >= *met);
                if is_all || is_late {
                    let by = format!("acctd, pid {}, at {address}", self.pid);
                    logged.insert(*group, Logged::Known { packets, lost, by });
                }
            }
            if logged.len() == groups.len() {
                return logged;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn received(&self) -> BTreeMap<u16, (u64, u64)> {
        let counts = self.own.iter().zip(self.counts.iter());
        let counts = counts.map(|(group, it)| {
            let packets = it.packets.load(Ordering::Relaxed);
            (*group, (packets, it.lost.load(Ordering::Relaxed)))
        });
        counts.collect()
    }
}

/// Packets that matched the rules of a group between two snapshots; `None` if a counter is missing.
pub(crate) fn met(group: u16, first: &Snapshot, last: &Snapshot) -> Option<u64> {
    let mut sum = 0;
    for rule in last.rules.iter().filter(|rule| rule.group == group) {
        let earlier = first.rules.iter().find(|it| it.key == rule.key)?;
        sum += rule.count?.since(earlier.count?)?.packets;
    }
    // A rule that was removed may have matched packets, too.
    let is_there = |rule: &&super::rules::LogCount| last.rules.iter().any(|it| it.key == rule.key);
    let mut of_group = first.rules.iter().filter(|rule| rule.group == group);
    of_group.all(|rule| is_there(&rule)).then_some(sum)
}

/// Reads all groups until the end of the measurement, then what the kernel still holds.
fn read(sockets: &[NflogSocket], counts: &[Tally], is_ending: &AtomicBool) -> io::Result<()> {
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut next = vec![None; sockets.len()];
    let mut is_unbound = false;
    loop {
        if is_ending.load(Ordering::Relaxed) && !is_unbound {
            for socket in sockets {
                socket.unbind()?;
            }
            is_unbound = true;
        }
        let mut is_idle = true;
        for (at, socket) in sockets.iter().enumerate() {
            loop {
                match socket.receive(&mut buffer)? {
                    Received::Datagram(length) => {
                        is_idle = false;
                        count_packets(&buffer[..length], &counts[at], &mut next[at]);
                    }
                    Received::Overrun => is_idle = false,
                    Received::Nothing => break,
                }
            }
        }
        if is_idle {
            if is_unbound {
                return Ok(());
            }
            thread::sleep(IDLE_PAUSE);
        }
    }
}

fn count_packets(datagram: &[u8], counts: &Tally, next: &mut Option<u32>) {
    let mut records = Records::of(datagram);
    while let Some(record) = records.next() {
        let Record::Packet(packet) = record else {
            continue;
        };
        counts.packets.fetch_add(1, Ordering::Relaxed);
        let Some(number) = packet.sequence() else {
            continue;
        };
        let gap = next.map_or(0, |next| number.wrapping_sub(next));
        // A larger gap means that the numbering restarted.
        if gap < 1 << 31 {
            counts.lost.fetch_add(gap.into(), Ordering::Relaxed);
        }
        *next = Some(number.wrapping_add(1));
    }
}
