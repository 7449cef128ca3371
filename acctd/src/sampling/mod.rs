//! What commands look at while they ask, and nothing of it runs otherwise: packets of a few prefixes, as the TC programs and
//! as NFLOG saw them, for `acctd explain`; and the prefixes with the most traffic (`rates`, `heaviest`), for `acctd top`.
//!
//! ```text
//!  TC program ─► ring buffer ─► sampler ─┐
//!                                        ├─► matching (pure) ─► report: by flow, seen by both or by one
//!  NFLOG ─► each group's reader ─► capture ┘
//! ```

pub(crate) mod header;
pub(crate) mod heaviest;
pub(crate) mod matching;
pub(crate) mod rates;
pub(crate) mod report;
pub(crate) mod run;
