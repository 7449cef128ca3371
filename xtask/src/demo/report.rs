//! What the demo shows: the files as tables, and both counts side by side.

use std::{cmp::Reverse, collections::BTreeMap, fmt};

use anyhow::{Context as _, Result, ensure};
use testkit::{
    nft::Count,
    rows::{CsvFile, Row},
    table,
};

use super::stage::LEFT_OUT;

/// How many rows of a file are shown.
const SHOWN: usize = 12;

/// The paragraph below the tables.
pub(super) const EXPLANATION: &str = "\
What you see: two counts of the same packets by two parts of the kernel that know nothing of
each other. nftables' counter counts a packet where the rule is; the log statement beside it
copies the packet's header to acctd, which counts the length that the header names.
The Source columns are what each address sent to host, the Dest columns what went out to it.
An IPv4 row is one address; an IPv6 row is a /64, unless acctd is told otherwise. A table shows the
12 rows with the most bytes, largest first, those that do not match before all others; the file has
all of them, by address. The first and the last file are parts of an interval, from the start and
to the stop of acctd.
intervals.jsonl, beside the files, has the totals of each interval and what was lost, if anything.";

/// And with a cross-check this one.
pub(super) const CROSS_CHECK_EXPLANATION: &str = "\
The Tc columns are a third count, by an eBPF program that sees every packet on host0, whatever the
rules say. In the first round the rules let the packets of 198.18.0.7 pass without logging them:
its rows are `uncovered`, and the log says how much that is. In the second round they log all, and
every row is a `match`. So one looks for `uncovered` to see whether rules see everything.
Where a `match` has DestPackets and TcDestPackets that differ by a few, these crossed the end of an
interval: packets from the output hook carry no time stamp. What one file lacks the next one has.";

/// The verdicts must be those: one address uncovered at first, in the end none.
pub(super) fn check_verdicts(files: &[CsvFile]) -> Result<()> {
    let rows = files.iter().flat_map(|file| &file.rows);
    let differing: Vec<&Row> = rows.filter(|row| row.differs()).collect();
    ensure!(
        !differing.is_empty(),
        "the cross-check has not found the address that was left out"
    );
    for row in differing {
        ensure!(
            row.ip == LEFT_OUT && row.verdict.as_deref() == Some("uncovered"),
            "the cross-check has found another difference: {:?}",
            row.record
        );
    }
    let last = files.iter().rev().find(|file| !file.rows.is_empty());
    ensure!(
        last.is_some_and(|file| !file.rows.iter().any(Row::differs)),
        "the cross-check still finds a difference"
    );
    Ok(())
}

/// Each file as a table, its rows with the most bytes first.
pub(super) fn tables(files: &[CsvFile]) -> String {
    files.iter().map(file_table).collect()
}

fn file_table(file: &CsvFile) -> String {
    let mut rows: Vec<&Row> = file.rows.iter().collect();
    rows.sort_by_key(|row| Reverse((row.differs(), row.source_bytes + row.dest_bytes)));
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
    /// The cross-check's count, and what it should be: the rules', and what they left out.
    kernel: Option<(Count, Count)>,
}

