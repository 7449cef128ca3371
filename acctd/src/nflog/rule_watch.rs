//! Checks whether rules still log to the groups. The kernel does not tell a group that its rules were removed
//! (`nft flush ruleset`, a firewall's reload in two steps), and then a file without packets looks like an interval
//! without traffic.
//!
//! `nf_tables` announces each transaction over netlink. A separate thread receives the announcements at once, so
//! the times are exact: if rules are replaced in one transaction, there is no gap. Changes of iptables-legacy's
//! rules are not announced: the thread reads them each second, if it may see which tables exist.

mod legacy;
mod ruleset;

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
/// The kernel joins messages up to a page or two; one rule may have 64 KiB.
const BUFFER: usize = 128 * 1024;
/// How often the thread checks whether it is still needed, and the rules of iptables-legacy.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Each so many checks, all tables of iptables-legacy are read, even those that seem unchanged.
const FULL_CHECK: u32 = 60;
/// How often to request the rules again if they change meanwhile.
const TRIES: usize = 10;

/// Receives announcements and requests the rules, in the network namespace in which it was opened.
pub(crate) struct RuleSocket {
    netlink: OwnedFd,
    legacy: Legacy,
}

/// Watches the rules until it is dropped.
pub(crate) struct RuleWatch(Arc<Mutex<Watched>>);

struct Watched {
    groups: Vec<Group>,
    /// In the order of their starts.
    gaps: Vec<RuleGap>,
}

struct Group {
    group: NflogGroup,
    n_rules: usize,
}

/// A time in which no rule logged to a group that had one before. While it lasts, it has no end.
struct RuleGap {
    group: NflogGroup,
    start: UnixNanos,
    end: Option<UnixNanos>,
}

