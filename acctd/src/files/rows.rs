//! The rows of one CSV file, as acctd and go-nflog-acctd write it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str;

use acctd_common::Counters;
use anyhow::{Context as _, Result, bail};

use crate::model::columns::Columns;
use crate::model::prefix::Side;
use crate::model::row::{KernelRow, Row};
use crate::model::verdict::Verdict;

/// Calls `row` for each row of the file's text. Returns which columns it has, and the number of rows. Errors name the
/// line.
pub(crate) fn read(
    text: &[u8],
    mut each: impl FnMut(&Row) -> Result<()>,
) -> Result<(Columns, u64)> {
    let Some(end) = memchr::memchr(b'\n', text) else {
        bail!("it has no whole line; each file of acctd has at least the names of its columns");
    };
    let columns = columns(&text[..end])?;
    let mut rest = &text[end + 1..];
    let mut n_rows = 0;
    while !rest.is_empty() {
        let Some(end) = memchr::memchr(b'\n', rest) else {
            bail!("line {} is cut off: the file is not whole", n_rows + 2);
        };
        each(&row(&rest[..end], columns, n_rows)?)?;
        n_rows += 1;
        rest = &rest[end + 1..];
    }
    Ok((columns, n_rows))
}

/// By the first line of a file.
pub(crate) fn columns(header: &[u8]) -> Result<Columns> {
    let header = str::from_utf8(header).unwrap_or_default();
    let is_of = |columns: &Columns| columns.header().join(",") == header;
    Columns::ALL.into_iter().find(is_of).with_context(|| {
        let names = Columns::Nflog.header().join(",");
        format!("its first line does not name the columns of acctd ({names}…)")
    })
}

/// The row of a line, before which the file has `n_before` others.
pub(crate) fn row(line: &[u8], columns: Columns, n_before: u64) -> Result<Row> {
    parse(line, columns).with_context(|| {
        let shown = String::from_utf8_lossy(&line[..line.len().min(80)]);
        format!("line {} is not a row of acctd: {shown:?}", n_before + 2)
    })
}

fn parse(line: &[u8], columns: Columns) -> Option<Row> {
    let mut fields = line.split(|byte| *byte == b',');
    // The time is that of the file.
    fields.next()?;
    let mut row = Row {
        address: address_of(fields.next()?)?,
        source: counters(&mut fields)?,
        dest: counters(&mut fields)?,
        kernel: None,
    };
    if columns >= Columns::CrossCheck {
        let mut kernel = KernelRow {
            source: counters(&mut fields)?,
            dest: counters(&mut fields)?,
            verdict: Verdict::of_text(fields.next()?)?,
            segments: [Counters::default(); 2],
        };
        if columns >= Columns::Wire {
            let wire = [counters(&mut fields)?, counters(&mut fields)?];
            kernel.segments[Side::Source as usize] = more(wire[0], kernel.source)?;
            kernel.segments[Side::Dest as usize] = more(wire[1], kernel.dest)?;
        }
        row.kernel = Some(kernel);
    }
    fields.next().is_none().then_some(row)
}

fn counters<'l>(fields: &mut impl Iterator<Item = &'l [u8]>) -> Option<Counters> {
    Some(Counters {
        bytes: number_of(fields.next()?)?,
        packets: number_of(fields.next()?)?,
    })
}

/// What `wire` has more than `counted`.
fn more(wire: Counters, counted: Counters) -> Option<Counters> {
    Some(Counters {
        bytes: wire.bytes.checked_sub(counted.bytes)?,
        packets: wire.packets.checked_sub(counted.packets)?,
    })
}

pub(crate) fn number_of(text: &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    (!text.is_empty()).then_some(number)
}

pub(crate) fn address_of(text: &[u8]) -> Option<IpAddr> {
    ip4_of(text).map(IpAddr::V4).or_else(|| {
        let address: Ipv6Addr = str::from_utf8(text).ok()?.parse().ok()?;
        Some(IpAddr::V6(address))
    })
}

