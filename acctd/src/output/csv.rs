//! Rows → the text of a CSV file, in go-nflog-acctd's format.

use std::fmt::Write as _;
use std::io::{self, Write};

use acctd_common::Counters;

use crate::model::columns::Columns;
use crate::model::counts::FileTotals;
use crate::model::prefix::Side;
use crate::model::row::Row;

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
    csv.write_record(columns.header())?;
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
