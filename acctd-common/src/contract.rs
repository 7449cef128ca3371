//! The map contract of the cross-check, between a TC program and acctd.
//!
//! acctd loads an object, sets its globals, puts maps into it and attaches its programs; the
//! programs count each IP packet in the map of the epoch that the packet's time stamp falls into.
//! Your own program (`--crosscheck-object`), in any language, must follow this contract. acctd checks the
//! object when it loads it.
//!
//! # Programs
//!
//! Of type `classifier`, named for their hook and for the side that they account:
//! [`INGRESS_SOURCE`] and [`EGRESS_DEST`] for an interface's far side, [`INGRESS_DEST`] and
//! [`EGRESS_SOURCE`] for its near side. Only those that the command line requires must exist.
//! They return `TCX_NEXT` (-1, `TC_ACT_UNSPEC`), so that other programs on the hook still run.
//!
//! # Maps, with BTF definitions
//!
//! | name | type | key | value | entries |
//! |---|---|---|---|---|
//! | [`EPOCHS`] | `ARRAY_OF_MAPS` of `HASH` with `BPF_F_NO_PREALLOC` | slot | [`EpochKey`] to [`EpochValue`] | [`SLOTS`] |
//! | [`CLOCK`] | `ARRAY` | index | `u64` | [`CLOCK_ENTRIES`] |
//! | [`VLANS`], optional | `HASH` | [`VlanKey`] | `u32` | any |
//! | [`ADDRESSES`], optional | `HASH` | [`AddressKey`] | `u32` | any |
//!
//! For `acctd explain` there are more, in [`crate::sample`], all optional.
//!
//! # Globals, in `.rodata`, all optional
//!
//! [`IP4_PREFIX_LENGTH`], [`IP6_PREFIX_LENGTH`], [`ACCOUNTED`], [`DEBUG`], [`WIRE`], [`IOAM`]: each a
//! `u8`.
//!
//! # Which epoch
//!
//! A packet's time is nanoseconds of Unix time: on ingress `skb->tstamp` if it is not 0, otherwise
//! `bpf_ktime_get_ns()` plus the offset in [`CLOCK`] at [`CLOCK_OFFSET`]; on egress always the latter,
//! less [`EGRESS_LEAD_NANOS`]. Begin at the slot that [`CLOCK`] has at [`CLOCK_OLDEST`]. While the packet's
//! time is not before the end that [`CLOCK`] has for the slot, take the next one, `(slot + 1) % SLOTS`, at
//! most [`MAX_STEPS`] times. The last slot in use has the end `u64::MAX`. acctd sets ends while they are in
//! the future, and removes a slot's map only when no packet can belong to it any more.
//!
//! # What to count
//!
//! For the address of the program's side, masked to the prefix length of its family, add to
//! [`EpochValue`], atomically: all CPUs share it. Count other packets in the entry of their [`reason`]. acctd
//! adds these entries when it creates the map, so they exist even when the map is full.

/// The map of maps: slot → that epoch's counters.
pub const EPOCHS: &str = "ACCTD_EPOCHS";
/// The map of ends, the oldest slot and the clock's offset.
pub const CLOCK: &str = "ACCTD_CLOCK";
/// The VLAN devices on an interface. The kernel discards tagged frames for any other.
pub const VLANS: &str = "ACCTD_VLANS";
/// Further Ethernet addresses for which an interface accepts frames: those of its macvlan devices, in any
/// network namespace, and of its VLAN devices.
pub const ADDRESSES: &str = "ACCTD_ADDRESSES";

/// Ingress, source address: what comes from beyond the interface.
pub const INGRESS_SOURCE: &str = "acctd_ingress_source";
/// Ingress, destination address: what comes for this side of the interface.
pub const INGRESS_DEST: &str = "acctd_ingress_dest";
/// Egress, source address: what this side of the interface sends.
pub const EGRESS_SOURCE: &str = "acctd_egress_source";
/// Egress, destination address: what goes beyond the interface.
pub const EGRESS_DEST: &str = "acctd_egress_dest";

/// Global: the prefix length to account IPv4 addresses to, 0 to 32.
pub const IP4_PREFIX_LENGTH: &str = "IP4_PREFIX_LENGTH";
/// Global: the prefix length to account IPv6 addresses to, 0 to 128.
pub const IP6_PREFIX_LENGTH: &str = "IP6_PREFIX_LENGTH";
/// Global: which families and sides have an NFLOG group, as bits numbered by [`accounted_bit`].
pub const ACCOUNTED: &str = "ACCOUNTED";
/// Global: 1 to log each packet through aya-log.
pub const DEBUG: &str = "DEBUG";
/// Global: 1 to count [`reason::SEGMENTS`] per prefix. An object that has it counts them.
pub const WIRE: &str = "WIRE";
/// Global: 1 if the kernel checks the IPv6 option IOAM (Linux 5.15).
pub const IOAM: &str = "IOAM";

/// Epochs that may be in use at once: two are open, others are drained or are ahead.
pub const SLOTS: u32 = 8;
/// Slots that a packet may be ahead of the oldest.
pub const MAX_STEPS: u32 = 5;

/// [`CLOCK`] at 0 to `SLOTS - 1`: the end of each slot's epoch, in nanoseconds of Unix time.
/// Here: the slot of the oldest open epoch.
pub const CLOCK_OLDEST: u32 = SLOTS;
/// Here: what to add to `bpf_ktime_get_ns()` to get Unix time.
pub const CLOCK_OFFSET: u32 = SLOTS + 1;
/// The entries of [`CLOCK`].
pub const CLOCK_ENTRIES: u32 = SLOTS + 2;

