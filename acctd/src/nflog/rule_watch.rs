//! Whether rules still log to the groups. The kernel does not tell a group that nothing is logged to it any
//! more (`nft flush ruleset`, a firewall's reload in two steps), and a file without packets looks like an
//! interval without traffic.
//!
//! `nf_tables` tells of each transaction over netlink. A thread of its own takes note at once, so that the time
//! is right: what replaces the rules in one transaction leaves no hole and is none here. Of the rules of
//! iptables-legacy nobody tells: it looks at them each second, where it may see which tables there are.

pub mod legacy;
pub mod ruleset;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{io, thread};

use legacy::Legacy;
use log::{info, warn};
use ruleset::{GET_CHAIN, GET_RULE, GET_TABLE, Ruleset};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{RecvFlags, SendFlags};

use crate::model::closed_interval::{Gap, GapCause};
use crate::model::group::NflogGroup;
use crate::model::interval::{Period, UnixNanos};
use crate::nflog::message::{
    self, Message, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, result_of,
};
use crate::nflog::socket::{netfilter_socket, set_receive_buffer};
use crate::process::priority::yield_to_readers;

/// `NFNLGRP_NFTABLES`, as the bit of a group.
const NOTIFICATIONS: u32 = 1 << (7 - 1);
/// The kernel puts messages together up to a page or two; a rule may have 64 KiB.
const BUFFER: usize = 128 * 1024;
/// How long the thread waits before it looks whether it is still needed, and at the rules of iptables-legacy.
const LOOK: Duration = Duration::from_secs(1);
/// As often as that a table of iptables-legacy is read though it has the size that it had.
const THOROUGH: u32 = 60;
/// How often to ask for the rules again if they change meanwhile.
const TRIES: usize = 10;

/// Where the kernel tells of changes and answers questions; of the network namespace in which it was opened.
#[derive(Debug)]
pub struct RuleSocket {
    netlink: OwnedFd,
    legacy: Legacy,
}

/// Watches the rules until it is dropped.
#[derive(Debug)]
pub struct RuleWatch(Arc<Mutex<Watched>>);

#[derive(Debug)]
struct Watched {
    groups: Vec<Group>,
    /// In the order in which they began.
    gone: Vec<Gone>,
}

#[derive(Debug)]
struct Group {
    group: NflogGroup,
    n_rules: usize,
}

/// A time in which no rule logged to a group that had one before; without an end while it lasts.
#[derive(Debug)]
struct Gone {
    group: NflogGroup,
    start: UnixNanos,
    end: Option<UnixNanos>,
}

impl RuleSocket {
    /// Opens it in this thread's network namespace. Takes `CAP_NET_ADMIN` there.
    pub fn open() -> io::Result<Self> {
        let socket = netfilter_socket()?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, NOTIFICATIONS))?;
        sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(LOOK))?;
        set_receive_buffer(&socket)?;
        Ok(Self {
            netlink: socket,
            legacy: Legacy::open(),
        })
    }

    /// The rules that are loaded. What is told of meanwhile is taken in with the answer.
    fn ask(&self) -> io::Result<Ruleset> {
        for _ in 0..TRIES {
            let mut ruleset = Ruleset::default();
            let mut is_whole = true;
            for kind in [GET_TABLE, GET_CHAIN, GET_RULE] {
                is_whole &= dump(&self.netlink, kind, &mut ruleset)?;
            }
            if is_whole {
                return Ok(ruleset);
            }
        }
        Err(io::Error::other("they change all the time"))
    }
}

/// Asks for all of a kind. Returns false if they have changed meanwhile.
fn dump(socket: &OwnedFd, kind: u16, ruleset: &mut Ruleset) -> io::Result<bool> {
    let request = message::request(kind, NLM_F_REQUEST | NLM_F_DUMP, 0, 0, &[]);
    rustix::net::send(socket, &request, SendFlags::empty())?;
    let mut buffer = vec![0; BUFFER];
    let mut is_whole = true;
    loop {
        let (length, _) = match rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok(received) => received,
            Err(Errno::INTR) => continue,
            // Something is missing.
            Err(Errno::NOBUFS) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let datagram = &buffer[..length];
        ruleset.apply(datagram);
        let mut rest = datagram;
        while let Some((message, next)) = Message::split_off(rest) {
            is_whole &= message.flags & NLM_F_DUMP_INTR == 0;
            match message.kind {
                NLMSG_DONE => return Ok(is_whole),
                NLMSG_ERROR => {
                    return result_of(message.errno().unwrap_or(0)).map(|()| is_whole);
                }
                _ => {}
            }
            rest = next;
        }
    }
}

