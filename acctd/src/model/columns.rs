//! The columns of a CSV file, and the name of the file that describes CSV files.

/// The journal: a line for each CSV file.
pub(crate) const JOURNAL: &str = "intervals.jsonl";

const HEADER: [&str; 6] = [
    "Time",
    "IP",
    "SourceBytes",
    "SourcePackets",
    "DestBytes",
    "DestPackets",
];
/// With a cross-check, these columns follow.
const CROSS_CHECK_HEADER: [&str; 5] = [
    "TcSourceBytes",
    "TcSourcePackets",
    "TcDestBytes",
    "TcDestPackets",
    "Verdict",
];

/// With `--crosscheck-wire`, these follow.
const WIRE_HEADER: [&str; 4] = [
    "WireSourceBytes",
    "WireSourcePackets",
    "WireDestBytes",
    "WireDestPackets",
];

/// Which columns a file has. Each has those of the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Columns {
    /// Those of go-nflog-acctd.
    Nflog,
    /// The kernel's count and the verdict. The rows must have the cross-check's part.
    CrossCheck,
    /// The kernel's count on the wire.
    Wire,
}

impl Columns {
    /// All kinds, each with more columns.
    pub(crate) const ALL: [Self; 3] = [Self::Nflog, Self::CrossCheck, Self::Wire];

    /// Their names.
    pub(crate) fn header(self) -> Vec<&'static str> {
        let mut header = HEADER.to_vec();
        if self >= Self::CrossCheck {
            header.extend(CROSS_CHECK_HEADER);
        }
        if self >= Self::Wire {
            header.extend(WIRE_HEADER);
        }
        header
    }
}
