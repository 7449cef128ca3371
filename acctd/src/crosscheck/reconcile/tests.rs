use std::collections::BTreeMap;

use acctd_common::contract::EpochValue;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::crosscheck::outcome::{IntervalConditions, Observed, Outcome};
use crate::model::verdict::{Difference, Finding};

type Key = u32;

const ZERO: Key = 0;

fn counters(packets: u64, bytes: u64) -> Counters {
    Counters { bytes, packets }
}

/// Both counts, in packets of 100 bytes.
fn observed(nflog: u64, kernel: u64) -> Observed {
    Observed {
        nflog: counters(nflog, 100 * nflog),
        kernel: EpochValue {
            total: counters(kernel, 100 * kernel),
            ..EpochValue::default()
        },
    }
}

impl Observed {
    fn near_end(mut self, packets: u64) -> Self {
        self.kernel.near_end = counters(packets, 100 * packets);
        self
    }

    fn before_end(mut self, packets: u64) -> Self {
        self.kernel.before_end = counters(packets, 100 * packets);
        self
    }

    fn fragments(mut self, packets: u64, bytes: u64) -> Self {
        self.kernel.fragments = counters(packets, bytes);
        self
    }
}

fn reconciler() -> Reconciler<Key> {
    Reconciler::new(ZERO)
}

const QUIET: IntervalConditions = IntervalConditions {
    unstamped: false,
    lost: 0,
    loss_is_open: false,
    nflog_overflow: 0,
    late: 0,
    kernel_overflow: 0,
    incomparable: false,
};