impl RuleSocket {
    /// Opens the socket in this thread's network namespace. Requires `CAP_NET_ADMIN` there.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = netfilter_socket()?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, NOTIFICATIONS))?;
        sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(CHECK_INTERVAL))?;
        set_receive_buffer(&socket)?;
        Ok(Self {
            netlink: socket,
            legacy: Legacy::open(),
        })
    }

    /// Requests all rules. Changes that are announced meanwhile are included.
    fn dump(&self) -> io::Result<Ruleset> {
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

/// Requests all tables, chains or rules. Returns false if they have changed meanwhile.
fn dump(socket: &OwnedFd, kind: u16, ruleset: &mut Ruleset) -> io::Result<bool> {
    let request = message::request(kind, NLM_F_REQUEST | NLM_F_DUMP, 0, 0, &[]);
    rustix::net::send(socket, &request, SendFlags::empty())?;
    let mut buffer = vec![0; BUFFER];
    let mut is_whole = true;
    loop {
        let (length, _) = match rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok(received) => received,
            Err(Errno::INTR) => continue,
            // Messages are missing.
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
    /// Reads the rules, and watches them from then on.
    pub(crate) fn start(groups: &[NflogGroup], mut socket: RuleSocket) -> io::Result<Self> {
        // A kernel without nf_tables has no such rules.
        let ruleset = socket.dump().unwrap_or_default();
        socket.legacy.refresh(true);
        let n_rules = n_rules(&ruleset, &socket.legacy);
        let groups = groups.iter().map(|&group| Group {
            group,
            n_rules: n_rules(group),
        });
        let watched = Arc::new(Mutex::new(Watched {
            groups: groups.collect(),
            gaps: Vec::new(),
        }));
        let weak = Arc::downgrade(&watched);
        thread::Builder::new()
            .name("rules".into())
            .spawn(move || watch(&weak, socket, ruleset))?;
        Ok(Self(watched))
    }

    /// The parts of gaps that lie in the period.
    pub(crate) fn gaps_in(&self, period: Period) -> Vec<Gap> {
        let mut gaps: Vec<Gap> = Vec::new();
        for gap in &self.lock().gaps {
            let start = gap.start.max(period.start);
            let end = gap.end.unwrap_or(period.end).min(period.end);
            if start >= end {
                continue;
            }
            let period = Period { start, end };
            match gaps.iter_mut().find(|other| other.period == period) {
                // The rules of both groups were removed together.
                Some(other) => other.groups.push(gap.group),
                None => gaps.push(Gap {
                    period,
                    groups: vec![gap.group],
                    cause: GapCause::RulesGone,
                }),
            }
        }
        gaps
    }

    /// Drops the gaps that end before this time.
    pub(crate) fn forget_before(&self, time: UnixNanos) {
        let gaps = &mut self.lock().gaps;
        gaps.retain(|gap| gap.end.is_none_or(|end| end > time));
    }

    /// Limits the starts of open gaps to `now`: times of the old clock would be in the future.
    pub(crate) fn clock_set_back(&self, now: UnixNanos) {
        let gaps = &mut self.lock().gaps;
        for gap in gaps.iter_mut().filter(|gap| gap.end.is_none()) {
            gap.start = gap.start.min(now);
        }
    }

    /// For each group, whether its rules were removed and are not loaded again.
    pub(crate) fn are_gone(&self) -> Vec<bool> {
        let watched = self.lock();
        let is_gone = |group: &Group| {
            let mut gaps = watched.gaps.iter();
            gaps.any(|gap| gap.group == group.group && gap.end.is_none())
        };
        watched.groups.iter().map(is_gone).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many rules log to a group, of `nf_tables` and iptables-legacy.
fn n_rules(ruleset: &Ruleset, legacy: &Legacy) -> impl Fn(NflogGroup) -> usize + use<> {
    let both = [ruleset.n_rules(), legacy.n_rules()];
    move |group| both.iter().filter_map(|it| it.get(&group.0)).sum()
}

/// The thread. It ends when the [`RuleWatch`] is dropped.
fn watch(watched: &Weak<Mutex<Watched>>, mut socket: RuleSocket, mut ruleset: Ruleset) {
    yield_to_readers();
    let mut buffer = vec![0; BUFFER];
    let (mut checked, mut checked_at, mut n_checks) = (Instant::now(), UnixNanos::now(), 0_u32);
    loop {
        let flags = RecvFlags::TRUNC;
        let received = rustix::net::recv(&socket.netlink, &mut buffer[..], flags);
        let now = UnixNanos::now();
        let mut since = now;
        let mut has_changed = match received {
            Ok((read, length)) if length <= buffer.len() => ruleset.apply(&buffer[..read]),
            // Announcements are missing.
            Ok(_) | Err(Errno::NOBUFS) => match socket.dump() {
                Ok(current) => {
                    ruleset = current;
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
        if checked.elapsed() >= CHECK_INTERVAL {
            let before = socket.legacy.n_rules();
            n_checks = n_checks.wrapping_add(1);
            socket.legacy.refresh(n_checks.is_multiple_of(FULL_CHECK));
            if socket.legacy.n_rules() != before {
                has_changed = true;
                since = checked_at.min(now);
            }
            (checked, checked_at) = (Instant::now(), now);
        }
        if has_changed {
            let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
            watched.update(n_rules(&ruleset, &socket.legacy), since, now);
        }
    }
}

impl Watched {
    /// Sets the number of rules of each group at `now`. If it has changed, it did so after `since`.
    fn update(&mut self, n_rules: impl Fn(NflogGroup) -> usize, since: UnixNanos, now: UnixNanos) {
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
                self.gaps.push(RuleGap {
                    group,
                    start: since,
                    end: None,
                });
            }
            if before == 0 && *known > 0 {
                let mut gaps = self.gaps.iter_mut();
                let open = gaps.find(|gap| gap.group == group && gap.end.is_none());
                if let Some(gap) = open {
                    gap.end = Some(now);
                    info!(
                        "Group {group} has rules again; what passed within {:.3} s is not counted",
                        gap.start.until(now).as_secs_f64()
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
            gaps: Vec::new(),
        })))
    }

    fn update(watch: &RuleWatch, n_rules: [usize; 2], at: i64) {
        let of = |group: NflogGroup| n_rules[usize::from(group.0 - 4)];
        watch.lock().update(of, UnixNanos(at), UnixNanos(at));
    }

    fn gaps(watch: &RuleWatch, start: i64, end: i64) -> Vec<(i64, i64, usize)> {
        let (start, end) = (UnixNanos(start), UnixNanos(end));
        let gaps = watch.gaps_in(Period { start, end });
        gaps.iter()
            .map(|gap| (gap.period.start.0, gap.period.end.0, gap.groups.len()))
            .collect()
    }

    #[test]
    fn rules_removed_together_are_one_gap_in_each_period() {
        let watch = watch_of([1, 2]);
        update(&watch, [1, 1], 5);
        assert_eq!(watch.are_gone(), [false, false], "one of two is left");
        update(&watch, [0, 0], 10);
        assert_eq!(watch.are_gone(), [true, true]);
        assert_eq!(gaps(&watch, 0, 20), [(10, 20, 2)]);
        update(&watch, [0, 3], 25);
        assert_eq!(watch.are_gone(), [true, false]);
        assert_eq!(gaps(&watch, 20, 40), [(20, 40, 1), (20, 25, 1)]);
        update(&watch, [1, 3], 41);
        watch.forget_before(UnixNanos(40));
        assert_eq!(gaps(&watch, 0, 100), [(10, 41, 1)]);
        watch.forget_before(UnixNanos(41));
        assert_eq!(gaps(&watch, 0, 100), []);
    }

    #[test]
    fn if_rules_change_between_two_checks_the_gap_is_as_long_as_it_may_be() {
        let watch = watch_of([1, 1]);
        let check = |n_rules: usize, since: i64, now: i64| {
            let (since, now) = (UnixNanos(since), UnixNanos(now));
            watch.lock().update(|_| n_rules, since, now);
        };
        check(0, 10, 20);
        check(1, 20, 30);
        assert_eq!(gaps(&watch, 0, 100), [(10, 30, 2)]);
    }

    #[test]
    fn rules_that_were_never_there_are_not_gone() {
        let watch = watch_of([0, 0]);
        update(&watch, [0, 0], 1);
        update(&watch, [1, 0], 2);
        assert_eq!(watch.are_gone(), [false, false]);
        assert_eq!(gaps(&watch, 0, 100), []);
    }
}
