//! Which packets were seen by both sides, by one, or by NFLOG twice. Pure.
//!
//! A packet with the kernel's receive stamp has the same stamp on both sides. Otherwise the packets of one address with
//! the same length and identification are matched in the order of their times.
//!
//! Both sides see only a part of a flood: in each window, the first packets. What one side saw is held against the
//! other only where that side's part is whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use acctd_common::sample::WINDOW_NANOS;

use super::header::Header;
use crate::count::capture::window_of;
use crate::model::interval::UnixNanos;
use crate::model::prefix::Side;

const MILLISECOND: i64 = 1_000_000;
/// Without a common stamp, NFLOG's time may be earlier (the kernel's stamp of a packet that waits to be sent)…
const EARLIER: i64 = 1_000 * MILLISECOND;
/// … or later: it is the time of receipt, after the group's flush timeout, which the kernel may keep late, and after the
/// datagram has waited for its reader ([`Bounds::longest_wait`]).
const LATER: i64 = 2_000 * MILLISECOND;
/// At the ends of the measurement: packets on their way.
const MARGIN: i64 = 100 * MILLISECOND;

/// A packet on one side.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) time: UnixNanos,
    /// The time is the kernel's receive stamp.
    pub(crate) is_stamped: bool,
    /// Which address is accounted.
    pub(crate) side: Side,
    pub(crate) header: Header,
}

/// By whom a packet was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Both,
    /// By this side alone.
    One,
    /// By NFLOG once more than by TC.
    Twice,
    /// The other side's part is not whole at this time, or the packet is a fragment, which NFLOG sees reassembled.
    NotJudged,
}

/// What is whole of each side.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// When TC sampled.
    pub(crate) from: UnixNanos,
    pub(crate) until: UnixNanos,
    /// Windows in which TC left packets out.
    pub(crate) full_at_tc: HashSet<i64>,
    /// The windows in which NFLOG's readers left packets out: each with the time of the first one.
    pub(crate) full_at_nflog: BTreeMap<i64, UnixNanos>,
    /// Samples or logged packets were lost.
    pub(crate) tc_lost: bool,
    pub(crate) nflog_lost: bool,
    /// How long a datagram may have waited for its reader, in nanoseconds.
    pub(crate) longest_wait: i64,
}

/// Packets that can be the same.
#[derive(PartialEq, Eq, Hash)]
struct Kind {
    side: Side,
    address: IpAddr,
    protocol: u8,
    bytes: u32,
    id: u32,
}

impl Kind {
    fn of(seen: &Seen) -> Self {
        let Header {
            flow, bytes, id, ..
        } = &seen.header;
        Self {
            side: seen.side,
            address: flow.address(seen.side),
            protocol: flow.protocol,
            bytes: *bytes,
            id: *id,
        }
    }
}

/// NFLOG's packets of a kind, in order of their times.
#[derive(Default)]
struct Logged {
    /// Each with its number, and whether it is matched.
    packets: Vec<(UnixNanos, bool, usize)>,
    is_matched: Vec<bool>,
    /// All before this are matched.
    first: usize,
}

/// For each packet of TC and of NFLOG, by whom it was seen. Both are in any order.
pub(crate) fn judge(tc: &[Seen], nflog: &[Seen], bounds: &Bounds) -> (Vec<By>, Vec<By>) {
    let mut kinds: HashMap<Kind, Logged> = HashMap::new();
    for (at, seen) in nflog.iter().enumerate() {
        let kind = kinds.entry(Kind::of(seen)).or_default();
        kind.packets.push((seen.time, seen.is_stamped, at));
    }
    for kind in kinds.values_mut() {
        kind.packets.sort_unstable();
        kind.is_matched = vec![false; kind.packets.len()];
    }
    let mut order: Vec<usize> = (0..tc.len()).collect();
    order.sort_by_key(|at| tc[*at].time);
    let mut of_tc = vec![By::NotJudged; tc.len()];
    let mut of_nflog = vec![By::NotJudged; nflog.len()];
    let mut fragments: HashSet<(IpAddr, IpAddr, u32)> = HashSet::new();
    for at in order {
        let seen = &tc[at];
        if seen.header.is_fragment {
            fragments.insert(reassembled(&seen.header));
            continue;
        }
        let found = kinds
            .get_mut(&Kind::of(seen))
            .and_then(|kind| kind.take(seen, bounds.later()));
        of_tc[at] = match found {
            Some(logged) => {
                of_nflog[logged] = By::Both;
                By::Both
            }
            None if bounds.is_nflog_whole(seen) => By::One,
            None => By::NotJudged,
        };
    }
    for kind in kinds.values() {
        // Without stamps, packets of a kind are alike: what is left over may as well be one of those that TC has perhaps
        // passed before it sampled, or after it.
        let mut n_uncertain = kind.n_uncertain(bounds);
        for ((time, is_stamped, at), is_matched) in kind.packets.iter().zip(&kind.is_matched) {
            let is_fragment = fragments.contains(&reassembled(&nflog[*at].header));
            if *is_matched || is_fragment || !bounds.is_tc_whole(*time, *is_stamped) {
                continue;
            }
            if !*is_stamped && n_uncertain > 0 {
                n_uncertain -= 1;
                continue;
            }
            let mut others = kind.packets.iter().zip(&kind.is_matched);
            let is_again = others.any(|((other, other_stamped, _), is_matched)| {
                *is_matched
                    && if *is_stamped && *other_stamped {
                        other == time
                    } else {
                        (other.0 - time.0).abs() <= bounds.later()
                    }
            });
            of_nflog[*at] = if is_again { By::Twice } else { By::One };
        }
    }
    (of_tc, of_nflog)
}

