//! What the demo shows: the files as tables, and both counts side by side.

use std::{cmp::Reverse, collections::BTreeMap, fmt};

use anyhow::{Context as _, Result};
use xtask::nft::Count;

use super::files::{CsvFile, Row};
use crate::table;

/// How many rows of a file are shown.
const SHOWN: usize = 12;

/// The paragraph below the tables.
pub(super) const EXPLANATION: &str = "\
What you see: two counts of the same packets by two parts of the kernel that know nothing of
each other. nftables' counter counts a packet where the rule is; the log statement beside it
copies the packet's header to acctd, which counts the length that the header names.
The Source columns are what each address sent to host, the Dest columns what went out to it.
An IPv4 row is one address; an IPv6 row is a /64, unless acctd is told otherwise. A table shows the
12 rows with the most bytes, largest first; the file has all of them, by address. The first and
the last file are parts of an interval, from the start and to the stop of acctd.
intervals.jsonl, beside the files, has the totals of each interval and what was lost, if anything.";

/// Each file as a table, its rows with the most bytes first.
pub(super) fn tables(files: &[CsvFile]) -> String {
    files.iter().map(file_table).collect()
}

fn file_table(file: &CsvFile) -> String {
    let mut rows: Vec<&Row> = file.rows.iter().collect();
    rows.sort_by_key(|row| Reverse(row.source.bytes + row.dest.bytes));
    let shown = rows.iter().take(SHOWN);
    let cells: Vec<Vec<String>> = shown
        .map(|row| row.record.iter().map(str::to_owned).collect())
        .collect();
    let header: Vec<&str> = file.header.iter().collect();
    let table = table::format(&header, &cells);
    let rest = match rows.len().saturating_sub(SHOWN) {
        0 => String::new(),
        n => format!("… {n} more rows\n"),
    };
    format!("{}\n{table}{rest}\n", file.name)
}

/// Both counts for each of the four counters.
#[derive(Debug)]
pub(super) struct Totals(Vec<Total>);

#[derive(Debug)]
struct Total {
    counter: &'static str,
    columns: &'static str,
    nft: Count,
    csv: Count,
}

impl Totals {
    pub(super) fn compare(counters: &BTreeMap<String, Count>, files: &[CsvFile]) -> Result<Self> {
        let source: fn(&Row) -> Count = |row| row.source;
        let dest: fn(&Row) -> Count = |row| row.dest;
        let totals = [
            ("ip4_in", "IPv4 Source", false, source),
            ("ip4_out", "IPv4 Dest", false, dest),
            ("ip6_in", "IPv6 Source", true, source),
            ("ip6_out", "IPv6 Dest", true, dest),
        ]
        .into_iter()
        .map(|(counter, columns, is_ipv6, side)| {
            let nft = counters.get(counter);
            let nft = *nft.with_context(|| format!("nft shows no counter {counter}"))?;
            let rows = files.iter().flat_map(|file| &file.rows);
            let csv = sum(rows.filter(|row| row.is_ipv6 == is_ipv6).map(side));
            Ok(Total {
                counter,
                columns,
                nft,
                csv,
            })
        });
        totals.collect::<Result<_>>().map(Self)
    }

    pub(super) fn all_equal(&self) -> bool {
        self.0.iter().all(Total::equal)
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = [
            "nft counter",
            "packets",
            "bytes",
            "CSV columns",
            "Packets",
            "Bytes",
            "",
        ];
        let rows: Vec<Vec<String>> = self.0.iter().map(Total::cells).collect();
        f.write_str(&table::format(&header, &rows))
    }
}

impl Total {
    fn equal(&self) -> bool {
        self.nft == self.csv
    }

    fn cells(&self) -> Vec<String> {
        let verdict = if self.equal() { "equal" } else { "DIFFERENT" };
        vec![
            self.counter.to_owned(),
            self.nft.packets.to_string(),
            self.nft.bytes.to_string(),
            self.columns.to_owned(),
            self.csv.packets.to_string(),
            self.csv.bytes.to_string(),
            verdict.to_owned(),
        ]
    }
}

fn sum(counts: impl Iterator<Item = Count>) -> Count {
    counts.fold(Count::default(), |sum, count| Count {
        packets: sum.packets + count.packets,
        bytes: sum.bytes + count.bytes,
    })
}

#[cfg(test)]
mod tests {
    use csv::StringRecord;

    use super::*;

    fn count(packets: u64) -> Count {
        let bytes = packets * 100;
        Count { packets, bytes }
    }

    fn file(rows: impl IntoIterator<Item = (&'static str, u64, u64)>) -> CsvFile {
        let row = |(ip, source, dest): (&str, u64, u64)| Row {
            record: StringRecord::from(vec![ip]),
            is_ipv6: ip.contains(':'),
            source: count(source),
            dest: count(dest),
        };
        CsvFile {
            name: "a.csv".to_owned(),
            header: StringRecord::from(vec!["IP"]),
            rows: rows.into_iter().map(row).collect(),
        }
    }

    fn counters(values: [u64; 4]) -> BTreeMap<String, Count> {
        ["ip4_in", "ip4_out", "ip6_in", "ip6_out"]
            .map(str::to_owned)
            .into_iter()
            .zip(values.map(count))
            .collect()
    }

    #[test]
    fn totals_are_of_all_files_and_one_packet_makes_a_difference() {
        let files = [
            file([("192.0.2.1", 1, 2), ("2001:db8::", 3, 4)]),
            file([("192.0.2.1", 10, 20)]),
        ];
        let equal = Totals::compare(&counters([11, 22, 3, 4]), &files).unwrap();
        assert!(equal.all_equal(), "{equal}");
        let different = Totals::compare(&counters([11, 22, 3, 5]), &files).unwrap();
        assert!(!different.all_equal());
        assert_eq!(different.to_string().matches("DIFFERENT").count(), 1);
    }

    #[test]
    fn the_explanation_says_how_many_rows_are_shown() {
        assert!(EXPLANATION.contains(&format!("the\n{SHOWN} rows")));
    }

    #[test]
    fn a_long_table_shows_the_largest_rows_and_how_many_are_left() {
        let small = (0..20).map(|_| ("192.0.2.1", 1, 1));
        let text = tables(&[file(small.chain([("198.51.100.1", 9, 9)]))]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..3], ["a.csv", "IP", "198.51.100.1"]);
        assert_eq!(lines[2 + SHOWN..], ["… 9 more rows", ""]);
    }
}
