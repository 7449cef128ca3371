//! Interfaces whose packets are held back between the program and the rules: a shaper (SQM, `wondershaper`) has a filter on
//! ingress send them to another interface, from whose queue they come back. The kernel takes their stamp away and gives
//! them another one then. So these packets have no common stamp, and NFLOG's time is later: as on egress, there is an
//! uncertain time before each boundary, and what differs by it must be gone in the next interval.

use log::{debug, info};

use super::tc_netlink::{self, CLSACT_INGRESS};
use crate::config::crosscheck::{End, Watched};
use crate::model::prefix::Side;

/// What is known of each of the watched interfaces.
#[derive(Debug, Default)]
pub struct Delays {
    /// Whether it has such a filter now, in their order.
    delayed: Vec<bool>,
    /// The sides that had one at any time since the last epochs were closed.
    sides: [bool; 2],
}

impl Delays {
    /// Looks at them, each with its index, if it is there.
    pub fn look(&mut self, watched: &[Watched], index_of: impl Fn(&Watched) -> Option<u32>) {
        self.delayed.resize(watched.len(), false);
        for (one, was_delayed) in watched.iter().zip(&mut self.delayed) {
            let is_delayed = index_of(one).is_some_and(redirects);
            if is_delayed && !*was_delayed {
                info!(
                    "{}: a filter redirects what comes in, as shapers do: near the end of an interval it is uncertain, as what goes out is",
                    one.interface
                );
            }
            *was_delayed = is_delayed;
            self.sides[side(one) as usize] |= is_delayed;
        }
    }

    /// The sides of the epochs that are closed now.
    pub fn take(&mut self, watched: &[Watched]) -> [bool; 2] {
        let mut still = [false; 2];
        for (one, is_delayed) in watched.iter().zip(&self.delayed) {
            still[side(one) as usize] |= is_delayed;
        }
        std::mem::replace(&mut self.sides, still)
    }
}

/// What comes in by it is counted for this side.
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
