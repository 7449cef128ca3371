//! What `intervals.jsonl` says of each file: its exact period, and what may be missing in it.

use std::collections::HashMap;
use std::path::Path;
use std::{fs, io};

use anyhow::{Context as _, Result, bail, ensure};
use chrono::DateTime;
use serde::Deserialize;

use crate::model::interval::{Period, UnixNanos};

/// Of each family and direction: in, out.
pub(crate) type ByDirection<T> = [[T; 2]; 2];

pub(crate) const IN: usize = 0;
pub(crate) const OUT: usize = 1;

/// The largest packet that a header without extensions can announce: the total length of IPv4, and the payload length of
/// IPv6 with its header (RFC 791, RFC 8200). A lost packet has no more.
const MAX_PACKET: [u64; 2] = [65_535, 65_575];

/// What may be missing in a file, or in a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Bytes, at most.
    pub(crate) missing: ByDirection<u64>,
    /// Nothing bounds it.
    pub(crate) is_unbounded: ByDirection<bool>,
}

impl Loss {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for family in 0..2 {
            for direction in [IN, OUT] {
                let missing = &mut self.missing[family][direction];
                *missing = missing.saturating_add(other.missing[family][direction]);
                self.is_unbounded[family][direction] |= other.is_unbounded[family][direction];
            }
        }
    }

    /// In and out, of these families.
    pub(crate) fn of(&self, families: [bool; 2]) -> [Option<u64>; 2] {
        [IN, OUT].map(|direction| {
            let of = (0..2).filter(|family| families[*family]);
            of.map(|family| {
                (!self.is_unbounded[family][direction]).then_some(self.missing[family][direction])
            })
            .try_fold(0_u64, |sum, missing| Some(sum.saturating_add(missing?)))
        })
    }
}

/// A file, as its line describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) period: Period,
    pub(crate) rows: u64,
    /// Sums of the file: in, out.
    pub(crate) bytes: [u64; 2],
    pub(crate) loss: Loss,
    /// Whether the row 0.0.0.0 or :: has packets of other prefixes.
    pub(crate) has_overflow: ByDirection<bool>,
    /// Times for which it is not known what was logged.
    pub(crate) gaps: Vec<(Period, ByDirection<bool>)>,
    /// The lengths of prefixes, by family.
    pub(crate) prefix_lengths: [Option<u8>; 2],
}

impl Described {
    /// An error if the file has not what its line says. `bytes`: in, out.
    pub(crate) fn check(&self, n_rows: u64, bytes: [u64; 2]) -> Result<()> {
        ensure!(
            (n_rows, bytes) == (self.rows, self.bytes),
            "it has {n_rows} rows, {} bytes in and {} out, and its line in intervals.jsonl says {}, {} and {}: one of both was changed",
            bytes[IN],
            bytes[OUT],
            self.rows,
            self.bytes[IN],
            self.bytes[OUT]
        );
        Ok(())
    }
}

#[derive(Deserialize)]
struct Line {
    start: String,
    end: String,
    file: String,
    rows: u64,
    source_bytes: u64,
    dest_bytes: u64,
    #[serde(default = "one")]
    merged_intervals: u32,
    #[serde(default)]
    gaps: Vec<Gap>,
    groups: Vec<Group>,
}

fn one() -> u32 {
    1
}

#[derive(Deserialize)]
struct Gap {
    start: String,
    end: String,
    groups: Vec<u16>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(rename = "group")]
    number: u16,
    ip_version: u8,
    side: String,
    prefix_length: u8,
    lost: u64,
    overflow: u64,
    without_length: u64,
    truncated: u64,
    malformed: u64,
    lost_is_complete: bool,
}

impl Group {
    /// Its family and its direction.
    fn place(&self) -> Result<(usize, usize)> {
        let family = match self.ip_version {
            4 => 0,
            6 => 1,
            other => bail!("IP version {other}"),
        };
        match self.side.as_str() {
            "source" | "Source" => Ok((family, OUT)),
            "dest" | "Dest" => Ok((family, IN)),
            other => bail!("side {other:?}"),
        }
    }
}

/// The lines of a directory's journal, by the file that they describe. Empty without a journal, as with
/// go-nflog-acctd.
pub(crate) fn read(path: &Path) -> Result<HashMap<String, Described>> {
    let mut known = HashMap::new();
    each_line(path, |_, line| {
        let file = line.file.clone();
        known.insert(file, line.describe()?);
        Ok(())
    })?;
    Ok(known)
}

/// The text of the lines that [`read`] reads.
pub(crate) fn lines(path: &Path) -> Result<HashMap<String, String>> {
    let mut known = HashMap::new();
    each_line(path, |text, line| {
        known.insert(line.file, text.to_owned());
        Ok(())
    })?;
    Ok(known)
}

