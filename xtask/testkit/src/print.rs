//! What the commands say, on standard output.

use std::{fmt, io, io::Write as _};

use anyhow::{Context as _, Result};

/// Prints a line. Unlike `println!` it does not panic when nobody reads any
/// more, as in `cargo xtask demo | head`.
pub fn line(text: impl fmt::Display) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("cannot print")
}
