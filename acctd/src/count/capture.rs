//! Packets that a reader keeps for `acctd explain`, while it is asked for them. Without this, a reader only checks that
//! there is none.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use acctd_common::sample::{HEADER_BYTES, WINDOW_NANOS};
use ipnet::IpNet;

use crate::model::group::GroupConfig;
use crate::model::interval::UnixNanos;
use crate::model::prefix::{Family, Side};
use crate::nflog::decode::{Packet, Record, Records};

/// What to keep.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) prefixes: Arc<[IpNet]>,
    /// The most packets in a window of [`WINDOW_NANOS`].
    pub(crate) limit: u64,
}

/// What a reader has kept.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) group: GroupConfig,
    wanted: Wanted,
    pub(crate) packets: Vec<Captured>,
    /// The windows in which more came than the limit: the number of each, and the time of the first packet that was
    /// left out.
    pub(crate) full: BTreeMap<i64, UnixNanos>,
    /// The socket overran: packets are missing.
    pub(crate) overran: bool,
    /// The longest that a datagram may have waited for the reader: since the socket was empty, or the capture began.
    pub(crate) longest_wait: Duration,
    empty_at: UnixNanos,
    /// Of the current window.
    window: i64,
    n_kept: u64,
}

/// A packet as NFLOG gave it.
#[derive(Clone, Debug)]
pub(crate) struct Captured {
    /// The kernel's stamp, or the time of receipt.
    pub(crate) time: UnixNanos,
    pub(crate) is_stamped: bool,
    /// `NFPROTO_*`, and the number of its hook.
    pub(crate) protocol_family: u8,
    pub(crate) hook: u8,
    /// The interfaces' indices; 0 if there is none.
    pub(crate) in_interface: u32,
    pub(crate) out_interface: u32,
    /// From the IP header on.
    pub(crate) header: Vec<u8>,
}

impl Capture {
    /// At this time the socket has nothing that came before.
    pub(crate) fn new(group: GroupConfig, wanted: Wanted, empty_at: UnixNanos) -> Self {
        Self {
            longest_wait: Duration::ZERO,
            empty_at,
            group,
            wanted,
            packets: Vec::new(),
            full: BTreeMap::new(),
            overran: false,
            window: 0,
            n_kept: 0,
        }
    }

    /// Not later than this, the socket was empty.
    pub(crate) fn emptied(&mut self, at: UnixNanos) {
        self.empty_at = at;
    }

    /// Keeps the packets of this datagram that are wanted.
    pub(crate) fn absorb(&mut self, datagram: &[u8], now: UnixNanos) {
        self.longest_wait = self.longest_wait.max(self.empty_at.until(now));
        let mut records = Records::of(datagram);
        while let Some(record) = records.next() {
            if let Record::Packet(packet) = record {
                self.keep(packet, now);
            }
        }
    }

    fn keep(&mut self, packet: Packet<'_, '_>, now: UnixNanos) {
        let Ok(header) = packet.ip_header(self.group.prefix_length.family()) else {
            return;
        };
        let address = address(self.group.prefix_length.family(), self.group.side, header);
        if !self.wanted.prefixes.iter().any(|it| it.contains(&address)) {
            return;
        }
        let stamp = packet.stamp();
        let time = stamp.unwrap_or(now);
        let window = window_of(time);
        if window > self.window {
            self.window = window;
            self.n_kept = 0;
        }
        if self.n_kept >= self.wanted.limit {
            self.full.entry(window).or_insert(time);
            return;
        }
        self.n_kept += 1;
        let [in_interface, out_interface] = packet.interfaces();
        self.packets.push(Captured {
            time,
            is_stamped: stamp.is_some(),
            protocol_family: packet.protocol_family(),
            hook: packet.hook(),
            in_interface,
            out_interface,
            header: header[..header.len().min(HEADER_BYTES)].to_vec(),
        });
    }
}

/// The number of the window of this time.
pub(crate) fn window_of(time: UnixNanos) -> i64 {
    time.0.div_euclid(WINDOW_NANOS.cast_signed())
}

/// The address on this side. `header` has at least the family's header length.
fn address(family: Family, side: Side, header: &[u8]) -> IpAddr {
    match family {
        Family::Ip4 => {
            let at = match side {
                Side::Source => 12,
                Side::Dest => 16,
            };
            let bytes: [u8; 4] = header[at..].first_chunk().copied().unwrap_or_default();
            Ipv4Addr::from(bytes).into()
        }
        Family::Ip6 => {
            let at = match side {
                Side::Source => 8,
                Side::Dest => 24,
            };
            let bytes: [u8; 16] = header[at..].first_chunk().copied().unwrap_or_default();
            Ipv6Addr::from(bytes).into()
        }
    }
}
