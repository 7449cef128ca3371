//! What each fuzz target does with arbitrary bytes. In one place for two users: the targets, which
//! libFuzzer runs, and the test `fuzz_corpus`, which runs the same with stable Rust.

#![allow(dead_code, reason = "a target uses one of them")]
#![allow(
    clippy::expect_used,
    reason = "a panic is how a target says what is wrong"
)]

mod input;

pub(crate) mod checkpoint;
pub(crate) mod epoch_map;
pub(crate) mod flags;
pub(crate) mod netlink;
pub(crate) mod object;