/// Key, verdict, packets and bytes of each finding.
type Text = (Key, &'static str, i64, i64);

fn text(outcome: &Outcome<Key>) -> Vec<Text> {
    let text = |finding: &Finding<Key>| {
        (
            finding.key,
            finding.verdict.text(),
            finding.difference.packets,
            finding.difference.bytes,
        )
    };
    outcome.findings.iter().map(text).collect()
}

impl Reconciler<Key> {
    fn interval(&mut self, conditions: &IntervalConditions, rows: &[(Key, Observed)]) -> Vec<Text> {
        text(&self.reconcile(rows.iter().copied(), None, conditions))
    }

    fn quiet(&mut self, rows: &[(Key, Observed)]) -> Vec<Text> {
        self.interval(&QUIET, rows)
    }
}

const NOTHING: [Text; 0] = [];

#[test]
fn the_worse_verdict_is_the_maximum() {
    let mut all = [
        Verdict::Uncovered,
        Verdict::Match,
        Verdict::Extra,
        Verdict::Lost,
        Verdict::NotChecked,
    ];
    all.sort_unstable();
    assert_eq!(
        all.map(Verdict::text),
        ["match", "not checked", "lost", "extra", "uncovered"]
    );
}

#[test]
fn equal_counts_match_and_unequal_ones_are_found() {
    let mut reconciler = reconciler();
    let rows = [
        (1, observed(5, 5)),
        (2, observed(3, 5)),
        (3, observed(6, 5)),
        (4, observed(0, 2)),
        (5, observed(2, 0)),
    ];
    let outcome = reconciler.reconcile(rows.into_iter(), None, &QUIET);
    assert_eq!(
        text(&outcome),
        [
            (2, "uncovered", 2, 200),
            (3, "extra", -1, -100),
            (4, "uncovered", 2, 200),
            (5, "extra", -2, -200),
        ]
    );
    assert_eq!((outcome.n_match, outcome.n_allowed), (1, 0));
    assert_eq!(outcome.nflog, counters(16, 1_600));
    assert_eq!(outcome.kernel, counters(17, 1_700));
    assert!(reconciler.carried.is_empty());
}

#[test]
fn bytes_alone_are_a_difference_too() {
    let mut reconciler = reconciler();
    let mut row = observed(5, 5);
    row.kernel.total.bytes += 7;
    let lost = IntervalConditions { lost: 9, ..QUIET };
    assert_eq!(
        reconciler.interval(&lost, &[(1, row)]),
        [(1, "uncovered", 0, 7)]
    );
    row.kernel.total.bytes -= 14;
    assert_eq!(reconciler.quiet(&[(1, row)]), [(1, "extra", 0, -7)]);
}

#[test]
fn a_packet_at_the_boundary_must_come_in_the_next_interval() {
    let mut reconciler = reconciler();
    let crossing = observed(9, 10).near_end(1);
    let outcome = reconciler.reconcile([(1, crossing)].into_iter(), None, &QUIET);
    assert_eq!(text(&outcome), NOTHING);
    assert_eq!((outcome.n_match, outcome.n_allowed), (1, 1));
    let outcome = reconciler.reconcile([(1, observed(11, 10))].into_iter(), None, &QUIET);
    assert_eq!(text(&outcome), NOTHING);
    assert_eq!((outcome.n_match, outcome.n_allowed), (1, 0));
    assert!(reconciler.carried.is_empty());

    // If it does not, it is missing, with other traffic or without.
    assert_eq!(reconciler.quiet(&[(1, crossing), (2, crossing)]), NOTHING);
    assert_eq!(
        reconciler.quiet(&[(1, observed(3, 3))]),
        [(1, "uncovered", 1, 100), (2, "uncovered", 1, 100)]
    );
    assert!(reconciler.carried.is_empty());
}

#[test]
fn the_allowance_is_that_of_the_time_stamps() {
    let row = observed(7, 10).near_end(1).before_end(3);
    assert_eq!(
        reconciler().quiet(&[(1, row)]),
        [(1, "uncovered", 2, 200)],
        "one is within the allowance"
    );
    let unstamped = IntervalConditions {
        unstamped: true,
        ..QUIET
    };
    assert_eq!(reconciler().interval(&unstamped, &[(1, row)]), NOTHING);
}

#[test]
fn a_small_hole_cannot_stay_within_the_allowance() {
    let mut reconciler = reconciler();
    let mut found = 0;
    for _ in 0..10 {
        for (_, verdict, packets, _) in reconciler.quiet(&[(1, observed(999, 1_000).near_end(4))]) {
            assert_eq!(verdict, "uncovered");
            found += packets;
        }
    }
    assert_eq!(found, 6);
    assert_eq!(reconciler.quiet(&[]), [(1, "uncovered", 4, 400)]);
}

#[test]
fn fragments_explain_no_more_than_what_reassembly_takes_away() {
    // Two packets in three fragments each, headers of 20 bytes.
    let mut kernel = EpochValue {
        total: counters(6, 3_120),
        fragments: counters(4, 80),
        ..EpochValue::default()
    };
    let logged = |nflog, kernel| [(1, Observed { nflog, kernel })];
    let outcome =
        reconciler().reconcile(logged(counters(2, 3_040), kernel).into_iter(), None, &QUIET);
    assert_eq!(text(&outcome), NOTHING);
    assert_eq!((outcome.n_match, outcome.n_explained_by_fragments), (1, 1));

    let outcome =
        reconciler().reconcile(logged(counters(6, 3_120), kernel).into_iter(), None, &QUIET);
    assert_eq!(text(&outcome), NOTHING);
    assert_eq!((outcome.n_match, outcome.n_explained_by_fragments), (1, 0));

    assert_eq!(
        reconciler().quiet(&logged(counters(1, 1_520), kernel)),
        [(1, "uncovered", 1, 1_520)],
        "one of the two is not logged"
    );
    kernel.fragments = Counters::default();
    assert_eq!(
        reconciler().quiet(&logged(counters(2, 3_040), kernel)),
        [(1, "uncovered", 4, 80)]
    );
}

#[test]
fn fragments_explain_nothing_that_the_next_interval_takes_back() {
    // Logged one by one, two of them after the boundary: not reassembled, although they could be.
    let mut reconciler = reconciler();
    let row = observed(8, 10).near_end(2).fragments(5, 500);
    assert_eq!(reconciler.quiet(&[(1, row)]), NOTHING);
    assert_eq!(reconciler.quiet(&[(1, observed(12, 10))]), NOTHING);
    assert!(reconciler.carried.is_empty());
    // Nothing is missing if they were reassembled.
    assert_eq!(reconciler.quiet(&[(1, row)]), NOTHING);
    assert_eq!(reconciler.quiet(&[]), NOTHING);
    assert!(reconciler.carried.is_empty());
}

#[test]
fn what_the_kernel_counted_outside_of_the_interval_is_not_extra() {
    let outside = HashMap::from([(1, counters(2, 200)), (2, counters(2, 200))]);
    let rows = [(1, observed(12, 10).near_end(1)), (2, observed(13, 10))];
    let mut reconciler = reconciler();
    let outcome = reconciler.reconcile(rows.into_iter(), Some(&outside), &QUIET);
    assert_eq!(text(&outcome), [(2, "extra", -1, -100)]);
    // Of the first prefix, the last packet may be missing and another one be logged twice.
    assert_eq!(reconciler.quiet(&[]), NOTHING);
}

#[test]
fn late_packets_are_explained_up_to_their_number() {
    let late = IntervalConditions { late: 3, ..QUIET };
    let rows = [
        (1, observed(12, 10)),
        (2, observed(10, 10)),
        (3, observed(11, 10)),
        (4, observed(11, 10)),
    ];
    assert_eq!(
        reconciler().interval(&late, &rows),
        [(4, "extra", -1, -100)]
    );
}

#[test]
fn nothing_is_compared_in_an_incomparable_interval() {
    let incomparable = IntervalConditions {
        incomparable: true,
        ..QUIET
    };
    let mut reconciler = reconciler();
    let crossing = observed(9, 10).near_end(1);
    assert_eq!(reconciler.quiet(&[(1, crossing), (2, crossing)]), NOTHING);
    assert_eq!(
        reconciler.interval(
            &incomparable,
            &[
                (1, observed(1, 0)),
                (2, observed(5, 7).near_end(1)),
                (3, observed(7, 5)),
                (4, observed(4, 4).near_end(1)),
            ]
        ),
        [(2, "not checked", 3, 300), (3, "not checked", -2, -200)]
    );
    // Packets shortly before its end may be counted in the next one, but no others.
    assert_eq!(
        reconciler.quiet(&[
            (2, observed(1, 0)),
            (3, observed(1, 0)),
            (4, observed(2, 0))
        ]),
        [(3, "extra", -1, -100), (4, "extra", -1, -100)]
    );
    assert_eq!(reconciler.quiet(&[]), NOTHING);
}

#[test]
fn known_loss_excuses_the_smallest_and_never_hides_the_largest() {
    let rows = [
        (1, observed(7, 10)),
        (2, observed(9, 10)),
        (3, observed(8, 10)),
        (4, observed(8, 10)),
    ];
    let lost = |lost| IntervalConditions { lost, ..QUIET };
    assert_eq!(
        reconciler().interval(&lost(8), &rows),
        [
            (1, "lost", 3, 300),
            (2, "lost", 1, 100),
            (3, "lost", 2, 200),
            (4, "lost", 2, 200),
        ]
    );
    assert_eq!(
        reconciler().interval(&lost(4), &rows),
        [
            (1, "uncovered", 3, 300),
            (2, "lost", 1, 100),
            (3, "lost", 2, 200),
            (4, "uncovered", 2, 200),
        ]
    );
}

#[test]
fn loss_is_spent_once() {
    let mut reconciler = reconciler();
    let lost = IntervalConditions { lost: 2, ..QUIET };
    assert_eq!(
        reconciler.interval(&lost, &[(1, observed(9, 10))]),
        [(1, "lost", 1, 100)]
    );
    assert_eq!(
        reconciler.quiet(&[(1, observed(9, 10))]),
        [(1, "uncovered", 1, 100)],
        "nothing was pending that the rest could have been"
    );
}

#[test]
fn loss_that_hides_in_the_allowance_is_lost_when_it_shows() {
    let mut reconciler = reconciler();
    let lost = IntervalConditions { lost: 3, ..QUIET };
    assert_eq!(
        reconciler.interval(&lost, &[(1, observed(7, 10).near_end(2))]),
        [(1, "lost", 1, 100)]
    );
    // Another prefix has no claim to it.
    assert_eq!(
        reconciler.quiet(&[(1, observed(10, 10)), (2, observed(8, 10))]),
        [(1, "lost", 2, 200), (2, "uncovered", 2, 200)]
    );
}

#[test]
fn a_lost_packet_that_shows_by_its_bytes_alone_is_lost() {
    // One of 1,500 bytes is lost; three of 100 bytes are within the allowance.
    let mut reconciler = reconciler();
    let mut row = observed(9, 10).near_end(3);
    row.kernel.total.bytes += 1_400;
    let lost = IntervalConditions { lost: 1, ..QUIET };
    assert_eq!(
        reconciler.interval(&lost, &[(1, row)]),
        [(1, "lost", 0, 1_200)]
    );
    let outcome = reconciler.reconcile([(1, observed(1, 1))].into_iter(), None, &QUIET);
    assert_eq!(text(&outcome), [(1, "lost", 1, 300)]);
    assert!(reconciler.carried.is_empty());
    assert_eq!(
        reconciler.quiet(&[(1, row)]),
        [(1, "uncovered", 0, 1_200)],
        "without loss it is missing"
    );
}

#[test]
fn differences_wait_while_a_loss_is_open() {
    let open = IntervalConditions {
        loss_is_open: true,
        ..QUIET
    };
    let known = IntervalConditions { lost: 4, ..QUIET };
    let mut reconciler = reconciler();
    let rows = [
        (1, observed(9, 10)),
        (2, observed(7, 10)),
        (3, observed(11, 10)),
    ];
    assert_eq!(
        reconciler.interval(&open, &rows),
        [
            (1, "lost", 1, 100),
            (2, "lost", 3, 300),
            (3, "extra", -1, -100)
        ]
    );
    assert_eq!(
        reconciler.interval(&open, &[(1, observed(10, 10))]),
        [(1, "lost", 1, 100)],
        "only what was observed"
    );
    assert_eq!(reconciler.carried.len(), 2);
    assert_eq!(
        reconciler.interval(&known, &[(1, observed(8, 9))]),
        [(1, "lost", 2, 200), (2, "uncovered", 3, 300)],
        "silent, and known to be missing"
    );
    assert!(reconciler.carried.is_empty());
}

#[test]
fn a_known_loss_is_kept_while_another_is_open() {
    let known_and_open = IntervalConditions {
        lost: 2,
        loss_is_open: true,
        ..QUIET
    };
    let known = IntervalConditions { lost: 1, ..QUIET };
    let mut reconciler = reconciler();
    assert_eq!(
        reconciler.interval(&known_and_open, &[(1, observed(7, 10))]),
        [(1, "lost", 3, 300)]
    );
    assert_eq!(reconciler.interval(&known, &[]), NOTHING);
    assert!(reconciler.carried.is_empty());
}

#[test]
fn what_a_full_ledger_moves_to_the_zero_row_is_not_checked() {
    let full = IntervalConditions {
        nflog_overflow: 3,
        ..QUIET
    };
    let rows = [
        (ZERO, observed(3, 0)),
        (7, observed(9, 10)),
        (8, observed(8, 10)),
        (9, observed(6, 10)),
    ];
    assert_eq!(
        reconciler().interval(&full, &rows),
        [
            (ZERO, "not checked", -3, -300),
            (7, "not checked", 1, 100),
            (8, "not checked", 2, 200),
            (9, "uncovered", 4, 400),
        ]
    );
    // With a loss as well, either may be the reason.
    let full_and_lost = IntervalConditions { lost: 2, ..full };
    assert_eq!(
        reconciler().interval(&full_and_lost, &rows[..3]),
        [
            (ZERO, "not checked", -3, -300),
            (7, "lost", 1, 100),
            (8, "not checked", 2, 200),
        ]
    );
}

#[test]
fn what_the_kernels_map_has_no_room_for_is_not_checked() {
    let full = IntervalConditions {
        kernel_overflow: 4,
        ..QUIET
    };
    let mut reconciler = reconciler();
    let rows = [
        (1, observed(3, 0)),
        (2, observed(12, 10)),
        (3, observed(1, 0)),
        (4, observed(9, 10)),
    ];
    assert_eq!(
        reconciler.interval(&full, &rows),
        [
            (1, "extra", -3, -300),
            (2, "not checked", -2, -200),
            (3, "not checked", -1, -100),
            (4, "uncovered", 1, 100),
        ]
    );
    // NFLOG may count in the next interval what the kernel counted there, but not later.
    assert_eq!(
        reconciler.quiet(&[(1, observed(1, 0))]),
        [(1, "not checked", -1, -100)]
    );
    assert_eq!(
        reconciler.quiet(&[(1, observed(1, 0))]),
        [(1, "extra", -1, -100)]
    );
}

#[test]
fn counters_that_make_no_sense_do_no_harm() {
    let mut reconciler = reconciler();
    let absurd = counters(u64::MAX, u64::MAX);
    let row = Observed {
        nflog: counters(1, 100),
        kernel: EpochValue {
            total: absurd,
            near_end: absurd,
            before_end: absurd,
            fragments: absurd,
        },
    };
    for _ in 0..3 {
        assert_eq!(reconciler.quiet(&[(1, row)]), NOTHING);
    }
    assert_eq!(reconciler.quiet(&[]), NOTHING);
}

/// Simulated packets with all that may happen to them, for the property tests.
mod simulation {
    use super::*;

    /// The uncertain times and the shortest interval, in the simulation's unit of time.
    const NEAR_END: u64 = 20;
    const BEFORE_END: u64 = 100;
    const SHORTEST_INTERVAL: u64 = 150;
    const HEADER: u64 = 20;
    pub(super) const N_PREFIXES: Key = 4;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Stamps {
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
    pub(super) struct Packet {
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
    pub(super) struct Overrun {
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
    pub(super) struct Scenario {
        pub(super) stamps: Stamps,
        /// Fragments are reassembled before NFLOG sees them.
        pub(super) reassembled: bool,
        pub(super) packets: Vec<Packet>,
        pub(super) intervals: Vec<u64>,
        pub(super) overruns: Vec<Overrun>,
    }

    /// How often the rules log a packet, given its prefix and its number within that.
    pub(super) type Rules<'a> = &'a dyn Fn(Key, u64) -> u64;

    /// The verdicts and the truth.
    #[derive(Debug, Default)]
    pub(super) struct Result {
        pub(super) outcomes: Vec<Outcome<Key>>,
        pub(super) missing: BTreeMap<Key, Counters>,
        pub(super) surplus: BTreeMap<Key, Counters>,
        pub(super) lost: u64,
        pub(super) n_carried_at_end: usize,
    }

    impl Result {
        pub(super) fn verdicts(&self) -> Vec<Verdict> {
            self.findings().map(|finding| finding.verdict).collect()
        }

        pub(super) fn findings(&self) -> impl Iterator<Item = &Finding<Key>> {
            self.outcomes.iter().flat_map(|outcome| &outcome.findings)
        }

        /// The findings of a verdict, added up by prefix.
        pub(super) fn sums(&self, verdict: Verdict) -> BTreeMap<Key, Counters> {
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

        pub(super) fn n_allowed(&self) -> u64 {
            self.outcomes.iter().map(|outcome| outcome.n_allowed).sum()
        }
    }

    pub(super) fn packets_of(sums: &BTreeMap<Key, Counters>) -> u64 {
        sums.values().map(|sum| sum.packets).sum()
    }

    pub(super) fn any_scenario(
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

    pub(super) fn any_stamps() -> impl Strategy<Value = Stamps> {
        select(vec![Stamps::Common, Stamps::Own, Stamps::None])
    }

    impl Scenario {
        pub(super) fn run(&self, rules: Rules<'_>) -> Result {
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
}

use simulation::*;

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
