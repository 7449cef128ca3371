//! IPv6: which packets `ip6_rcv_core` (net/ipv6/ip6_input.c) accepts, and what is counted of them.

use acctd_common::contract::reason;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;
use core::cell::UnsafeCell;

use super::hook::{Hook, Side};
use super::maps::IOAM;
use super::packet::{Counted, Fragment, Header, Reason};

pub(super) const HEADER: u32 = 40;
/// The largest payload length in the header; a jumbo payload is longer.
const MAX_PAYLOAD: u32 = 0xffff;
const FRAGMENT_HEADER: u32 = 8;
/// The loopback device has this index in each network namespace.
const LOOPBACK_IFINDEX: u32 = 1;
/// `linux/if_packet.h`: multicast of this host, looped back.
const PACKET_LOOPBACK: u32 = 5;
/// Extension headers before the fragment header that are followed; a sane packet has two or three.
const MAX_EXTENSIONS: u32 = 6;

/// Next-header values (RFC 8200).
pub(super) mod next {
    pub(in super::super) const HOP_BY_HOP: u8 = 0;
    pub(in super::super) const ROUTING: u8 = 43;
    pub(in super::super) const FRAGMENT: u8 = 44;
    pub(in super::super) const NONE: u8 = 59;
    pub(in super::super) const DESTINATION: u8 = 60;
}

#[inline(always)]
pub(super) fn read(ctx: &TcContext, at: Header, hook: Hook, side: Side) -> Result<Counted, Reason> {
    let head: [u8; 8] = at.load_or_pull(ctx, 0).ok_or(reason::TRUNCATED)?;
    let source: [u8; 16] = at.load_or_pull(ctx, 8).ok_or(reason::TRUNCATED)?;
    let dest: [u8; 16] = at.load_or_pull(ctx, 24).ok_or(reason::TRUNCATED)?;
    let payload = u32::from(u16::from_be_bytes([head[4], head[5]]));
    let next_header = head[6];
    if head[0] >> 4 != 6 {
        return Err(reason::BAD_HEADER);
    }
    if matches!(hook, Hook::Ingress) {
        if !addresses_are_accepted(ctx, &source, &dest) {
            return Err(reason::BAD_HEADER);
        }
        if (payload != 0 || next_header != next::HOP_BY_HOP) && !at.has(ctx, HEADER + payload) {
            return Err(reason::TRUNCATED);
        }
        if next_header == next::HOP_BY_HOP && !options_are_accepted(ctx, at, payload) {
            return Err(reason::BAD_OPTIONS);
        }
    }
    let has_no_length = payload == 0 && next_header != next::NONE;
    Ok(Counted {
        address: match side {
            Side::Source => source,
            Side::Dest => dest,
        },
        bytes: (!has_no_length).then_some(u64::from(payload + HEADER)),
        fragment: find_fragment(ctx, at, next_header),
    })
}

/// A router must not forward these (RFC 4291, 2.5.3 and 2.7): the loopback address outside of the host, a
/// multicast address as the source, multicast of the scopes 0 and 1.
#[inline(always)]
fn addresses_are_accepted(ctx: &TcContext, source: &[u8; 16], dest: &[u8; 16]) -> bool {
    // SAFETY: the kernel gives the program a descriptor that is valid while it runs.
    let (device, kind) = unsafe { ((*ctx.skb.skb).ifindex, (*ctx.skb.skb).pkt_type) };
    let is_loopback_device = device == LOOPBACK_IFINDEX;
    if source[0] == 0xff {
        return false;
    }
    if dest[0] == 0xff {
        let scope = dest[1] & 0x0f;
        if scope == 0 || (scope == 1 && !is_loopback_device && kind != PACKET_LOOPBACK) {
            return false;
        }
    }
    is_loopback_device || !(is_loopback(source) || is_loopback(dest))
}

#[inline(always)]
fn is_loopback(address: &[u8; 16]) -> bool {
    u128::from_ne_bytes(*address) == 1_u128.to_be()
}

/// Follows the extension headers that may precede a fragment header.
#[inline(always)]
fn find_fragment(ctx: &TcContext, at: Header, first: u8) -> Option<Fragment> {
    if !matches!(
        first,
        next::FRAGMENT | next::HOP_BY_HOP | next::ROUTING | next::DESTINATION
    ) {
        return None;
    }
    // SAFETY: the kernel's descriptor, as it gave it to the program.
    let found = unsafe { acctd_find_fragment(ctx.skb.skb, at.start, at.offset, first.into()) };
    (found != 0).then_some(Fragment {
        is_first: found & IS_FIRST != 0,
        header_bytes: u64::from(found & !IS_FIRST),
    })
}

