//! What `/top` answers: the state, the prefixes with the most traffic, and the last files.

use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

use crate::cli::asked::Prefix;
use crate::cli::top::Order;
use crate::observe::state::RuntimeState;
use crate::observe::status::Status;
use crate::sampling::heaviest::{Heaviest, Query};

/// How many prefixes, if it is not said.
pub(crate) const DEFAULT_N: usize = 20;
const MAX_N: usize = 1_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Live {
    pub(crate) status: Status,
    #[serde(flatten)]
    pub(crate) heaviest: Heaviest,
    /// Of the last files, the oldest first.
    pub(crate) intervals: Vec<WrittenInterval>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WrittenInterval {
    pub(crate) start: String,
    pub(crate) seconds: f64,
    pub(crate) in_bytes: u64,
    pub(crate) out_bytes: u64,
    pub(crate) lost: u64,
    /// The worst of the cross-check.
    pub(crate) verdict: Option<String>,
}

impl Live {
    pub(crate) fn of(state: &RuntimeState, heaviest: Heaviest) -> Self {
        let intervals = state.written().into_iter().map(|written| WrittenInterval {
            start: state.zone.rfc3339(written.period.start),
            seconds: written.period.start.until(written.period.end).as_secs_f64(),
            in_bytes: written.dest.bytes,
            out_bytes: written.source.bytes,
            lost: written.lost,
            verdict: written.verdict.map(|verdict| verdict.text().to_owned()),
        });
        Self {
            status: Status::of(state),
            heaviest,
            intervals: intervals.collect(),
        }
    }
}

/// The path and query of a question.
pub(crate) fn path(query: &Query) -> String {
    let mut path = format!("/top?n={}", query.n);
    if let Some(order) = query.order.to_possible_value() {
        path.push_str("&sort=");
        path.push_str(order.get_name());
    }
    if let Some(filter) = query.filter {
        path.push_str("&filter=");
        path.push_str(&filter.to_string());
    }
    path
}

/// `n=20&sort=in&filter=192.0.2.0/24`, each of which may be left out.
pub(crate) fn parse(query: &str) -> Result<Query, String> {
    let mut parsed = Query {
        n: DEFAULT_N,
        order: Order::Bytes,
        filter: None,
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "n" => {
                let n = value.parse().ok().filter(|n| (1..=MAX_N).contains(n));
                parsed.n = n.ok_or_else(|| format!("n must be 1 to {MAX_N}"))?;
            }
            "sort" => {
                let order = Order::from_str(value, false).ok();
                parsed.order = order.ok_or("sort must be bytes, in, out or packets")?;
            }
            "filter" => {
                // As browsers send it.
                let value = value.replace("%2F", "/").replace("%2f", "/");
                let value = value.replace("%3A", ":").replace("%3a", ":");
                let prefix: Prefix = value.parse().map_err(|error| format!("filter {error}"))?;
                parsed.filter = Some(prefix.0);
            }
            _ => return Err(format!("{name:?} is unknown: use n, sort and filter")),
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_as_it_is_written() {
        for filter in [None, Some("192.0.2.0/24"), Some("2001:db8::/32")] {
            let query = Query {
                n: 7,
                order: Order::Packets,
                filter: filter.map(|filter| filter.parse().unwrap()),
            };
            let path = path(&query);
            assert_eq!(parse(path.strip_prefix("/top?").unwrap()), Ok(query));
        }
        let encoded = parse("filter=2001%3Adb8%3A%3A%2F32").unwrap();
        assert_eq!(encoded.filter.unwrap().to_string(), "2001:db8::/32");
        assert_eq!(parse("").unwrap().n, DEFAULT_N);
        for bad in ["n=0", "n=1001", "n=x", "sort=", "filter=here", "top"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