/// What identifies a packet in its fragments.
fn reassembled(header: &Header) -> (IpAddr, IpAddr, u32) {
    (header.flow.source, header.flow.dest, header.id)
}

impl Logged {
    /// Matches the packet with one of these; returns that one's number.
    fn take(&mut self, seen: &Seen, longest: i64) -> Option<usize> {
        if seen.is_stamped
            && let Some(at) = self.of_stamp(seen.time)
        {
            self.is_matched[at] = true;
            return Some(self.packets[at].2);
        }
        let first = (self.is_matched[self.first..].iter()).position(|is_matched| !is_matched);
        self.first += first?;
        let mut best: Option<(i64, usize)> = None;
        for at in self.first..self.packets.len() {
            let (time, is_stamped, _) = self.packets[at];
            let later = time.0 - seen.time.0;
            if later > longest {
                break;
            }
            let have_stamps = is_stamped && seen.is_stamped;
            if self.is_matched[at] || have_stamps || later < -EARLIER {
                continue;
            }
            if best.is_none_or(|(distance, _)| later.abs() < distance) {
                best = Some((later.abs(), at));
            }
        }
        let (_, at) = best?;
        self.is_matched[at] = true;
        Some(self.packets[at].2)
    }
}

impl Logged {
    /// How many packets are matched, and have no stamp that says that TC sampled when they passed.
    fn n_uncertain(&self, bounds: &Bounds) -> usize {
        let packets = self.packets.iter().zip(&self.is_matched);
        let uncertain = packets.filter(|((time, is_stamped, _), is_matched)| {
            **is_matched && !is_stamped && !bounds.is_tc_whole(*time, false)
        });
        uncertain.count()
    }

    /// The first one with this stamp that is not matched. NFLOG's stamps are in microseconds.
    fn of_stamp(&self, stamp: UnixNanos) -> Option<usize> {
        let micros = UnixNanos(stamp.0 - stamp.0.rem_euclid(1_000));
        let first = self.packets.partition_point(|(time, ..)| *time < micros);
        let of_time = self.packets[first..].iter().take_while(|it| it.0 == micros);
        let mut of_stamp = of_time.zip(first..).filter(|(it, _)| it.1);
        let (_, at) = of_stamp.find(|(_, at)| !self.is_matched[*at])?;
        Some(at)
    }
}

impl Bounds {
    /// How much later than TC's the time of a packet without a stamp may be.
    fn later(&self) -> i64 {
        LATER.saturating_add(self.longest_wait)
    }

    /// Whether NFLOG's readers have kept all that could be this packet of TC's.
    fn is_nflog_whole(&self, seen: &Seen) -> bool {
        if self.nflog_lost {
            return false;
        }
        if !seen.is_stamped {
            let first = window_of(UnixNanos(seen.time.0 - EARLIER));
            let last = window_of(UnixNanos(seen.time.0 + self.later()));
            return self.full_at_nflog.range(first..=last).next().is_none();
        }
        let window = window_of(seen.time);
        match self.full_at_nflog.get(&window) {
            None => true,
            // CPUs log at the same time, so packets are not quite in order of their times.
            Some(left_out) => {
                let start = window.saturating_mul(WINDOW_NANOS.cast_signed());
                seen.time.0 - start < (left_out.0 - start) / 2
            }
        }
    }

