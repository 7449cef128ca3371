//! The rows of one CSV file, as acctd and go-nflog-acctd write it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str;

use anyhow::{Result, bail};

use crate::model::columns::Columns;
use crate::model::verdict::Verdict;

/// Packets and bytes from a prefix, and to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) address: IpAddr,
    pub(super) out_bytes: u64,
    pub(super) out_packets: u64,
    pub(super) in_bytes: u64,
    pub(super) in_packets: u64,
    pub(super) kernel: Option<Kernel>,
}

/// The cross-check's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    pub(super) out_bytes: u64,
    pub(super) in_bytes: u64,
    pub(super) is_match: bool,
    pub(super) is_uncovered: bool,
}

/// Calls `row` for each row of the file's text. Errors name the line.
pub(super) fn read(text: &[u8], mut each: impl FnMut(Row)) -> Result<u64> {
    let Some(end) = text.iter().position(|byte| *byte == b'\n') else {
        bail!("it has no whole line; each file of acctd has at least the names of its columns");
    };
    let header = str::from_utf8(&text[..end]).unwrap_or_default();
    let is_of = |columns: &Columns| columns.header().join(",") == header;
    let Some(columns) = Columns::ALL.into_iter().find(is_of) else {
        let names = Columns::Nflog.header().join(",");
        bail!("its first line does not name the columns of acctd ({names}…)");
    };
    let has_kernel = columns >= Columns::CrossCheck;
    let mut rest = &text[end + 1..];
    let mut n_rows = 0;
    while !rest.is_empty() {
        n_rows += 1;
        let number = n_rows + 1;
        let Some(end) = memchr::memchr(b'\n', rest) else {
            bail!("line {number} is cut off: the file is not whole");
        };
        let Some(row) = parse(&rest[..end], has_kernel) else {
            let line = String::from_utf8_lossy(&rest[..end.min(80)]);
            bail!("line {number} is not a row of acctd: {line:?}");
        };
        each(row);
        rest = &rest[end + 1..];
    }
    Ok(n_rows)
}

fn parse(line: &[u8], has_kernel: bool) -> Option<Row> {
    let mut fields = line.split(|byte| *byte == b',');
    let number = |fields: &mut dyn Iterator<Item = &[u8]>| number_of(fields.next()?);
    // The time is that of the file.
    fields.next()?;
    let address = address_of(fields.next()?)?;
    let mut row = Row {
        address,
        out_bytes: number(&mut fields)?,
        out_packets: number(&mut fields)?,
        in_bytes: number(&mut fields)?,
        in_packets: number(&mut fields)?,
        kernel: None,
    };
    if has_kernel {
        let out_bytes = number(&mut fields)?;
        number(&mut fields)?;
        let in_bytes = number(&mut fields)?;
        number(&mut fields)?;
        let verdict = fields.next()?;
        row.kernel = Some(Kernel {
            out_bytes,
            in_bytes,
            is_match: verdict == Verdict::Match.text().as_bytes(),
            is_uncovered: verdict == Verdict::Uncovered.text().as_bytes(),
        });
        return Some(row);
    }
    fields.next().is_none().then_some(row)
}

fn number_of(text: &[u8]) -> Option<u64> {
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

fn address_of(text: &[u8]) -> Option<IpAddr> {
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
        read(text.as_bytes(), |row| rows.push(row))?;
        Ok(rows)
    }

    #[test]
    fn rows_of_each_kind_of_file_are_read() {
        let plain = rows(&format!(
            "{NFLOG}\n2013-02-11 15:00:00,192.168.0.42,100372,762,10888,105\n"
        ))
        .unwrap();
        let row = Row {
            address: "192.168.0.42".parse().unwrap(),
            out_bytes: 100_372,
            out_packets: 762,
            in_bytes: 10_888,
            in_packets: 105,
            kernel: None,
        };
        assert_eq!(plain, [row]);
        let checked = rows(&format!(
            "{NFLOG}{CROSS_CHECK}\nx,2001:db8::,1,2,3,4,5,6,7,8,uncovered\n"
        ))
        .unwrap();
        let kernel = Kernel {
            out_bytes: 5,
            in_bytes: 7,
            is_match: false,
            is_uncovered: true,
        };
        assert_eq!(checked[0].kernel, Some(kernel));
        assert_eq!(checked[0].address, "2001:db8::".parse::<IpAddr>().unwrap());
        let wire = rows(&format!(
            "{NFLOG}{CROSS_CHECK}{WIRE}\nx,10.0.0.1,1,2,3,4,5,6,7,8,match,9,9,9,9\n"
        ))
        .unwrap();
        assert!(wire[0].kernel.unwrap().is_match);
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
