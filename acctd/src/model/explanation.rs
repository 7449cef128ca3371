//! Why packets were seen by one side of the cross-check alone, in words.

use serde::{Deserialize, Serialize};

/// Flows with one cause, as `acctd explain --json` prints them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The cause in a word or two.
    pub id: String,
    /// Sampled packets that one side alone saw.
    pub packets: u64,
    /// A line for each flow.
    pub flows: Vec<String>,
    /// A sentence.
    pub cause: String,
    /// Commands, or a sentence.
    pub cure: String,
    /// With `--check`: `ok`, or why nft refuses the cure. `None` if the cure is no command of nft.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

/// What `--explain` found out about an interval's worst prefixes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The prefixes, `192.0.2.7/32`.
    pub prefixes: Vec<String>,
    /// How many packets of theirs were sampled.
    pub sampled: u64,
    /// The causes with the most packets first. Empty if both sides saw all that was sampled.
    pub causes: Vec<Explanation>,
}
