//! Interfaces whose packets are delayed between the program and the rules: an ingress filter of a shaper (SQM,
//! `wondershaper`) redirects them to another interface, and they return from its queue with a new time stamp.
//! So TC and NFLOG have no common stamp, and NFLOG's is later. As on egress, packets shortly before a boundary
//! are uncertain, and a difference that they cause must disappear in the next interval.

use log::{debug, info};

use super::tc_netlink::{self, CLSACT_INGRESS};
use crate::config::crosscheck::{End, Watched};
use crate::model::prefix::Side;

#[derive(Debug, Default)]
pub(crate) struct Delays {
    /// For each watched interface, whether it has such a filter now.
    delayed: Vec<bool>,
    /// The sides that had such a filter at any time since the last epochs were closed.
    sides: [bool; 2],
}

impl Delays {
    /// `index_of` is `None` for an interface that does not exist.
    pub(crate) fn update(
        &mut self,
        watched: &[Watched],
        index_of: impl Fn(&Watched) -> Option<u32>,
    ) {
        self.delayed.resize(watched.len(), false);
        for (one, was_delayed) in watched.iter().zip(&mut self.delayed) {
            let is_delayed = index_of(one).is_some_and(redirects);
            if is_delayed && !*was_delayed {
                info!(
                    "{}: a filter redirects incoming packets, as shapers do: the cross-check allows for their delay at the end of each interval",
                    one.interface
                );
            }
            *was_delayed = is_delayed;
            self.sides[side(one) as usize] |= is_delayed;
        }
    }

    /// The sides of the epochs that are closed now.
    pub(crate) fn take(&mut self, watched: &[Watched]) -> [bool; 2] {
        let mut still = [false; 2];
        for (one, is_delayed) in watched.iter().zip(&self.delayed) {
            still[side(one) as usize] |= is_delayed;
        }
        std::mem::replace(&mut self.sides, still)
    }
}

/// The side for which incoming packets are counted.
fn side(watched: &Watched) -> Side {
    match watched.end {
        End::Far => Side::Source,
        End::Near => Side::Dest,
    }
}

fn redirects(index: u32) -> bool {
    tc_netlink::filters(index, CLSACT_INGRESS)
        .inspect_err(|error| debug!("cannot read the filters of interface {index}: {error}"))
        .is_ok_and(|filters| filters.iter().any(|filter| filter.redirects))
}
