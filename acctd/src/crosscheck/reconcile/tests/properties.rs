//! Properties of the verdicts, on simulated packets with all that may happen to them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// The uncertain times and the shortest interval, in the simulation's unit of time.
const NEAR_END: u64 = 20;
const BEFORE_END: u64 = 100;
const SHORTEST_INTERVAL: u64 = 150;
const HEADER: u64 = 20;
const N_PREFIXES: Key = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamps {
    /// Ingress: both sides have the same stamp.
    Common,
    /// Egress with a kernel time stamp at NFLOG: at most [`NEAR_END`] later.
    Own,
    /// Egress without: at most [`BEFORE_END`] later.
    None,
}

impl Stamps {
    fn window(self) -> u64 {
        match self {
            Self::Common | Self::Own => NEAR_END,
            Self::None => BEFORE_END,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    pause: u64,
    key: Key,
    payload: u64,
    n_fragments: u64,
    /// From its first fragment to its last, and from there to NFLOG, in percent of the window.
    span: u64,
    lag: u64,
}

/// A time without delivery by NFLOG, and how much later the number of lost packets is known.
#[derive(Clone, Copy, Debug)]
struct Overrun {
    pause: u64,
    duration: u64,
    until_known: u64,
}

/// A packet as a complete rule set logs it.
#[derive(Clone, Copy, Debug)]
struct Loggable {
    time: u64,
    key: Key,
    bytes: u64,
}

#[derive(Clone, Debug)]
struct Scenario {
    stamps: Stamps,
    /// Fragments are reassembled before NFLOG sees them.
    reassembled: bool,
    packets: Vec<Packet>,
    intervals: Vec<u64>,
    overruns: Vec<Overrun>,
}

/// How often the rules log a packet, given its prefix and its number within that.
type Rules<'a> = &'a dyn Fn(Key, u64) -> u64;

/// The verdicts and the truth.
#[derive(Debug, Default)]
struct Result {
    outcomes: Vec<Outcome<Key>>,
    missing: BTreeMap<Key, Counters>,
    surplus: BTreeMap<Key, Counters>,
    lost: u64,
    n_carried_at_end: usize,
}

impl Result {
    fn verdicts(&self) -> Vec<Verdict> {
        self.findings().map(|finding| finding.verdict).collect()
    }

    fn findings(&self) -> impl Iterator<Item = &Finding<Key>> {
        self.outcomes.iter().flat_map(|outcome| &outcome.findings)
    }

    /// The findings of a verdict, added up by prefix.
    fn sums(&self, verdict: Verdict) -> BTreeMap<Key, Counters> {
        let mut sums = BTreeMap::<Key, Difference>::new();
        for finding in self.findings().filter(|finding| finding.verdict == verdict) {
            let sum = sums.entry(finding.key).or_default();
            *sum = sum.plus(finding.difference);
        }
        let unsigned =
            |sum: Difference| counters(sum.packets.unsigned_abs(), sum.bytes.unsigned_abs());
        sums.into_iter()
            .map(|(key, sum)| (key, unsigned(sum)))
            .collect()
    }

    fn n_allowed(&self) -> u64 {
        self.outcomes.iter().map(|outcome| outcome.n_allowed).sum()
    }
}

fn packets_of(sums: &BTreeMap<Key, Counters>) -> u64 {
    sums.values().map(|sum| sum.packets).sum()
}

fn any_scenario(
    stamps: impl Strategy<Value = Stamps>,
    reassembled: impl Strategy<Value = bool>,
    most_fragments: u64,
    most_overruns: usize,
) -> impl Strategy<Value = Scenario> {
    let packet = (
        // Often in bursts, so that several are in the uncertain time.
        prop_oneof![0..5_u64, 0..200_u64],
        1..=N_PREFIXES,
        0..1_480_u64,
        prop_oneof![Just(1), 1..=most_fragments],
        0..=100_u64,
        0..=100_u64,
    )
        .prop_map(|(pause, key, payload, n_fragments, span, lag)| Packet {
            pause,
            key,
            payload,
            n_fragments,
            span,
            lag,
        });
    let overrun =
        (0..1_500_u64, 0..400_u64, 0..1_000_u64).prop_map(|(pause, duration, until_known)| {
            Overrun {
                pause,
                duration,
                until_known,
            }
        });
    (
        stamps,
        reassembled,
        prop::collection::vec(packet, 0..150),
        prop::collection::vec(SHORTEST_INTERVAL..1_500, 1..20),
        prop::collection::vec(overrun, 0..=most_overruns),
    )
        .prop_map(
            |(stamps, reassembled, packets, intervals, overruns)| Scenario {
                stamps,
                reassembled,
                packets,
                intervals,
                overruns,
            },
        )
}

fn any_stamps() -> impl Strategy<Value = Stamps> {
    select(vec![Stamps::Common, Stamps::Own, Stamps::None])
}

impl Scenario {
    fn run(&self, rules: Rules<'_>) -> Result {
        let ends = self.ends();
        let interval_of = |time: u64| ends.partition_point(|end| *end <= time);
        let mut rows = vec![BTreeMap::<Key, Observed>::new(); ends.len()];
        let mut conditions = vec![
            IntervalConditions {
                unstamped: self.stamps == Stamps::None,
                ..QUIET
            };
            ends.len()
        ];
        let mut result = Result::default();

        let mut loggable = Vec::new();
        let mut time = 0;
        for packet in &self.packets {
            time += packet.pause;
            self.pass(packet, time, &mut loggable, |time, key, value| {
                let index = interval_of(time);
                let value = counted(value, ends[index] - time);
                rows[index].entry(key).or_default().kernel.add(&value);
            });
        }
        loggable.sort_by_key(|packet| packet.time);

        let overruns = self.overruns();
        let mut numbers = BTreeMap::<Key, u64>::new();
        for packet in &loggable {
            let number = numbers.entry(packet.key).or_default();
            let n_logged = rules(packet.key, *number);
            *number += 1;
            let one = counters(1, packet.bytes);
            if n_logged == 0 {
                result.missing.entry(packet.key).or_default().add(one);
            }
            for nth in 0..n_logged {
                if nth > 0 {
                    result.surplus.entry(packet.key).or_default().add(one);
                }
                let overrun = overruns
                    .iter()
                    .find(|overrun| (overrun.0..overrun.1).contains(&packet.time));
                if let Some((_, _, known)) = overrun {
                    conditions[interval_of(*known)].lost += 1;
                    result.lost += 1;
                } else {
                    let index = interval_of(packet.time);
                    rows[index].entry(packet.key).or_default().nflog.add(one);
                }
            }
        }
        for (start, _, known) in overruns {
            for open in &mut conditions[interval_of(start)..interval_of(known)] {
                open.loss_is_open = true;
            }
        }

        let mut reconciler = reconciler();
        for (rows, conditions) in rows.into_iter().zip(&conditions) {
            let outcome = reconciler.reconcile(rows.into_iter(), None, conditions);
            result.outcomes.push(outcome);
        }
        result.n_carried_at_end = reconciler.carried.len();
        result
    }

    /// Some intervals after the last packet and the last known loss; the last one has no traffic.
    fn ends(&self) -> Vec<u64> {
        let last_packet = self.packets.iter().map(|packet| packet.pause).sum::<u64>();
        let last_discovery = self.overruns().last().map_or(0, |overrun| overrun.2);
        let settled = last_packet.max(last_discovery) + 2 * BEFORE_END;
        let mut ends = Vec::new();
        let mut end = 0;
        for length in self.intervals.iter().cycle() {
            end += length;
            ends.push(end);
            if end > settled {
                break;
            }
        }
        ends.push(end + SHORTEST_INTERVAL);
        ends
    }

    /// Start, end, and when the number of lost packets is known.
    fn overruns(&self) -> Vec<(u64, u64, u64)> {
        let mut time = 0;
        let mut overruns = Vec::new();
        for overrun in &self.overruns {
            let start = time + overrun.pause;
            let end = start + overrun.duration;
            time = end + overrun.until_known;
            overruns.push((start, end, time));
        }
        overruns
    }

    /// A packet's path: through TC, in its fragments, and then to NFLOG.
    fn pass(
        &self,
        packet: &Packet,
        start: u64,
        loggable: &mut Vec<Loggable>,
        mut count: impl FnMut(u64, Key, EpochValue),
    ) {
        let window = self.stamps.window();
        let n_fragments = packet.n_fragments;
        let span = if n_fragments > 1 {
            window.min(NEAR_END) * packet.span / 100
        } else {
            0
        };
        // Without reassembly, each fragment has the whole window.
        let rest = if self.reassembled {
            window - span
        } else {
            window
        };
        let lag = match self.stamps {
            Stamps::Common => 0,
            Stamps::Own | Stamps::None => rest * packet.lag / 100,
        };
        let mut time = start;
        for nth in 0..n_fragments {
            time = start + span * nth / n_fragments.saturating_sub(1).max(1);
            let payload =
                packet.payload * (nth + 1) / n_fragments - packet.payload * nth / n_fragments;
            let total = counters(1, HEADER + payload);
            let fragments = match nth {
                0 => Counters::default(),
                _ => counters(1, HEADER),
            };
            // Set for any packet at first: `counted` knows the boundary.
            let is_uncertain = self.stamps != Stamps::Common || n_fragments > 1;
            let near_end = if is_uncertain {
                total
            } else {
                Counters::default()
            };
            count(
                time,
                packet.key,
                EpochValue {
                    total,
                    near_end,
                    before_end: total,
                    fragments,
                },
            );
            if !self.reassembled {
                loggable.push(Loggable {
                    time: time + lag,
                    key: packet.key,
                    bytes: total.bytes,
                });
            }
        }
        if self.reassembled {
            loggable.push(Loggable {
                time: time + lag,
                key: packet.key,
                bytes: HEADER + packet.payload,
            });
        }
    }
}

/// Clears what is not uncertain so long before the epoch's end.
fn counted(mut value: EpochValue, until_end: u64) -> EpochValue {
    if until_end > NEAR_END {
        value.near_end = Counters::default();
    }
    if until_end > BEFORE_END {
        value.before_end = Counters::default();
    }
    value
}

fn complete(_: Key, _: u64) -> u64 {
    1
}

/// A prefix of which every n-th packet has no rule.
fn hole(key: Key, every: u64) -> impl Fn(Key, u64) -> u64 {
    move |of, number| u64::from(of != key || !number.is_multiple_of(every))
}

fn any_hole() -> impl Strategy<Value = (Key, u64)> {
    (1..=N_PREFIXES, prop_oneof![Just(1), 2..10_u64])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn without_hole_and_loss_all_is_match(
        scenario in any_scenario(any_stamps(), any::<bool>(), 4, 0),
    ) {
        let result = scenario.run(&complete);
        prop_assert_eq!(result.verdicts(), []);
        prop_assert_eq!(result.n_carried_at_end, 0);
    }

    #[test]
    fn common_stamps_need_no_allowance(
        scenario in any_scenario(Just(Stamps::Common), any::<bool>(), 1, 0),
    ) {
        let result = scenario.run(&complete);
        prop_assert_eq!(result.verdicts(), []);
        prop_assert_eq!(result.n_allowed(), 0);
    }

    #[test]
    fn a_hole_is_found_exactly_and_nothing_else(
        scenario in any_scenario(any_stamps(), Just(true), 4, 0),
        (key, every) in any_hole(),
    ) {
        let result = scenario.run(&hole(key, every));
        prop_assert_eq!(result.sums(Verdict::Uncovered), result.missing.clone());
        prop_assert!(result.findings().all(|finding| finding.verdict == Verdict::Uncovered));
        prop_assert_eq!(result.n_carried_at_end, 0);
    }

    #[test]
    fn loss_is_lost_and_nothing_else(
        scenario in any_scenario(any_stamps(), any::<bool>(), 4, 4),
    ) {
        let result = scenario.run(&complete);
        prop_assert!(result.findings().all(|finding| finding.verdict == Verdict::Lost));
        prop_assert_eq!(result.n_carried_at_end, 0);
    }

    #[test]
    fn no_loss_hides_a_hole(
        scenario in any_scenario(any_stamps(), Just(true), 4, 4),
        (key, every) in any_hole(),
    ) {
        let result = scenario.run(&hole(key, every));
        let missing = packets_of(&result.missing);
        let uncovered = packets_of(&result.sums(Verdict::Uncovered));
        prop_assert!(uncovered >= missing, "{} of {} are missing", uncovered, missing);
        let verdicts = result.verdicts();
        prop_assert!(!verdicts.contains(&Verdict::Extra));
        prop_assert!(!verdicts.contains(&Verdict::NotChecked));
        prop_assert_eq!(result.n_carried_at_end, 0);
    }

    #[test]
    fn what_is_logged_twice_is_extra_exactly(
        scenario in any_scenario(any_stamps(), any::<bool>(), 1, 0),
        only in prop::option::of(1..=N_PREFIXES),
    ) {
        let twice = |key, _| if only.is_none_or(|only| only == key) { 2 } else { 1 };
        let result = scenario.run(&twice);
        prop_assert_eq!(result.sums(Verdict::Extra), result.surplus.clone());
        prop_assert!(result.findings().all(|finding| finding.verdict == Verdict::Extra));
        prop_assert_eq!(result.n_carried_at_end, 0);
    }
}