/// In the result of [`acctd_find_fragment`].
const IS_FIRST: u32 = 1 << 31;

/// Returns the bytes of the headers that reassembly removes, with [`IS_FIRST`]; 0 for a packet that is no fragment.
///
/// A global function: the verifier checks it once, by its signature, and not again for each call and each state that
/// a call is reached with.
///
/// # Safety
///
/// `skb` must be the descriptor of the packet that is read.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn acctd_find_fragment(
    skb: *mut __sk_buff,
    start: u32,
    offset: u32,
    first: u32,
) -> u32 {
    let at = Header { start, offset };
    follow_extensions(&TcContext::new(skb), at, first).unwrap_or(0)
}

#[inline(always)]
fn follow_extensions(ctx: &TcContext, at: Header, first: u32) -> Option<u32> {
    let mut offset = HEADER;
    #[expect(clippy::cast_possible_truncation, reason = "it was a byte")]
    let mut kind = first as u8;
    for _ in 0..MAX_EXTENSIONS {
        match kind {
            next::FRAGMENT => {
                let place: [u8; 2] = at.load_or_pull(ctx, offset + 2)?;
                let is_first = u16::from_be_bytes(place) & 0xfff8 == 0;
                return Some(if is_first {
                    IS_FIRST | FRAGMENT_HEADER
                } else {
                    offset + FRAGMENT_HEADER
                });
            }
            next::HOP_BY_HOP | next::ROUTING | next::DESTINATION => {
                (kind, offset) = behind_extension(ctx, at, offset)?;
            }
            _ => return None,
        }
    }
    None
}

/// What follows the extension header at `offset` (RFC 8200, 4.3), and where.
#[inline(always)]
pub(super) fn behind_extension(ctx: &TcContext, at: Header, offset: u32) -> Option<(u8, u32)> {
    let [following, length]: [u8; 2] = at.load_or_pull(ctx, offset)?;
    Some((following, offset + (u32::from(length) + 1) * 8))
}

/// Hop-by-hop options, as `ip6_parse_tlv` (net/ipv6/exthdrs.c) reads them.
mod option {
    pub(super) const PAD_1: u8 = 0;
    pub(super) const PAD_N: u8 = 1;
    pub(super) const ROUTER_ALERT: u8 = 5;
    pub(super) const CALIPSO: u8 = 7;
    pub(super) const IOAM: u8 = 0x31;
    pub(super) const JUMBO: u8 = 0xc2;
    /// The upper two bits say what to do with an unknown option: 0 means to skip it.
    pub(super) const IF_UNKNOWN: u8 = 0xc0;
}
/// Padding in a row, in bytes.
const MAX_PADDING: u32 = 7;
/// `net.ipv6.max_hbh_opts_number`, its default.
const MAX_OPTIONS: u32 = 8;
/// All options, with the largest padding around each, in single bytes.
const MAX_OPTION_STEPS: u32 = MAX_OPTIONS + (MAX_OPTIONS + 1) * MAX_PADDING;

/// The position in IPv6 options; not part of the contract.
#[btf_map]
static WALK: PerCpuArray<Walk, 1> = PerCpuArray::new();

/// The position in hop-by-hop options. It is kept in a map, whose content the verifier does not
/// track. So all paths through a step lead to the same state, and the verifier need not follow each path through
/// all steps.
#[repr(C)]
struct Walk {
    /// The offset of the IP header, after VLAN tags.
    header: Cell,
    /// From the IP header.
    offset: Cell,
    payload: Cell,
    end: Cell,
    padding: Cell,
    n_options: Cell,
}

impl Walk {
    #[inline(always)]
    fn start(&self, at: Header) {
        self.header.set(at.offset);
        self.offset.set(HEADER);
    }
}

/// A number that the compiler keeps in memory.
#[repr(transparent)]
struct Cell(UnsafeCell<u32>);

impl Cell {
    #[inline(always)]
    fn get(&self) -> u32 {
        // SAFETY: the memory is this CPU's own, TC programs run with bottom halves off, and one
        // run of them reads one packet.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn set(&self, value: u32) {
        // SAFETY: as above.
        unsafe { self.0.get().write_volatile(value) }
    }

