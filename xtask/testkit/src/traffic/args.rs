//! What to send: the generator's command line.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use crate::mac::MacAddr;

/// What to send.
///
/// In code, start from [`TrafficArgs::new`]:
/// `TrafficArgs { count: 1000, ..TrafficArgs::new("eth0", mac, source, dest) }`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags")]
pub struct TrafficArgs {
    /// Device to send from
    #[arg(long, value_name = "DEVICE")]
    pub dev: String,

    /// Ethernet address of the receiver
    #[arg(long, value_name = "MAC")]
    pub to_mac: MacAddr,

    /// First source address, and the network the others must be in
    #[arg(long, value_name = "CIDR", value_parser = parse_network)]
    pub source: IpNet,

    /// First destination address, and the network the others must be in
    #[arg(long, value_name = "CIDR", value_parser = parse_network)]
    pub dest: IpNet,

    /// Number of source addresses, taken in turn
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub sources: u32,

    /// Number of destination addresses, taken in turn
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub dests: u32,

    /// Take the addresses in a scattered order instead of one after the other
    ///
    /// Each comes once in as many packets as there are addresses, as before.
    #[arg(long)]
    pub scattered: bool,

    /// Successive addresses differ by 2 to the power of this [default: 0 for IPv4, 64 for IPv6]
    #[arg(long, value_name = "BITS")]
    pub step_bits: Option<u8>,

    /// Number of packets
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub count: u64,

    /// Packets per second, evenly spaced; 0 is full speed
    #[arg(long, value_name = "PPS", default_value_t = 0)]
    pub rate: u32,

    /// Length of the IP packets; of a range, each length in turn
    #[arg(long, value_name = "MIN[-MAX]", default_value_t = Sizes { min: 100, max: 100 })]
    pub size: Sizes,

    /// VLAN id in a tag of the frame; the outer one first where there are two
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(..4096))]
    pub vlan: Vec<u16>,

    /// What the frame claims to carry, hexadecimal, if not IPv4 or IPv6
    #[arg(long, value_name = "HEX", value_parser = parse_hex)]
    pub ether_type: Option<u16>,

    /// Write 0 for the length into the IP headers, as packets above 64 KiB have it
    #[arg(long)]
    pub no_length: bool,

    /// Put the Unix second of sending, modulo 65536, into the source address
    ///
    /// It goes into the 16 bits that --step-bits names, the low ones of an IPv4 address or of
    /// a /64's number. Nothing is sent within 30 ms of a full second.
    #[arg(long)]
    pub clock_sources: bool,

    /// The same for the destination address, alone or besides
    #[arg(long)]
    pub clock_dests: bool,
}

impl TrafficArgs {
    /// One packet of 100 bytes.
    #[must_use]
    pub fn new(dev: &str, to_mac: MacAddr, source: IpNet, dest: IpNet) -> Self {
        Self {
            dev: dev.to_owned(),
            to_mac,
            source,
            dest,
            sources: 1,
            dests: 1,
            scattered: false,
            step_bits: None,
            count: 1,
            rate: 0,
            size: Sizes { min: 100, max: 100 },
            vlan: Vec::new(),
            ether_type: None,
            no_length: false,
            clock_sources: false,
            clock_dests: false,
        }
    }

    /// The command line that parses to this, without the word `traffic`.
    #[must_use]
    pub fn to_args(&self) -> Vec<String> {
        // Taken apart here, so that a new field cannot be forgotten.
        let Self {
            dev,
            to_mac,
            source,
            dest,
            sources,
            dests,
            scattered,
            step_bits,
            count,
            rate,
            size,
            vlan,
            ether_type,
            no_length,
            clock_sources,
            clock_dests,
        } = self;
        let mut args = vec![
            format!("--dev={dev}"),
            format!("--to-mac={to_mac}"),
            format!("--source={source}"),
            format!("--dest={dest}"),
            format!("--sources={sources}"),
            format!("--dests={dests}"),
            format!("--count={count}"),
            format!("--rate={rate}"),
            format!("--size={size}"),
        ];
        args.extend(scattered.then(|| "--scattered".to_owned()));
        args.extend(step_bits.map(|bits| format!("--step-bits={bits}")));
        args.extend(vlan.iter().map(|id| format!("--vlan={id}")));
        args.extend(ether_type.map(|number| format!("--ether-type={number:04x}")));
        args.extend(no_length.then(|| "--no-length".to_owned()));
        args.extend(clock_sources.then(|| "--clock-sources".to_owned()));
        args.extend(clock_dests.then(|| "--clock-dests".to_owned()));
        args
    }
}

/// The lengths of the IP packets, from the shortest to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The shortest, and the first.
    pub min: u16,
    /// The longest.
    pub max: u16,
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{}-{}", self.min, self.max)
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (min, max) = text.split_once('-').unwrap_or((text, text));
        match (min.parse(), max.parse()) {
            (Ok(min), Ok(max)) if min <= max => Ok(Self { min, max }),
            _ => Err("expected a length such as 100, or a range such as 64-1500".to_owned()),
        }
    }
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_not_either| "expected an address or a network such as 10.0.0.0/8".to_owned())
}

fn parse_hex(text: &str) -> Result<u16, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u16::from_str_radix(digits, 16).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        traffic: TrafficArgs,
    }

    fn parse<S: Into<std::ffi::OsString> + Clone>(
        args: impl IntoIterator<Item = S>,
    ) -> Result<TrafficArgs, clap::Error> {
        let program = std::iter::once("traffic".into());
        Cli::try_parse_from(program.chain(args.into_iter().map(Into::into))).map(|c| c.traffic)
    }

    fn plain() -> TrafficArgs {
        TrafficArgs::new(
            "eth0",
            MacAddr([2, 0, 0, 0, 0, 1]),
            "10.0.0.5/8".parse().unwrap(),
            "192.0.2.1/32".parse().unwrap(),
        )
    }

    #[test]
    fn a_command_line_made_from_code_parses_to_the_same() {
        let full = TrafficArgs {
            source: "2001:db8::1/32".parse().unwrap(),
            dest: "2001:db8:1::1/128".parse().unwrap(),
            sources: 65_536,
            dests: 3,
            scattered: true,
            step_bits: Some(70),
            count: 1_000_000,
            rate: 5,
            size: Sizes { min: 64, max: 1500 },
            vlan: vec![100, 7],
            ether_type: Some(0x0806),
            no_length: true,
            clock_sources: true,
            clock_dests: true,
            ..plain()
        };
        for args in [plain(), full] {
            assert_eq!(parse(args.to_args()).unwrap(), args);
        }
    }

    #[test]
    fn defaults_are_those_of_new() {
        let line = "--dev eth0 --to-mac 02:00:00:00:00:01 --source 10.0.0.5/8 --dest 192.0.2.1";
        assert_eq!(parse(line.split(' ')).unwrap(), plain());
    }

    #[test]
    fn sizes_are_one_length_or_a_range() {
        assert_eq!("100".parse(), Ok(Sizes { min: 100, max: 100 }));
        assert_eq!("64-1500".parse(), Ok(Sizes { min: 64, max: 1500 }));
        for text in ["", "a", "10-", "9-8", "70000"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }
}
