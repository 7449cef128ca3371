//! The flags of `acctd top`.

use std::time::Duration;

use crate::cli::asked::{AskedArgs, Prefix};
use crate::cli::go_flags;

/// Show the prefixes with the most traffic, as it is now.
///
/// Keys: s sorts, / filters by a prefix, u changes units, space freezes, arrows scroll, q ends.
#[derive(Clone, Debug, clap::Args)]
pub struct TopArgs {
    /// The acctd to ask.
    #[command(flatten)]
    pub asked: AskedArgs,

    /// By what the prefixes are sorted, the largest first.
    #[arg(long, value_enum, default_value_t = Order::Bytes)]
    pub sort: Order,

    /// Only prefixes in this one.
    #[arg(long, value_name = "PREFIX")]
    pub filter: Option<Prefix>,

    /// How many prefixes; default: 20, and on a terminal what fits there.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub n: Option<u16>,

    /// How often to ask.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_every)]
    pub every: Duration,

    /// Print the prefixes once, without a terminal.
    #[arg(long)]
    pub once: bool,

    /// With --once: print the JSON that acctd answers with.
    #[arg(long, requires = "once")]
    pub json: bool,
}

/// By what prefixes are sorted, the largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// Bytes in and out together.
    Bytes,
    /// Bytes that were sent to the prefix.
    In,
    /// Bytes that it sent.
    Out,
    /// Packets in and out together.
    Packets,
}

fn parse_every(text: &str) -> Result<Duration, String> {
    let every = go_flags::parse_duration(text).map_err(|error| error.to_string())?;
    if every < Duration::from_secs(1) || every > Duration::from_secs(10) {
        return Err("must be at least 1s and at most 10s".to_owned());
    }
    Ok(every)
}
