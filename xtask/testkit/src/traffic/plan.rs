//! What each packet is: the command line, checked and made into arithmetic.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;

use super::args::TrafficArgs;
use crate::craft::{Family, Template};

/// The bits of the address that carry the second in clock mode.
const CLOCK_BITS: u8 = 16;

/// [`Addresses::order`]: one after the other, or 2^32 over the golden ratio, a prime: of no number
/// of addresses a multiple, so that none is left out, and far from any cache's next line.
const IN_ORDER: u64 = 1;
const SCATTERED: u64 = 2_654_435_761;

/// What the packets are, by their place in the sequence.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) family: Family,
    sources: Addresses,
    dests: Addresses,
    min_size: u16,
    n_sizes: u64,
}

impl Plan {
    pub(super) fn new(args: &TrafficArgs) -> Result<Self> {
        let family = match (args.source, args.dest) {
            (IpNet::V4(_), IpNet::V4(_)) => Family::V4,
            (IpNet::V6(_), IpNet::V6(_)) => Family::V6,
            (source, dest) => bail!("source {source} and destination {dest} differ in family"),
        };
        let step_bits = args.step_bits.unwrap_or(match family {
            Family::V4 => 0,
            Family::V6 => 64,
        });
        if args.size.min < family.headers() {
            bail!(
                "size {}: the IP and UDP headers alone are {} bytes",
                args.size,
                family.headers()
            );
        }
        let order = if args.scattered { SCATTERED } else { IN_ORDER };
        let mut sources = Addresses::new("source", args.source, args.sources, step_bits)?;
        sources.order = order;
        if args.clock_sources {
            sources = sources.cleared_for_clock("source", args.source)?;
        }
        let mut dests = Addresses::new("dest", args.dest, args.dests, step_bits)?;
        dests.order = order;
        if args.clock_dests {
            dests = dests.cleared_for_clock("dest", args.dest)?;
        }
        Ok(Self {
            family,
            sources,
            dests,
            min_size: args.size.min,
            n_sizes: u64::from(args.size.max - args.size.min) + 1,
        })
    }

    /// Makes `frame` the packet of this place in the sequence.
    pub(super) fn fill(&self, frame: &mut Template, place: u64) {
        self.fill_at_second(frame, place, 0);
    }

    /// As `fill`, with the second in the addresses that were cleared for it.
    pub(super) fn fill_at_second(&self, frame: &mut Template, place: u64, second: u64) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "there are at most 65536 sizes, so the remainder is below that"
        )]
        let size = self.min_size + (place % self.n_sizes) as u16;
        let source = self.sources.at_second(place, second);
        frame.set(source, self.dests.at_second(place, second), size);
    }
}

/// Addresses as numbers, taken in turn.
#[derive(Debug)]
struct Addresses {
    first: u128,
    count: u32,
    step_bits: u8,
    /// The distance, in the sequence of addresses, from one packet's to the next one's.
    order: u64,
    has_clock: bool,
}

impl Addresses {
    /// `option` is the one that gave the network, for the error.
    fn new(option: &str, network: IpNet, count: u32, step_bits: u8) -> Result<Self> {
        if count == 0 {
            bail!("{option}s 0: at least one address is needed");
        }
        let first = to_number(network.addr());
        let last = u128::from(count - 1)
            .checked_mul(1_u128.checked_shl(step_bits.into()).unwrap_or(0))
            .and_then(|distance| first.checked_add(distance));
        let fits = last.is_some_and(|last| last <= to_number(network.broadcast()));
        if step_bits >= network.max_prefix_len() || !fits {
            bail!(
                "{option} {network} has no {count} addresses at a distance of 2^{step_bits}; \
                 give a shorter prefix or other step_bits"
            );
        }
        Ok(Self {
            first,
            count,
            step_bits,
            order: IN_ORDER,
            has_clock: false,
        })
    }

    /// These with 0 in the bits that carry the second.
    fn cleared_for_clock(self, option: &str, network: IpNet) -> Result<Self> {
        let longest = network
            .max_prefix_len()
            .checked_sub(self.step_bits + CLOCK_BITS)
            .with_context(|| {
                format!("clock_{option}s: no 16 bits of the address are above step_bits")
            })?;
        if network.prefix_len() > longest {
            bail!("clock_{option}s: {option} must be a /{longest} or shorter");
        }
        if self.count != 1 {
            bail!("clock_{option}s sets the address; {option}s must be 1");
        }
        let clock = ((1_u128 << CLOCK_BITS) - 1) << self.step_bits;
        Ok(Self {
            first: self.first & !clock,
            has_clock: true,
            ..self
        })
    }

    fn at_second(&self, place: u64, second: u64) -> u128 {
        let number = if self.has_clock {
            u128::from(second) & ((1 << CLOCK_BITS) - 1)
        } else {
            let count = u64::from(self.count);
            // Both factors are below 2^32.
            u128::from(place % count * self.order % count)
        };
        self.first + (number << self.step_bits)
    }
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{craft::Ethernet, mac::MacAddr, traffic::Sizes};

    fn args(source: &str, dest: &str) -> TrafficArgs {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        TrafficArgs::new("eth0", mac, source.parse().unwrap(), dest.parse().unwrap())
    }

