//! Packets of a few prefixes, as the TC programs and as NFLOG saw them, for `acctd explain`. Nothing of it runs while
//! nobody asks.
//!
//! ```text
//!  TC program ─► ring buffer ─► sampler ─┐
//!                                        ├─► matching (pure) ─► report: by flow, seen by both or by one
//!  NFLOG ─► each group's reader ─► capture ┘
//! ```

pub(crate) mod header;
pub(crate) mod matching;
pub(crate) mod report;
pub(crate) mod run;