    /// Whether TC has sampled all that could be NFLOG's packet of this time.
    fn is_tc_whole(&self, time: UnixNanos, is_stamped: bool) -> bool {
        // A stamp is the time of receipt, before the packet was sent.
        let (earlier, later) = if is_stamped {
            (MARGIN, EARLIER)
        } else {
            (self.later(), MARGIN)
        };
        let first = window_of(UnixNanos(time.0 - earlier));
        let last = window_of(UnixNanos(time.0 + later));
        !self.tc_lost
            && time.0 - earlier >= self.from.0
            && time.0 + later <= self.until.0
            && !(first..=last).any(|window| self.full_at_tc.contains(&window))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::header::Flow;

    const SECOND: i64 = 1_000 * MILLISECOND;

    fn seen(micros: i64, is_stamped: bool, id: u32) -> Seen {
        Seen {
            time: UnixNanos(10 * SECOND + micros * 1_000),
            is_stamped,
            side: Side::Source,
            header: Header {
                flow: Flow {
                    protocol: 17,
                    source: [10, 1, 0, 2].into(),
                    dest: [192, 0, 2, 7].into(),
                    ports: None,
                    icmp_type: None,
                },
                bytes: 128,
                id,
                ttl: 64,
                is_fragment: false,
            },
        }
    }

    fn bounds() -> Bounds {
        Bounds {
            from: UnixNanos(0),
            until: UnixNanos(20 * SECOND),
            full_at_tc: HashSet::new(),
            full_at_nflog: BTreeMap::new(),
            tc_lost: false,
            nflog_lost: false,
            longest_wait: 0,
        }
    }

    #[test]
    fn a_stamp_tells_packets_apart_that_are_alike() {
        use By::{Both, One, Twice};
        let mut tc = [1, 2, 3].map(|micros| seen(micros, true, 0));
        tc[1].time.0 += 999;
        let nflog = [2, 3, 3, 4].map(|micros| seen(micros, true, 0));
        let (of_tc, of_nflog) = judge(&tc, &nflog, &bounds());
        assert_eq!(of_tc, [One, Both, Both]);
        assert_eq!(of_nflog, [Both, Both, Twice, One]);
    }

    #[test]
    fn without_a_stamp_packets_are_matched_in_order() {
        use By::{Both, One, Twice};
        let tc = [1, 1_000, 2_000].map(|micros| seen(micros, false, 0));
        // Received a tenth of a second later.
        let nflog = [100_000, 100_001].map(|micros| seen(micros, false, 0));
        let (of_tc, of_nflog) = judge(&tc, &nflog, &bounds());
        assert_eq!((of_tc, of_nflog), (vec![Both, Both, One], vec![Both, Both]));
        // A forwarded packet is stamped when it is received, and TC's time is when it is sent.
        let (of_tc, of_nflog) = judge(&tc[..1], &[seen(-500, true, 0)], &bounds());
        assert_eq!((of_tc, of_nflog), (vec![Both], vec![Both]));
        let twice = [100_000, 100_000].map(|micros| seen(micros, false, 5));
        let (of_tc, of_nflog) = judge(&[seen(1, false, 5)], &twice, &bounds());
        assert_eq!((of_tc, of_nflog), (vec![Both], vec![Both, Twice]));
    }

    /// One passed before TC sampled, and is read with others that passed after it: it is not known which one is left over.
    #[test]
    fn a_packet_from_before_the_sample_is_no_cause() {
        use By::{Both, NotJudged};
        // Each 100 ms from -50 ms on; a batch is read each second.
        let mut late = bounds();
        (late.from, late.until) = (
            UnixNanos(10 * SECOND),
            UnixNanos(10 * SECOND + 4_500 * MILLISECOND),
        );
        let passed = |at: i64| -50_000 + 100_000 * at;
        let tc: Vec<Seen> = (1..=30).map(|at| seen(passed(at), false, 0)).collect();
        let received = |at: i64| 950_000 + at / 10 * 1_000_000;
        let nflog: Vec<Seen> = (0..=30).map(|at| seen(received(at), false, 0)).collect();
        let (of_tc, of_nflog) = judge(&tc, &nflog, &late);
        assert!(of_tc.iter().all(|by| *by == Both));
        let n = |by| of_nflog.iter().filter(|it| **it == by).count();
        assert_eq!((n(Both), n(NotJudged)), (30, 1));
    }

    /// TC saw it before the sample began, or later than it is received otherwise.
    #[test]
    fn a_reader_without_cpu_time_is_no_cause() {
        use By::{Both, NotJudged, One};
        let mut late = bounds();
        late.from = UnixNanos(8 * SECOND);
        let nflog = [seen(100, false, 0)];
        assert_eq!(judge(&[], &nflog, &late).1, [One]);
        late.longest_wait = 600 * MILLISECOND;
        assert_eq!(judge(&[], &nflog, &late).1, [NotJudged]);
        let tc = [seen(-2_500_000, false, 0)];
        assert_eq!(judge(&tc, &nflog, &late), (vec![Both], vec![Both]));
        late.longest_wait = 0;
        assert_eq!(judge(&tc, &nflog, &late).0, [One]);
    }

    #[test]
    fn what_a_side_left_out_is_not_held_against_it() {
        use By::NotJudged;
        let mut left_out = bounds();
        left_out
            .full_at_nflog
            .insert(100, UnixNanos(10 * SECOND + 40 * MILLISECOND));
        let one = |micros, bounds: &Bounds| judge(&[seen(micros, true, 0)], &[], bounds).0;
        assert_eq!(one(10_000, &left_out), [By::One]);
        assert_eq!(one(30_000, &left_out), [NotJudged]);
        assert_eq!(one(110_000, &left_out), [By::One]);
        left_out.nflog_lost = true;
        assert_eq!(one(10_000, &left_out), [NotJudged]);
        let alone = |bounds: &Bounds| judge(&[], &[seen(0, true, 0)], bounds).1;
        assert_eq!(alone(&left_out), [By::One]);
        left_out.full_at_tc.insert(101);
        assert_eq!(alone(&left_out), [NotJudged]);
        let mut fragment = seen(0, true, 9);
        fragment.header.is_fragment = true;
        let (of_tc, of_nflog) = judge(&[fragment], &[seen(0, true, 9)], &bounds());
        assert_eq!((of_tc, of_nflog), (vec![NotJudged], vec![NotJudged]));
    }
}
