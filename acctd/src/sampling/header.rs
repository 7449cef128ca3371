//! What the headers of a packet say, from as many bytes as there are.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, LaxIpSlice};
use serde::{Deserialize, Serialize};

use crate::model::prefix::{Family, Side};

/// Packets of one connection in one direction, or of one kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Flow {
    /// The number of the transport protocol.
    pub(crate) protocol: u8,
    pub(crate) source: IpAddr,
    pub(crate) dest: IpAddr,
    /// Source and destination; `None` if the protocol has none, or if they are not in what is known of the packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ports: Option<[u16; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) icmp_type: Option<u8>,
}

/// One packet's headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) flow: Flow,
    /// Of the IP packet, in bytes, as the header has it.
    pub(crate) bytes: u32,
    /// IPv4's identification, IPv6's flow label.
    pub(crate) id: u32,
    pub(crate) ttl: u8,
    pub(crate) is_fragment: bool,
}

/// `linux/in.h`.
pub(crate) mod protocol {
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const DCCP: u8 = 33;
    pub(crate) const ICMP6: u8 = 58;
    pub(crate) const SCTP: u8 = 132;
    pub(crate) const UDPLITE: u8 = 136;
}

impl Header {
    /// `None` if these bytes do not begin with an IP header.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (ip, _) = LaxIpSlice::from_slice(bytes).ok()?;
        let (length, id, ttl) = match &ip {
            LaxIpSlice::Ipv4(slice) => {
                let header = slice.header();
                let id = header.identification().into();
                (u32::from(header.total_len()), id, header.ttl())
            }
            LaxIpSlice::Ipv6(slice) => {
                let header = slice.header();
                let length = u32::from(header.payload_length()) + 40;
                (length, header.flow_label().value(), header.hop_limit())
            }
        };
        let payload = ip.payload();
        let IpNumber(number) = payload.ip_number;
        let first: Option<[u8; 4]> = payload.payload.first_chunk().copied();
        let first = first.filter(|_| !payload.fragmented);
        let has_ports = matches!(
            number,
            protocol::TCP | protocol::UDP | protocol::DCCP | protocol::SCTP | protocol::UDPLITE
        );
        let ports = first.filter(|_| has_ports);
        let is_icmp = matches!(number, protocol::ICMP | protocol::ICMP6);
        Some(Self {
            flow: Flow {
                protocol: number,
                source: ip.source_addr(),
                dest: ip.destination_addr(),
                ports: ports
                    .map(|[a, b, c, d]| [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]),
                icmp_type: first.filter(|_| is_icmp).map(|[kind, ..]| kind),
            },
            bytes: length,
            id,
            ttl,
            is_fragment: payload.fragmented,
        })
    }
}

impl Flow {
    /// The address that is accounted.
    pub(crate) fn address(&self, side: Side) -> IpAddr {
        match side {
            Side::Source => self.source,
            Side::Dest => self.dest,
        }
    }

    pub(crate) fn family(&self) -> Family {
        if self.source.is_ipv4() {
            Family::Ip4
        } else {
            Family::Ip6
        }
    }

    /// As rules name it.
    pub(crate) fn protocol_name(&self) -> String {
        let name = match self.protocol {
            protocol::ICMP => "icmp",
            protocol::TCP => "tcp",
            protocol::UDP => "udp",
            protocol::DCCP => "dccp",
            protocol::ICMP6 => "ipv6-icmp",
            protocol::SCTP => "sctp",
            protocol::UDPLITE => "udplite",
            47 => "gre",
            50 => "esp",
            other => return other.to_string(),
        };
        name.to_owned()
    }
}

/// `tcp 192.0.2.7:443 -> 10.1.0.2:50123`, `icmp type 8 192.0.2.7 -> 10.1.0.2`.
impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.protocol_name() {
            number if number.starts_with(|it: char| it.is_ascii_digit()) => {
                format!("protocol {number}")
            }
            name => name,
        };
        write!(f, "{name} ")?;
        if let Some(kind) = self.icmp_type {
            write!(f, "type {kind} ")?;
        }
        match self.ports {
            Some([source, dest]) => write!(
                f,
                "{} -> {}",
                SocketAddr::new(self.source, source),
                SocketAddr::new(self.dest, dest)
            ),
            None => write!(f, "{} -> {}", self.source, self.dest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: [u8; 28] = [
        0x45, 0, 0, 128, 0x12, 0x34, 0, 0, 64, 17, 0, 0, 10, 1, 0, 2, 192, 0, 2, 7, 0xc3, 0xcb, 0,
        53, 0, 108, 0, 0,
    ];

    #[test]
    fn a_header_is_read_as_far_as_it_goes() {
        let whole = Header::parse(&UDP).unwrap();
        assert_eq!(whole.flow.to_string(), "udp 10.1.0.2:50123 -> 192.0.2.7:53");
        assert_eq!((whole.bytes, whole.id, whole.ttl), (128, 0x1234, 64));
        // As NFLOG gives it with snaplen 20.
        let cut = Header::parse(&UDP[..20]).unwrap();
        assert_eq!(cut.flow.to_string(), "udp 10.1.0.2 -> 192.0.2.7");
        assert_eq!((cut.bytes, cut.id), (128, 0x1234));
        let mut fragment = UDP;
        fragment[7] = 8;
        let fragment = Header::parse(&fragment).unwrap();
        assert!(fragment.is_fragment && fragment.flow.ports.is_none());
        assert_eq!(Header::parse(&UDP[..19]), None);
        assert_eq!(Header::parse(&[]), None);
    }
}
