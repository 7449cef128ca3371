//! Rows → the text of a CSV file, in go-nflog-acctd's format.

use std::fmt::Write as _;
use std::io::{self, Write};

use acctd_common::Counters;

use crate::model::counts::FileTotals;
use crate::model::prefix::Side;
use crate::output::rows::Row;

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

/// Writes header and rows. `time` is the first column of each row.
pub fn write_rows(
    target: impl Write,
    time: &str,
    rows: impl Iterator<Item = Row>,
    columns: Columns,
) -> io::Result<FileTotals> {
    let mut csv = csv::WriterBuilder::new()
        .buffer_capacity(64 * 1024)
        .from_writer(target);
    let mut header = HEADER.to_vec();
    if columns >= Columns::CrossCheck {
        header.extend(CROSS_CHECK_HEADER);
    }
    if columns >= Columns::Wire {
        header.extend(WIRE_HEADER);
    }
    csv.write_record(header)?;
    let mut totals = FileTotals::default();
    let mut address = String::new();
    let mut digits = itoa::Buffer::new();
    for row in rows {
        address.clear();
        // Writing to a String cannot fail.
        let _infallible = write!(address, "{}", row.address);
        csv.write_field(time)?;
        csv.write_field(&address)?;
        let mut write_counters = |csv: &mut csv::Writer<_>, source: Counters, dest: Counters| {
            [source.bytes, source.packets, dest.bytes, dest.packets]
                .into_iter()
                .try_for_each(|number| csv.write_field(digits.format(number)))
        };
        write_counters(&mut csv, row.source, row.dest)?;
        if let Some(kernel) = row.kernel {
            write_counters(&mut csv, kernel.source, kernel.dest)?;
            csv.write_field(kernel.verdict.text())?;
            if columns >= Columns::Wire {
                write_counters(&mut csv, kernel.wire(Side::Source), kernel.wire(Side::Dest))?;
            }
            totals.tc_source.add(kernel.source);
            totals.tc_dest.add(kernel.dest);
        }
        csv.write_record(None::<&[u8]>)?;
        totals.rows += 1;
        totals.source.add(row.source);
        totals.dest.add(row.dest);
    }
    csv.flush()?;
    Ok(totals)
}