    #[inline(always)]
    fn add(&self, value: u32) {
        self.set(self.get().wrapping_add(value));
    }
}

#[inline(always)]
fn options_are_accepted(ctx: &TcContext, at: Header, payload: u32) -> bool {
    let Some([_, length]) = at.load_or_pull::<[u8; 2]>(ctx, HEADER) else {
        return false;
    };
    let end = HEADER + (u32::from(length) + 1) * 8;
    // If the payload has a length, the kernel has cut off what follows it. All options must be in the linear
    // part, because they are read byte by byte.
    if (payload != 0 && end > HEADER + payload) || at.load_or_pull::<u8>(ctx, end - 1).is_none() {
        return false;
    }
    let Some(walk) = WALK.get(0) else {
        return false;
    };
    walk.start(at);
    walk.offset.add(2);
    walk.payload.set(payload);
    walk.end.set(end);
    walk.padding.set(0);
    walk.n_options.set(0);
    for _ in 0..MAX_OPTION_STEPS {
        if walk.offset.get() >= walk.end.get() {
            break;
        }
        // SAFETY: the kernel's descriptor, as it gave it to the program.
        if unsafe { acctd_option_is_accepted(ctx.skb.skb) } == 0 {
            return false;
        }
    }
    true
}

/// Reads the next option, or a piece of padding. Returns 0 if the kernel discards the packet for it.
///
/// A global function, as [`acctd_find_fragment`].
///
/// # Safety
///
/// `skb` must be the descriptor of the packet that is read.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn acctd_option_is_accepted(skb: *mut __sk_buff) -> u32 {
    let Some(walk) = WALK.get(0) else {
        return 0;
    };
    option_is_accepted(&TcContext::new(skb), walk).into()
}

#[inline(always)]
fn option_is_accepted(ctx: &TcContext, walk: &Walk) -> bool {
    let at = Header::at_network(walk.header.get());
    let offset = walk.offset.get();
    let Some(kind) = at.load::<u8>(ctx, offset) else {
        return false;
    };
    if kind == option::PAD_1 {
        walk.padding.add(1);
        walk.offset.add(1);
        return walk.padding.get() <= MAX_PADDING;
    }
    let Some(length) = at.load::<u8>(ctx, offset + 1) else {
        return false;
    };
    let length = u32::from(length);
    walk.offset.add(2 + length);
    if walk.offset.get() > walk.end.get() {
        return false;
    }
    if kind == option::PAD_N {
        walk.padding.add(2 + length);
        return walk.padding.get() <= MAX_PADDING && is_zero(ctx, at, offset + 2, length);
    }
    walk.padding.set(0);
    walk.n_options.add(1);
    let is_known = match kind {
        option::ROUTER_ALERT => length == 2,
        // Discarded unless a domain of interpretation is configured, which is rare.
        option::CALIPSO => false,
        // Only its alignment is checked, unless the device takes part in IOAM (`ioam6_enabled`).
        option::IOAM if IOAM.load() != 0 => offset & 3 == 0,
        option::JUMBO => {
            walk.payload.get() == 0
                && length == 4
                && offset & 3 == 2
                && jumbo_is_accepted(ctx, at, offset)
        }
        kind => kind & option::IF_UNKNOWN == 0,
    };
    is_known && walk.n_options.get() <= MAX_OPTIONS
}

/// A jumbo payload must be longer than the header can say, and be in the frame.
#[inline(always)]
fn jumbo_is_accepted(ctx: &TcContext, at: Header, offset: u32) -> bool {
    let Some(length) = at.load::<u32>(ctx, offset + 2).map(u32::from_be) else {
        return false;
    };
    length > MAX_PAYLOAD && at.has(ctx, length.saturating_add(HEADER))
}

/// Whether the padding, at most five bytes, is all zero, as the kernel requires.
#[inline(always)]
fn is_zero(ctx: &TcContext, at: Header, offset: u32, length: u32) -> bool {
    // One read of the eight bytes that end with the padding: there are always as many.
    at.load::<[u8; 8]>(ctx, offset + length - 8)
        .is_some_and(|bytes| u64::from_be_bytes(bytes) & ((1 << ((length & 7) * 8)) - 1) == 0)
}