impl Totals {
    pub(super) fn compare(counters: &BTreeMap<String, Count>, files: &[CsvFile]) -> Result<Self> {
        let counter = |name: &str| {
            let found = counters.get(name).copied();
            found.with_context(|| format!("nft shows no counter {name}"))
        };
        let totals = [
            ("ip4_in", Some("left_out"), "IPv4 Source", false, 0),
            ("ip4_out", None, "IPv4 Dest", false, 1),
            ("ip6_in", None, "IPv6 Source", true, 0),
            ("ip6_out", None, "IPv6 Dest", true, 1),
        ]
        .into_iter()
        .map(|(name, left_out, columns, is_ipv6, side)| {
            let nft = counter(name)?;
            let passed = [Some(nft), left_out.map(counter).transpose()?];
            let rows = files.iter().flat_map(|file| &file.rows);
            let rows = rows.filter(|row| row.is_ipv6() == is_ipv6);
            let kernel: Option<Vec<Count>> =
                rows.clone().map(|row| Some(row.passed()?[side])).collect();
            Ok(Total {
                counter: name,
                columns,
                nft,
                csv: sum(rows.map(|row| row.counted()[side])),
                kernel: kernel
                    .filter(|counts| !counts.is_empty())
                    .map(|counts| (sum(counts.into_iter()), sum(passed.into_iter().flatten()))),
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
            "TC Packets",
            "TC Bytes",
            "",
        ];
        let rows: Vec<Vec<String>> = self.0.iter().map(Total::cells).collect();
        f.write_str(&table::format(&header, &rows))
    }
}

impl Total {
    fn equal(&self) -> bool {
        let kernel_agrees = self
            .kernel
            .is_none_or(|(counted, passed)| counted == passed);
        self.nft == self.csv && kernel_agrees
    }

    fn cells(&self) -> Vec<String> {
        let verdict = if self.equal() { "equal" } else { "DIFFERENT" };
        let mut left_out = String::new();
        let mut kernel = [String::new(), String::new()];
        if let Some((counted, passed)) = self.kernel {
            kernel = [counted.packets.to_string(), counted.bytes.to_string()];
            if passed != self.nft {
                let packets = passed.packets - self.nft.packets;
                left_out = format!(", with {packets} packets left out on purpose");
            }
        }
        let [tc_packets, tc_bytes] = kernel;
        vec![
            self.counter.to_owned(),
            self.nft.packets.to_string(),
            self.nft.bytes.to_string(),
            self.columns.to_owned(),
            self.csv.packets.to_string(),
            self.csv.bytes.to_string(),
            tc_packets,
            tc_bytes,
            verdict.to_owned() + &left_out,
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
            ip: ip.to_owned(),
            source_packets: source,
            source_bytes: source * 100,
            dest_packets: dest,
            dest_bytes: dest * 100,
            record: StringRecord::from(vec![ip]),
            ..Row::default()
        };
        CsvFile {
            name: "a.csv".to_owned(),
            header: StringRecord::from(vec!["IP"]),
            rows: rows.into_iter().map(row).collect(),
        }
    }

    fn counters(values: [u64; 4]) -> BTreeMap<String, Count> {
        ["ip4_in", "ip4_out", "ip6_in", "ip6_out", "left_out"]
            .map(str::to_owned)
            .into_iter()
            .zip(values.into_iter().chain([5]).map(count))
            .collect()
    }

    /// A row as the cross-check writes it.
    fn checked(ip: &'static str, source: u64, tc_source: u64, verdict: &str) -> CsvFile {
        let mut file = file([(ip, source, 0)]);
        let row = &mut file.rows[0];
        (row.tc_source_packets, row.tc_source_bytes) = (Some(tc_source), Some(tc_source * 100));
        (row.tc_dest_packets, row.tc_dest_bytes) = (Some(0), Some(0));
        row.verdict = Some(verdict.to_owned());
        file
    }

    #[test]
    fn the_kernels_count_is_the_rules_and_what_they_left_out() {
        let totals = |tc| {
            let files = [checked(LEFT_OUT, 7, tc, "uncovered")];
            Totals::compare(&counters([7, 0, 0, 0]), &files).unwrap()
        };
        assert!(totals(12).all_equal());
        assert!(totals(12).to_string().contains("with 5 packets left out"));
        assert!(!totals(11).all_equal());
    }

    #[test]
    fn only_the_address_left_out_may_differ_and_not_in_the_end() {
        let matching = || checked("192.0.2.1", 1, 1, "match");
        let uncovered = || checked(LEFT_OUT, 0, 5, "uncovered");
        check_verdicts(&[uncovered(), matching()]).unwrap();
        for wrong in [
            vec![matching()],
            vec![matching(), uncovered()],
            vec![
                uncovered(),
                checked("192.0.2.1", 0, 1, "uncovered"),
                matching(),
            ],
            vec![checked(LEFT_OUT, 9, 1, "extra"), matching()],
        ] {
            assert!(check_verdicts(&wrong).is_err(), "{wrong:?}");
        }
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