    /// Source, destination and IP length, read back from the frame.
    fn packets(args: &TrafficArgs, n: u64, second: Option<u64>) -> Vec<(IpAddr, IpAddr, u16)> {
        let plan = Plan::new(args).unwrap();
        let link = Ethernet::to(args.to_mac);
        let mut frame = Template::new(&link, plan.family, args.size.max, false);
        (0..n)
            .map(|place| {
                match second {
                    Some(second) => plan.fill_at_second(&mut frame, place, second),
                    None => plan.fill(&mut frame, place),
                }
                let ip = &frame.as_ref()[14..];
                let length = frame.ip_length();
                if plan.family == Family::V4 {
                    let at = |i: usize| IpAddr::from(<[u8; 4]>::try_from(&ip[i..i + 4]).unwrap());
                    (at(12), at(16), length)
                } else {
                    let at = |i: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[i..i + 16]).unwrap());
                    (at(8), at(24), length)
                }
            })
            .collect()
    }

    fn sources(args: &TrafficArgs, n: u64, second: Option<u64>) -> Vec<String> {
        let packets = packets(args, n, second);
        packets.iter().map(|p| p.0.to_string()).collect()
    }

    #[test]
    fn ipv4_addresses_are_consecutive_and_come_round() {
        let args = TrafficArgs {
            sources: 3,
            dests: 2,
            ..args("10.0.0.254/8", "192.0.2.1/24")
        };
        let packets = packets(&args, 4, None);
        let text: Vec<_> = packets.iter().map(|p| format!("{} {}", p.0, p.1)).collect();
        assert_eq!(
            text,
            [
                "10.0.0.254 192.0.2.1",
                "10.0.0.255 192.0.2.2",
                "10.0.1.0 192.0.2.1",
                "10.0.0.254 192.0.2.2",
            ]
        );
    }

    #[test]
    fn ipv6_addresses_step_from_one_64_to_the_next() {
        let args = TrafficArgs {
            sources: 65_536,
            ..args("2001:db8::1/48", "2001:db8:ffff::1/128")
        };
        let all = sources(&args, 65_537, None);
        assert_eq!(all[1], "2001:db8:0:1::1");
        assert_eq!(all[65_535], "2001:db8:0:ffff::1");
        assert_eq!(all[65_536], "2001:db8::1");
    }

    #[test]
    fn a_scattered_order_leaves_no_address_out() {
        let scattered = TrafficArgs {
            sources: 1_000,
            scattered: true,
            ..args("10.0.0.0/16", "192.0.2.1/32")
        };
        let mut all = sources(&scattered, 1_000, None);
        assert_eq!(&all[..3], ["10.0.0.0", "10.0.2.249", "10.0.2.10"]);
        assert_eq!(sources(&scattered, 1_001, None)[1_000], all[0]);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 1_000);
    }

    #[test]
    fn every_size_of_a_range_comes_in_turn() {
        let args = TrafficArgs {
            size: Sizes { min: 98, max: 100 },
            ..args("10.0.0.1/32", "192.0.2.1/32")
        };
        let sizes: Vec<_> = packets(&args, 4, None).iter().map(|p| p.2).collect();
        assert_eq!(sizes, [98, 99, 100, 98]);
    }

    #[test]
    fn the_second_takes_the_place_of_sixteen_bits() {
        let v4 = TrafficArgs {
            clock_sources: true,
            ..args("10.1.2.3/16", "192.0.2.1/32")
        };
        let second = (7 << 16) + 0x0506;
        assert_eq!(sources(&v4, 1, Some(second)), ["10.1.5.6"]);
        let v6 = TrafficArgs {
            clock_sources: true,
            ..args("2001:db8:0:9::1/48", "2001:db8:1::1/128")
        };
        assert_eq!(sources(&v6, 1, Some(second)), ["2001:db8:0:506::1"]);
        let dest = TrafficArgs {
            sources: 2,
            clock_dests: true,
            ..args("10.1.2.3/16", "192.0.2.1/16")
        };
        let packets = packets(&dest, 2, Some(second));
        let text: Vec<_> = packets.iter().map(|p| format!("{} {}", p.0, p.1)).collect();
        assert_eq!(text, ["10.1.2.3 192.0.5.6", "10.1.2.4 192.0.5.6"]);
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let ok = || args("10.0.0.0/24", "192.0.2.1/32");
        let refused = [
            args("10.0.0.0/24", "2001:db8::1/128"),
            TrafficArgs {
                sources: 257,
                ..ok()
            },
            TrafficArgs { sources: 0, ..ok() },
            TrafficArgs { dests: 2, ..ok() },
            TrafficArgs {
                step_bits: Some(32),
                ..ok()
            },
            TrafficArgs {
                size: Sizes { min: 27, max: 100 },
                ..ok()
            },
            TrafficArgs {
                clock_sources: true,
                ..ok()
            },
            TrafficArgs {
                clock_dests: true,
                ..ok()
            },
            TrafficArgs {
                clock_sources: true,
                sources: 2,
                ..args("10.0.0.0/8", "192.0.2.1/32")
            },
            TrafficArgs {
                step_bits: Some(200),
                ..args("2001:db8::/32", "2001:db8::1/128")
            },
        ];
        for args in refused {
            assert!(Plan::new(&args).is_err(), "{args:?}");
        }
        let last = TrafficArgs {
            sources: 256,
            ..ok()
        };
        assert!(Plan::new(&last).is_ok());
    }
}
