//! The packets by flow: what `acctd explain` gets from a running acctd.

use std::collections::BTreeMap;

use acctd_common::sample::{EGRESS, Sample};
use serde::{Deserialize, Serialize};

use super::header::Flow;
use super::matching::{By, Seen};
use crate::count::capture::Captured;
use crate::model::prefix::Side;

/// Flows of each kind that are listed, those with most packets first.
const MAX_FLOWS: usize = 1_000;

/// The answer. Counters are of the sample.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) seconds: f64,
    pub(crate) groups: Vec<Group>,
    /// With TC programs.
    pub(crate) interfaces: Vec<String>,
    /// Packets that passed an interface.
    pub(crate) passed: Vec<Passed>,
    /// Packets that only NFLOG saw, or saw twice.
    pub(crate) logged: Vec<LoggedOnly>,
    pub(crate) totals: Totals,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) number: u16,
    pub(crate) ip_version: u8,
    pub(crate) side: Side,
}

/// All flows, also those that are not listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) sampled: u64,
    pub(crate) by_both: u64,
    pub(crate) by_tc_alone: u64,
    pub(crate) by_nflog_alone: u64,
    pub(crate) by_nflog_twice: u64,
    /// Of those sampled.
    pub(crate) not_judged: u64,
    /// Samples that found no room.
    pub(crate) samples_lost: u64,
    /// A group's socket overran, so NFLOG may lack packets for that.
    pub(crate) overran: bool,
}

/// A flow at an interface's TC hook.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Passed {
    pub(crate) interface: String,
    pub(crate) is_egress: bool,
    pub(crate) side: Side,
    #[serde(flatten)]
    pub(crate) flow: Flow,
    pub(crate) by_both: u64,
    pub(crate) by_tc_alone: u64,
    /// Bytes of those by TC alone.
    pub(crate) bytes_by_tc_alone: u64,
    pub(crate) not_judged: u64,
    pub(crate) fragments: u64,
    /// Of the last packet.
    pub(crate) ttl: u8,
    pub(crate) mark: u32,
    pub(crate) vlan: u16,
    pub(crate) packet_type: u8,
    /// Of the largest packet; 0 if none had several.
    pub(crate) segments: u32,
}

/// A flow that NFLOG saw more often than TC.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LoggedOnly {
    pub(crate) group: u16,
    pub(crate) side: Side,
    /// `NFPROTO_*` of the table, and its hook's number.
    pub(crate) protocol_family: u8,
    pub(crate) hook: u8,
    pub(crate) in_interface: String,
    pub(crate) out_interface: String,
    #[serde(flatten)]
    pub(crate) flow: Flow,
    pub(crate) by_nflog_alone: u64,
    pub(crate) by_nflog_twice: u64,
}

impl Report {
    /// Adds TC's packets, each with who saw it. `name` gives an interface's name.
    pub(crate) fn add_passed<'s>(
        &mut self,
        packets: impl Iterator<Item = (&'s Sample, &'s Seen, By)>,
        name: impl Fn(u32) -> String,
    ) {
        let mut flows: BTreeMap<(u32, bool, Side, Flow), Passed> = BTreeMap::new();
        for (sample, seen, by) in packets {
            let is_egress = sample.flags & EGRESS != 0;
            let flow = &seen.header.flow;
            let key = (sample.interface, is_egress, seen.side, flow.clone());
            let passed = flows.entry(key).or_insert_with(|| Passed {
                interface: name(sample.interface),
                is_egress,
                side: seen.side,
                flow: flow.clone(),
                by_both: 0,
                by_tc_alone: 0,
                bytes_by_tc_alone: 0,
                not_judged: 0,
                fragments: 0,
                ttl: 0,
                mark: 0,
                vlan: 0,
                packet_type: 0,
                segments: 0,
            });
            self.totals.sampled += 1;
            match by {
                By::Both | By::Twice => {
                    passed.by_both += 1;
                    self.totals.by_both += 1;
                }
                By::One => {
                    passed.by_tc_alone += 1;
                    passed.bytes_by_tc_alone += u64::from(seen.header.bytes);
                    self.totals.by_tc_alone += 1;
                }
                By::NotJudged => {
                    passed.not_judged += 1;
                    self.totals.not_judged += 1;
                }
            }
            passed.fragments += u64::from(seen.header.is_fragment);
            passed.ttl = seen.header.ttl;
            passed.mark = sample.mark;
            passed.vlan = sample.vlan;
            passed.packet_type = sample.packet_type;
            passed.segments = passed.segments.max(sample.segments);
        }
        self.passed = flows.into_values().collect();
        self.passed
            .sort_by_key(|it| std::cmp::Reverse((it.by_tc_alone, it.by_both)));
        self.passed.truncate(MAX_FLOWS);
    }

    /// Adds NFLOG's packets of a group that TC did not see as often.
    pub(crate) fn add_logged<'s>(
        &mut self,
        packets: impl Iterator<Item = (u16, &'s Captured, &'s Seen, By)>,
        name: impl Fn(u32) -> String,
    ) {
        let mut flows: BTreeMap<(u16, u8, u8, u32, u32, Flow), LoggedOnly> = BTreeMap::new();
        for (group, captured, seen, by) in packets {
            let Captured {
                protocol_family,
                hook,
                in_interface,
                out_interface,
                ..
            } = *captured;
            if !matches!(by, By::One | By::Twice) {
                continue;
            }
            let flow = &seen.header.flow;
            let key = (
                group,
                protocol_family,
                hook,
                in_interface,
                out_interface,
                flow.clone(),
            );
            let logged = flows.entry(key).or_insert_with(|| LoggedOnly {
                group,
                side: seen.side,
                protocol_family,
                hook,
                in_interface: name(in_interface),
                out_interface: name(out_interface),
                flow: flow.clone(),
                by_nflog_alone: 0,
                by_nflog_twice: 0,
            });
            if by == By::Twice {
                logged.by_nflog_twice += 1;
                self.totals.by_nflog_twice += 1;
            } else {
                logged.by_nflog_alone += 1;
                self.totals.by_nflog_alone += 1;
            }
        }
        self.logged.extend(flows.into_values());
        self.logged
            .sort_by_key(|it| std::cmp::Reverse(it.by_nflog_alone + it.by_nflog_twice));
        self.logged.truncate(MAX_FLOWS);
    }
}