impl RuleWatch {
    /// Looks at the rules, and watches them from then on.
    pub fn start(groups: &[NflogGroup], mut socket: RuleSocket) -> io::Result<Self> {
        // A kernel without nf_tables has no such rules.
        let ruleset = socket.ask().unwrap_or_default();
        socket.legacy.look(true);
        let n_rules = n_rules(&ruleset, &socket.legacy);
        let groups = groups.iter().map(|&group| Group {
            group,
            n_rules: n_rules(group),
        });
        let watched = Arc::new(Mutex::new(Watched {
            groups: groups.collect(),
            gone: Vec::new(),
        }));
        let weak = Arc::downgrade(&watched);
        thread::Builder::new()
            .name("rules".into())
            .spawn(move || watch(&weak, socket, ruleset))?;
        Ok(Self(watched))
    }

    /// The times in a period in which the rules were gone, as far as they lie in it.
    #[must_use]
    pub fn gaps_in(&self, period: Period) -> Vec<Gap> {
        let mut gaps: Vec<Gap> = Vec::new();
        for gone in &self.lock().gone {
            let start = gone.start.max(period.start);
            let end = gone.end.unwrap_or(period.end).min(period.end);
            if start >= end {
                continue;
            }
            let period = Period { start, end };
            match gaps.iter_mut().find(|gap| gap.period == period) {
                // They went together.
                Some(gap) => gap.groups.push(gone.group),
                None => gaps.push(Gap {
                    period,
                    groups: vec![gone.group],
                    cause: GapCause::RulesGone,
                }),
            }
        }
        gaps
    }

    /// Forgets what lies before a time.
    pub fn forget_before(&self, time: UnixNanos) {
        let mut watched = self.lock();
        watched
            .gone
            .retain(|gone| gone.end.is_none_or(|end| end > time));
    }

    /// What is gone is so since then at the latest: times of the old clock would lie ahead.
    pub fn clock_set_back(&self, now: UnixNanos) {
        for gone in self
            .lock()
            .gone
            .iter_mut()
            .filter(|gone| gone.end.is_none())
        {
            gone.start = gone.start.min(now);
        }
    }