/// One line: the name of its file, and what it says of it.
pub(crate) fn parse(text: &str) -> Result<(String, Described)> {
    let line: Line = serde_json::from_str(text)?;
    Ok((line.file.clone(), line.describe()?))
}

fn each_line(path: &Path, mut each: impl FnMut(&str, Line) -> Result<()>) -> Result<()> {
    let shown = path.display();
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
    };
    for (at, text) in text.lines().enumerate() {
        // A crash may have left half a line; its file has no line then.
        let Ok(line) = serde_json::from_str::<Line>(text) else {
            if text.ends_with('}') {
                bail!("{shown}, line {}: not a line of acctd's", at + 1);
            }
            continue;
        };
        each(text, line).with_context(|| format!("{shown}, line {}", at + 1))?;
    }
    Ok(())
}

fn moment(text: &str) -> Result<UnixNanos> {
    let time =
        DateTime::parse_from_rfc3339(text).with_context(|| format!("{text:?} is no time"))?;
    Ok(UnixNanos(
        time.timestamp_nanos_opt().context("a time out of range")?,
    ))
}

impl Line {
    fn describe(self) -> Result<Described> {
        let period = Period {
            start: moment(&self.start)?,
            end: moment(&self.end)?,
        };
        let mut described = Described {
            period,
            rows: self.rows,
            bytes: [self.dest_bytes, self.source_bytes],
            loss: Loss {
                missing: ByDirection::default(),
                // Which of the intervals had the bytes is not known.
                is_unbounded: [[self.merged_intervals > 1; 2]; 2],
            },
            has_overflow: ByDirection::default(),
            gaps: Vec::new(),
            prefix_lengths: [None; 2],
        };
        for group in &self.groups {
            let (family, direction) = group.place()?;
            let n_packets = group.lost + group.truncated + group.malformed;
            let missing = &mut described.loss.missing[family][direction];
            *missing = missing.saturating_add(n_packets.saturating_mul(MAX_PACKET[family]));
            described.loss.is_unbounded[family][direction] |=
                !group.lost_is_complete || group.without_length > 0;
            described.has_overflow[family][direction] |= group.overflow > 0;
            described.prefix_lengths[family] = Some(group.prefix_length);
        }
        for gap in &self.gaps {
            let mut of_groups = ByDirection::default();
            for group in self
                .groups
                .iter()
                .filter(|it| gap.groups.contains(&it.number))
            {
                let (family, direction) = group.place()?;
                of_groups[family][direction] = true;
            }
            described.gaps.push((
                Period {
                    start: moment(&gap.start)?,
                    end: moment(&gap.end)?,
                },
                of_groups,
            ));
        }
        Ok(described)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_may_be_missing() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("intervals.jsonl");
        assert!(read(&path).unwrap().is_empty());
        let group = |group: u16, version: u8, side: &str, more: &str| {
            format!(
                r#"{{"group":{group},"ip_version":{version},"side":"{side}","prefix_length":32,"lost":0,"overflow":0,"without_length":0,"truncated":0,"malformed":0,"lost_is_complete":true{more}}}"#
            )
        };
        let lossy = group(5, 4, "source", "")
            .replace(r#""lost":0"#, r#""lost":3"#)
            .replace(r#""malformed":0"#, r#""malformed":1"#);
        let line = format!(
            r#"{{"start":"2026-11-29T12:00:00.000000+01:00","end":"2026-11-29T12:05:00.000000+01:00","file":"a.csv","rows":1,"source_bytes":7,"dest_bytes":9,"gaps":[{{"start":"2026-11-29T12:00:01.000000+01:00","end":"2026-11-29T12:00:02.000000+01:00","groups":[4],"cause":"killed"}}],"groups":[{lossy},{}]}}"#,
            group(4, 4, "dest", "")
        );
        fs::write(&path, format!("{line}\n{{\"start\":\"2026")).unwrap();
        let known = read(&path).unwrap();
        let described = &known["a.csv"];
        assert_eq!(
            described.period.end.0 - described.period.start.0,
            300_000_000_000
        );
        assert_eq!(described.bytes, [9, 7]);
        assert_eq!(described.loss.missing, [[0, 4 * 65_535], [0, 0]]);
        assert_eq!(described.gaps.len(), 1);
        assert_eq!(described.gaps[0].1, [[true, false], [false, false]]);
        assert_eq!(described.prefix_lengths, [Some(32), None]);
        fs::write(&path, "{\"start\":1}\n").unwrap();
        assert!(
            read(&path)
                .unwrap_err()
                .to_string()
                .contains("line 1: not a line of acctd's")
        );
    }
}
