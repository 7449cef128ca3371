//! Packets that a TC program samples for `acctd explain`: the optional part of the map contract.
//!
//! | name | what it is |
//! |---|---|
//! | [`ASKED`] | map `LPM_TRIE`: [`AskedKey`] to `u32`; which prefixes are asked for |
//! | [`SAMPLES`] | map `RINGBUF` of [`Sample`] |
//! | [`SAMPLING`] | global in `.bss`, alone there: [`Sampling`] |
//!
//! While [`Sampling::limit`] is 0, a program does nothing of this. Else, it puts each packet of a prefix that is asked
//! for into [`SAMPLES`], in each window of [`WINDOW_NANOS`] of the packets' time the first `limit` of a hook.

/// The map of the prefixes that are asked for.
pub const ASKED: &str = "ACCTD_ASKED";
/// The ring buffer of sampled packets.
pub const SAMPLES: &str = "ACCTD_SAMPLES";
/// The global that switches sampling on.
pub const SAMPLING: &str = "ACCTD_SAMPLING";

/// Entries of [`ASKED`]: prefixes and sides.
pub const MAX_ASKED: u32 = 256;
/// Bytes of [`SAMPLES`]: more than what the largest limit puts there in a second.
pub const RING_BYTES: u32 = 1 << 18;
/// The length of a window, in nanoseconds.
pub const WINDOW_NANOS: u64 = 100_000_000;
/// The largest [`Sampling::limit`].
pub const MAX_LIMIT: u64 = 100;

/// Whether and how much is sampled. acctd writes all of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampling {
    /// Packets per window and hook; 0 switches sampling off.
    pub limit: u64,
    /// Samples that found no room in [`SAMPLES`].
    pub n_lost: u64,
    /// By hook: ingress, egress.
    pub windows: [Window; 2],
}

/// A hook's window.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The time of the packets, divided by [`WINDOW_NANOS`].
    pub number: u64,
    /// Packets sampled in it.
    pub n_sampled: u64,
}

/// The data of a key of [`ASKED`], after its prefix length: that of the address, and 32.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskedKey {
    /// 4 or 6.
    pub version: u8,
    /// [`crate::contract::SIDE_SOURCE`] or [`crate::contract::SIDE_DEST`].
    pub side: u8,
    /// Zero.
    pub padding: [u8; 2],
    /// In network order; IPv4 in the first four bytes.
    pub address: [u8; 16],
}

const _: () = assert!(size_of::<AskedKey>() == 20);

/// Bits of a key's data before the address.
pub const ASKED_BITS: u32 = 32;

/// A packet, as a TC program saw it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The time that decided on the epoch, in nanoseconds of Unix time.
    pub time: u64,
    /// The interface's index.
    pub interface: u32,
    /// Of the frame.
    pub bytes: u32,
    /// `skb->mark`.
    pub mark: u32,
    /// Segments of a packet of several (`skb->gso_segs`), else 0.
    pub segments: u32,
    /// The VLAN tag that the kernel has taken out of the frame, else 0.
    pub vlan: u16,
    /// `PACKET_HOST` and so on, of `linux/if_packet.h`.
    pub packet_type: u8,
    /// [`EGRESS`] and [`STAMPED`].
    pub flags: u8,
    /// 4 or 6.
    pub version: u8,
    /// The side that is accounted.
    pub side: u8,
    /// Zero.
    pub padding: u8,
    /// How many bytes of `header` are the packet's.
    pub header_bytes: u8,
    /// From the IP header on.
    pub header: [u8; HEADER_BYTES],
}

const _: () = assert!(size_of::<Sample>() == 96);

/// The most of a packet that a sample has.
pub const HEADER_BYTES: usize = 64;
/// [`Sample::flags`]: on the egress hook.
pub const EGRESS: u8 = 1;
/// [`Sample::flags`]: the time is the kernel's stamp, which NFLOG reports as well.
pub const STAMPED: u8 = 2;

impl Sample {
    /// Reads what a program has put into the ring buffer; `None` if it has another length.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (time, rest) = bytes.split_first_chunk()?;
        let (words, rest) = rest.split_first_chunk::<16>()?;
        let (vlan, rest) = rest.split_first_chunk()?;
        let (small, header) = rest.split_first_chunk::<6>()?;
        let (words, _) = words.as_chunks();
        let [packet_type, flags, version, side, padding, header_bytes] = *small;
        Some(Self {
            time: u64::from_ne_bytes(*time),
            interface: u32::from_ne_bytes(words[0]),
            bytes: u32::from_ne_bytes(words[1]),
            mark: u32::from_ne_bytes(words[2]),
            segments: u32::from_ne_bytes(words[3]),
            vlan: u16::from_ne_bytes(*vlan),
            packet_type,
            flags,
            version,
            side,
            padding,
            header_bytes,
            header: header.try_into().ok()?,
        })
    }
}
