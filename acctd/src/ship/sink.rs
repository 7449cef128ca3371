//! What `acctd ship` sends to, as its loop and its comparison see it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::state::State;

/// A database, or a place for archives.
pub(super) trait Sink {
    fn state(&self) -> &Arc<State>;

    /// Of the files. New ones of all hosts come at the same time.
    fn interval(&self) -> Duration;

    /// Sends what waits, or a part of it. Returns how many files were sent.
    fn round(&mut self) -> Result<usize>;

    /// Adds up what is all there.
    fn roll_up(&mut self) -> Result<()>;

    /// The next time, it is asked again what it has.
    fn disconnect(&mut self);

    /// Compares all files that are kept with what it has: gives those of a day (UTC) after those of the one before.
    fn compare(&mut self, each: &mut dyn FnMut(&str, Vec<Compared>) -> Result<()>) -> Result<()>;

    /// What it has of this file is not what the file has.
    fn send_again(&mut self, name: String);

    /// Adds days up again whose sums are wrong. Returns how many there are.
    fn check_roll_ups(&mut self) -> Result<usize>;
}

/// How a file compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Same,
    NotThere,
    /// It has other rows, or other bytes.
    Differs,
    /// It is not the file that was sent, or it is damaged.
    Changed,
}

/// A file that was compared.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) file: String,
    pub(super) rows: u64,
    pub(super) outcome: Outcome,
    /// Why it is not the same.
    pub(super) why: String,
}