    /// For each group whether its rules are gone.
    #[must_use]
    pub fn are_gone(&self) -> Vec<bool> {
        let watched = self.lock();
        let is_gone = |group: &Group| {
            let mut gone = watched.gone.iter();
            gone.any(|gone| gone.group == group.group && gone.end.is_none())
        };
        watched.groups.iter().map(is_gone).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many rules log to a group, of both kinds.
fn n_rules(ruleset: &Ruleset, legacy: &Legacy) -> impl Fn(NflogGroup) -> usize + use<> {
    let both = [ruleset.n_rules(), legacy.n_rules()];
    move |group| both.iter().filter_map(|it| it.get(&group.0)).sum()
}

/// Until nobody wants to know any more.
fn watch(watched: &Weak<Mutex<Watched>>, mut socket: RuleSocket, mut ruleset: Ruleset) {
    yield_to_readers();
    let mut buffer = vec![0; BUFFER];
    let (mut looked, mut looked_at, mut n_looks) = (Instant::now(), UnixNanos::now(), 0_u32);
    loop {
        let flags = RecvFlags::TRUNC;
        let received = rustix::net::recv(&socket.netlink, &mut buffer[..], flags);
        let now = UnixNanos::now();
        let mut since = now;
        let mut has_changed = match received {
            Ok((read, length)) if length <= buffer.len() => ruleset.apply(&buffer[..read]),
            // Too much at once, of which some is missing.
            Ok(_) | Err(Errno::NOBUFS) => match socket.ask() {
                Ok(asked) => {
                    ruleset = asked;
                    true
                }
                Err(error) => {
                    warn!("cannot see which rules are loaded: {error}");
                    false
                }
            },
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(error) => {
                warn!("cannot watch the rules any more: {error}");
                return;
            }
        };
        let Some(watched) = watched.upgrade() else {
            return;
        };
        if looked.elapsed() >= LOOK {
            let before = socket.legacy.n_rules();
            n_looks = n_looks.wrapping_add(1);
            socket.legacy.look(n_looks.is_multiple_of(THOROUGH));
            if socket.legacy.n_rules() != before {
                has_changed = true;
                since = looked_at.min(now);
            }
            (looked, looked_at) = (Instant::now(), now);
        }
        if has_changed {
            let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
            watched.note(n_rules(&ruleset, &socket.legacy), since, now);
        }
    }
}

impl Watched {
    /// Takes in how many rules there are now, or since then at the earliest.
    fn note(&mut self, n_rules: impl Fn(NflogGroup) -> usize, since: UnixNanos, now: UnixNanos) {
        for Group {
            group,
            n_rules: known,
        } in &mut self.groups
        {
            let group = *group;
            let before = std::mem::replace(known, n_rules(group));
            if before > 0 && *known == 0 {
                warn!(
                    "group {group}: no rule logs to it any more: what passes is not counted until the rules are loaded again (acctd rules --apply, or the firewall's own reload)"
                );
                self.gone.push(Gone {
                    group,
                    start: since,
                    end: None,
                });
            }
            if before == 0 && *known > 0 {
                let mut open = self.gone.iter_mut();
                let open = open.find(|gone| gone.group == group && gone.end.is_none());
                if let Some(gone) = open {
                    gone.end = Some(now);
                    info!(
                        "Group {group} has rules again; what passed within {:.3} s is not counted",
                        gone.start.until(now).as_secs_f64()
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: [NflogGroup; 2] = [NflogGroup(4), NflogGroup(5)];

    fn watch_of(n_rules: [usize; 2]) -> RuleWatch {
        let groups = GROUPS.into_iter().zip(n_rules);
        let groups = groups.map(|(group, n_rules)| Group { group, n_rules });
        RuleWatch(Arc::new(Mutex::new(Watched {
            groups: groups.collect(),
            gone: Vec::new(),
        })))
    }

    fn note(watch: &RuleWatch, n_rules: [usize; 2], at: i64) {
        let of = |group: NflogGroup| n_rules[usize::from(group.0 - 4)];
        watch.lock().note(of, UnixNanos(at), UnixNanos(at));
    }

    fn gaps(watch: &RuleWatch, start: i64, end: i64) -> Vec<(i64, i64, usize)> {
        let (start, end) = (UnixNanos(start), UnixNanos(end));
        let gaps = watch.gaps_in(Period { start, end });
        gaps.iter()
            .map(|gap| (gap.period.start.0, gap.period.end.0, gap.groups.len()))
            .collect()
    }

    #[test]
    fn what_goes_together_is_one_gap_in_each_period() {
        let watch = watch_of([1, 2]);
        note(&watch, [1, 1], 5);
        assert_eq!(watch.are_gone(), [false, false], "one of two is left");
        note(&watch, [0, 0], 10);
        assert_eq!(watch.are_gone(), [true, true]);
        assert_eq!(gaps(&watch, 0, 20), [(10, 20, 2)]);
        note(&watch, [0, 3], 25);
        assert_eq!(watch.are_gone(), [true, false]);
        assert_eq!(gaps(&watch, 20, 40), [(20, 40, 1), (20, 25, 1)]);
        note(&watch, [1, 3], 41);
        watch.forget_before(UnixNanos(40));
        assert_eq!(gaps(&watch, 0, 100), [(10, 41, 1)]);
        watch.forget_before(UnixNanos(41));
        assert_eq!(gaps(&watch, 0, 100), []);
    }

    #[test]
    fn what_changed_between_two_looks_is_gone_for_as_long_as_it_may_be() {
        let watch = watch_of([1, 1]);
        let look = |n_rules: usize, since: i64, now: i64| {
            let (since, now) = (UnixNanos(since), UnixNanos(now));
            watch.lock().note(|_| n_rules, since, now);
        };
        look(0, 10, 20);
        look(1, 20, 30);
        assert_eq!(gaps(&watch, 0, 100), [(10, 30, 2)]);
    }

    #[test]
    fn rules_that_were_never_there_are_not_gone() {
        let watch = watch_of([0, 0]);
        note(&watch, [0, 0], 1);
        note(&watch, [1, 0], 2);
        assert_eq!(watch.are_gone(), [false, false]);
        assert_eq!(gaps(&watch, 0, 100), []);
    }
}
