//! The tables, and the statements that make them.
//!
//! | table | has |
//! |---|---|
//! | `traffic` | the rows of files, by host, file and address |
//! | `files` | a line for each file whose rows are all there: sums, digest, what may be missing, its line of `intervals.jsonl` |
//! | `traffic_hour`, `traffic_day`, `traffic_month` | sums of days that are over |
//! | `days` | a line for each day that is in them |
//! | `schema_version` | the version of all these |
//!
//! A row that is sent again replaces itself: each table is a `ReplacingMergeTree` with a key. There is no view that adds up
//! what is inserted, as that would count a row twice that is sent twice.

use std::fmt::Write as _;
use std::time::Duration;

use crate::client::clickhouse::quoted;
use crate::model::columns::Columns;

/// The tables that this acctd sends to. A later version adds its statements to those of this one.
pub(super) const VERSION: u32 = 1;

/// Types are those that ClickHouse 18.16 has too.
struct Table {
    name: &'static str,
    columns: String,
    /// Of rows with the same key, the one with the largest stays; without, the last.
    newest: &'static str,
    partition: &'static str,
    key: &'static str,
    /// Whether its rows are deleted after a while.
    is_kept_shortly: bool,
}

/// Sums of `traffic`: the table, what its times are, and how long a partition is.
pub(super) const ROLL_UPS: [(&str, &str, &str); 3] = [
    ("traffic_hour", "toStartOfHour(Time)", "toYYYYMM(Time)"),
    ("traffic_day", "toStartOfDay(Time)", "toYear(Time)"),
    (
        "traffic_month",
        "toDateTime(toStartOfMonth(Time))",
        "toYear(Time)",
    ),
];

/// What a roll-up adds up, beside the time and the address.
pub(super) const COUNTERS: [&str; 4] = ["SourceBytes", "SourcePackets", "DestBytes", "DestPackets"];

const FILES: &str = "host String, file String, start DateTime('UTC'), end DateTime('UTC'),
    rows UInt64, source_bytes UInt64, source_packets UInt64, dest_bytes UInt64, dest_packets UInt64,
    -- At most so many bytes are missing: 0 is exact, NULL is not known.
    missing_source_bytes Nullable(UInt64), missing_dest_bytes Nullable(UInt64),
    -- Of the file; of the machine that sent it; its line of intervals.jsonl.
    sha256 String, machine String, line String, shipped_at DateTime('UTC')";

const DAYS: &str =
    "host String, day Date, files UInt64, digest UInt64, rolled_up_at DateTime('UTC')";

fn tables() -> Vec<Table> {
    let mut traffic = "host String, file String".to_owned();
    for name in Columns::Wire.header() {
        let kind = match name {
            "Time" => "DateTime('UTC')",
            "IP" => "String",
            "Verdict" => "Nullable(String)",
            name if COUNTERS.contains(&name) => "UInt64",
            _ => "Nullable(UInt64)",
        };
        // To a string, it cannot fail.
        let _ok = write!(traffic, ",\n    {name} {kind}");
    }
    let of_counters = COUNTERS.map(|name| format!("{name} UInt64")).join(", ");
    let roll_up = format!("host String, Time DateTime('UTC'), IP String,\n    {of_counters}");
    let table = |name, columns: &str, newest, partition, key| Table {
        name,
        columns: columns.to_owned(),
        newest,
        partition,
        key,
        is_kept_shortly: false,
    };
    let mut tables = vec![
        Table {
            is_kept_shortly: true,
            ..table("traffic", &traffic, "", "toYYYYMM(Time)", "host, file, IP")
        },
        table(
            "files",
            FILES,
            "shipped_at",
            "toYYYYMM(start)",
            "host, file",
        ),
        table("days", DAYS, "rolled_up_at", "toYear(day)", "host, day"),
    ];
    for (name, _, partition) in ROLL_UPS {
        tables.push(table(name, &roll_up, "", partition, "host, Time, IP"));
    }
    tables
}

/// The statements, for one server or for a cluster. Rows older than `keep` are deleted.
pub(super) fn statements(database: &str, cluster: Option<&str>, keep: Option<Duration>) -> String {
    let on_cluster =
        cluster.map_or_else(String::new, |name| format!(" ON CLUSTER {}", quoted(name)));
    let mut text = format!(
        "-- Tables of acctd ship, version {VERSION}. They may be made again: what is there stays.\n\
         CREATE DATABASE IF NOT EXISTS {database}{on_cluster};\n"
    );
    for table in tables() {
        let Table {
            name,
            columns,
            newest,
            partition,
            key,
            ..
        } = &table;
        let local = if cluster.is_some() {
            format!("{name}_local")
        } else {
            (*name).to_owned()
        };
        let comma = if newest.is_empty() { "" } else { ", " };
        let engine = match cluster {
            Some(_) => format!(
                "ReplicatedReplacingMergeTree('/clickhouse/tables/{{shard}}/{database}/{name}', '{{replica}}'{comma}{newest})"
            ),
            None => format!("ReplacingMergeTree({newest})"),
        };
        let ttl = keep
            .filter(|_| table.is_kept_shortly)
            .map_or_else(String::new, |keep| {
                format!(" TTL Time + toIntervalSecond({})", keep.as_secs())
            });
        let _ok = write!(
            text,
            "\nCREATE TABLE IF NOT EXISTS {database}.{local}{on_cluster} (\n    {columns}\n) ENGINE = {engine} PARTITION BY {partition} ORDER BY ({key}){ttl};\n"
        );
        if let Some(cluster) = cluster {
            // A host is in one shard, so its rows replace each other there.
            let _ok = write!(
                text,
                "\nCREATE TABLE IF NOT EXISTS {database}.{name}{on_cluster} (\n    {columns}\n) ENGINE = Distributed({}, {database}, {local}, sipHash64(host));\n",
                quoted(cluster)
            );
        }
    }
    let _ok = write!(
        text,
        "\nDROP TABLE IF EXISTS {database}.schema_version{on_cluster};\n\
         CREATE VIEW {database}.schema_version{on_cluster} AS SELECT toUInt32({VERSION}) AS version;\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_traffic_alone_are_deleted_after_a_while() {
        let text = statements("acctd", Some("c1"), Some(Duration::from_secs(86_400)));
        assert_eq!(text.matches(" TTL ").count(), 1);
        assert_eq!(text.matches("ENGINE = Replicated").count(), 6);
        assert_eq!(
            text.matches("ENGINE = Distributed('c1', acctd, ").count(),
            6
        );
        assert_eq!(
            statements("acctd", None, None)
                .matches("ENGINE = ReplacingMergeTree(")
                .count(),
            6
        );
    }
}