/// On egress a packet is logged before it reaches TC. Its time at TC is set back by more than this usually
/// takes, so that it is never later than NFLOG's. Then a packet near an epoch's end can only be early in TC's
/// count, never late. A forwarded packet is stamped before it waits in the CPU's backlog
/// (`net.core.netdev_tstamp_prequeue`) for ksoftirqd, which on a busy machine waits for other processes.
pub const EGRESS_LEAD_NANOS: u64 = 50_000_000;
/// How long before an epoch's end a packet without a common time stamp is uncertain, if NFLOG stamps
/// it in the kernel: no less than [`EGRESS_LEAD_NANOS`].
pub const NEAR_END_NANOS: u64 = 50_000_000;
/// The same if NFLOG does not stamp it (hooks output and postrouting). Then its time is that of the receive:
/// later by the group's flush timeout of 0.1 s, the reader's pause, and a reserve.
pub const BEFORE_END_NANOS: u64 = 250_000_000;

/// [`EpochKey::side`]: the source address.
pub const SIDE_SOURCE: u8 = 0;
/// [`EpochKey::side`]: the destination address.
pub const SIDE_DEST: u8 = 1;

/// The bit of [`ACCOUNTED`] for an IP version (4 or 6) and a side.
#[must_use]
pub const fn accounted_bit(version: u8, side: u8) -> u8 {
    1 << ((version & 2) | side)
}

/// A key of an epoch's map: a prefix, or a [`reason`] why packets have none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochKey {
    /// 4 or 6; 0 for packets that are neither.
    pub version: u8,
    /// [`SIDE_SOURCE`] or [`SIDE_DEST`].
    pub side: u8,
    /// 0 for a prefix, else one of [`reason`].
    pub reason: u8,
    /// Zero.
    pub padding: u8,
    /// The masked address in network order; IPv4 in the first four bytes. Zero with a reason, but for
    /// [`reason::SEGMENTS`] with [`WIRE`].
    pub address: [u8; 16],
}

const _: () = assert!(size_of::<EpochKey>() == 20);

/// Why a packet is counted for no prefix ([`EpochKey::reason`]). Unless stated otherwise, the packets of a
/// reason are in no prefix's count, and their bytes are those of the frame.
pub mod reason {
    /// The entry is a prefix.
    pub const NONE: u8 = 0;
    /// Neither IPv4 nor IPv6: ARP, for instance. Version 0.
    pub const NOT_IP: u8 = 1;
    /// Ingress: a frame for another host's Ethernet address, which is not in [`super::ADDRESSES`] either.
    pub const OTHER_HOST: u8 = 2;
    /// A header of another version than the frame says. Ingress: one that `ip_rcv` or `ipv6_rcv`
    /// discards for its length or addresses.
    pub const BAD_HEADER: u8 = 3;
    /// Ingress: the IPv4 header's checksum is wrong.
    pub const BAD_CHECKSUM: u8 = 4;
    /// The frame ends before the packet does, or before its IP header does.
    pub const TRUNCATED: u8 = 5;
    /// Ingress: IPv6 hop-by-hop options that `ipv6_parse_hopopts` rejects.
    pub const BAD_OPTIONS: u8 = 6;
    /// Ingress: a VLAN tag for which the interface has no device.
    pub const UNKNOWN_VLAN: u8 = 7;
    /// The map has no room for the prefix. Bytes as for a prefix.
    pub const OVERFLOW: u8 = 8;
    /// No NFLOG group accounts this family and side. Bytes as for a prefix.
    pub const UNACCOUNTED: u8 = 9;
    /// Counted for its prefix too, there without bytes, as NFLOG does: the header has no length.
    pub const WITHOUT_LENGTH: u8 = 10;
    /// Counted for its prefix too: a packet of several segments, which is split later (GSO) or was merged before
    /// (GRO). Packets: the number of segments, less 1. Bytes: the IP and transport headers of as many.
    pub const SEGMENTS: u8 = 11;
    /// One more than the last.
    pub const END: u8 = 12;
}

use crate::Counters;

/// What an epoch's map holds for a key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpochValue {
    /// All packets; bytes as [`Counters::bytes`] defines them.
    pub total: Counters,
    /// Those within [`NEAR_END_NANOS`] of the epoch's end whose time is not NFLOG's own stamp
    /// (all of egress), and the fragments among the others: they may be reassembled after the end.
    pub near_end: Counters,
    /// Those within [`BEFORE_END_NANOS`] of the epoch's end.
    pub before_end: Counters,
    /// What reassembly removes: the fragments that are not the first, and the bytes of their headers (of an IPv6
    /// first fragment: the 8 bytes of the fragment header).
    pub fragments: Counters,
}

const _: () = assert!(size_of::<EpochValue>() == 64);

impl EpochValue {
    /// Adds `other` to `self`, saturating.
    pub fn add(&mut self, other: &Self) {
        self.total.add(other.total);
        self.near_end.add(other.near_end);
        self.before_end.add(other.before_end);
        self.fragments.add(other.fragments);
    }
}

/// The key of [`VLANS`]; the value is the index of the VLAN device.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VlanKey {
    /// The index of the device below.
    pub device: u32,
    /// The VLAN id, 1 to 4095.
    pub vlan: u32,
}

/// The key of [`ADDRESSES`]; the value is 1.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressKey {
    /// The index of the interface.
    pub device: u32,
    /// The Ethernet address.
    pub address: [u8; 6],
    /// Zero.
    pub padding: [u8; 2],
}

const _: () = assert!(size_of::<AddressKey>() == 12);