fn ip4_of(text: &[u8]) -> Option<Ipv4Addr> {
    let mut parts = text.split(|byte| *byte == b'.');
    let mut octet = || -> Option<u8> {
        let text = parts.next()?;
        u8::try_from(number_of(text)?).ok()
    };
    let address = Ipv4Addr::new(octet()?, octet()?, octet()?, octet()?);
    parts.next().is_none().then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NFLOG: &str = "Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets";
    const CROSS_CHECK: &str = ",TcSourceBytes,TcSourcePackets,TcDestBytes,TcDestPackets,Verdict";
    const WIRE: &str = ",WireSourceBytes,WireSourcePackets,WireDestBytes,WireDestPackets";

    fn rows(text: &str) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        read(text.as_bytes(), |row| {
            rows.push(*row);
            Ok(())
        })?;
        Ok(rows)
    }

    #[test]
    fn rows_of_each_kind_of_file_are_read() {
        let plain = rows(&format!(
            "{NFLOG}\n2013-02-11 15:00:00,192.168.0.42,100372,762,10888,105\n"
        ))
        .unwrap();
        let counters = |bytes, packets| Counters { bytes, packets };
        let row = Row {
            address: "192.168.0.42".parse().unwrap(),
            source: counters(100_372, 762),
            dest: counters(10_888, 105),
            kernel: None,
        };
        assert_eq!(plain, [row]);
        let checked = rows(&format!(
            "{NFLOG}{CROSS_CHECK}\nx,2001:db8::,1,2,3,4,5,6,7,8,uncovered\n"
        ))
        .unwrap();
        let kernel = KernelRow {
            source: counters(5, 6),
            dest: counters(7, 8),
            verdict: Verdict::Uncovered,
            segments: [Counters::default(); 2],
        };
        assert_eq!(checked[0].kernel, Some(kernel));
        assert_eq!(checked[0].address, "2001:db8::".parse::<IpAddr>().unwrap());
        let wire = rows(&format!(
            "{NFLOG}{CROSS_CHECK}{WIRE}\nx,10.0.0.1,1,2,3,4,5,6,7,8,match,9,9,7,8\n"
        ))
        .unwrap();
        let kernel = wire[0].kernel.unwrap();
        assert_eq!(
            (kernel.verdict, kernel.segments),
            (Verdict::Match, [counters(4, 3), counters(0, 0)])
        );
        assert_eq!(rows(&format!("{NFLOG}\n")).unwrap(), []);
    }

    #[test]
    fn what_is_no_file_of_acctds_is_an_error_with_its_line() {
        for (text, part) in [
            ("", "no whole line"),
            ("Time,IP\n", "does not name the columns"),
            ("\u{1}\u{2}\n", "does not name the columns"),
            (&format!("{NFLOG},More\n"), "does not name the columns"),
            (&format!("{NFLOG}{WIRE}\n"), "does not name the columns"),
            (
                &format!("{NFLOG}\nx,10.0.0.1,1,2,3,4\nx,10.0.0.2,1,2"),
                "line 3 is cut off",
            ),
            (
                &format!("{NFLOG}\nx,10.0.0.1,1,2,3\n"),
                "line 2 is not a row",
            ),
            (
                &format!("{NFLOG}{CROSS_CHECK}\nx,10.0.0.1,1,2,3,4,5,6,7,8,perhaps\n"),
                "line 2 is not a row",
            ),
            (
                &format!("{NFLOG}{CROSS_CHECK}{WIRE}\nx,10.0.0.1,1,2,3,4,5,6,7,8,match,4,6,7,8\n"),
                "line 2 is not a row",
            ),
            (
                &format!("{NFLOG}\nx,10.0.0.1,1,2,3,4,5\n"),
                "line 2 is not a row",
            ),
            (
                &format!("{NFLOG}\nx,10.0.0.256,1,2,3,4\n"),
                "line 2 is not a row",
            ),
            (
                &format!("{NFLOG}\nx,10.0.0.1,1,-2,3,4\n"),
                "line 2 is not a row",
            ),
            (
                &format!("{NFLOG}\nx,10.0.0.1,1,18446744073709551616,3,4\n"),
                "line 2 is not a row",
            ),
        ] {
            let error = rows(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
