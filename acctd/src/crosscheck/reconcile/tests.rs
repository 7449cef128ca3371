use acctd_common::contract::EpochValue;

use super::*;
use crate::crosscheck::outcome::{IntervalConditions, Observed, Outcome};
use crate::model::verdict::{Difference, Finding};

mod properties;

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
