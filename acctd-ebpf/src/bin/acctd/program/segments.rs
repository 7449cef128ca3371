//! Packets of several segments, which are split later (GSO) or were merged before (GRO): how much more they are.

use acctd_common::Counters;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;

use super::ip6::{self, next};
use super::packet::Header;

const UDP_HEADER: u32 = 8;
/// Hop-by-hop options, routing, destination options: more are in no packet of several segments.
const MAX_EXTENSIONS: u32 = 3;
/// `linux/in.h`.
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;

/// What the packet is on the wire beyond one packet of `bytes`: `None` if it has one segment. In a tunnel whose
/// header is between both, the inner headers are left out.
#[inline(always)]
pub(super) fn beyond_the_first(
    ctx: &TcContext,
    at: Header,
    version: u8,
    bytes: u64,
) -> Option<Counters> {
    // SAFETY: the kernel gives the program a descriptor that is valid while it runs.
    let (size, n_segments) = unsafe { ((*ctx.skb.skb).gso_size, (*ctx.skb.skb).gso_segs) };
    if size == 0 {
        return None;
    }
    // SAFETY: the kernel's descriptor, as it gave it to the program.
    let headers =
        unsafe { acctd_length_of_headers(ctx.skb.skb, at.start, at.offset, u32::from(version)) };
    let more = match n_segments {
        // A virtual machine's packet may come without the number.
        0 => bytes.saturating_sub(headers).saturating_sub(1) / u64::from(size),
        n_segments => u64::from(n_segments) - 1,
    };
    (more != 0).then_some(Counters {
        bytes: more * headers,
        packets: more,
    })
}

/// The length of the IP header with its extensions, and of the transport header. A global function, as
/// `acctd_find_fragment` of IPv6.
///
/// # Safety
///
/// `skb` must be the descriptor of the packet that is read.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn acctd_length_of_headers(
    skb: *mut __sk_buff,
    start: u32,
    offset: u32,
    version: u32,
) -> u64 {
    let ctx = TcContext::new(skb);
    let at = Header { start, offset };
    let (length, protocol) = if version == 4 {
        let first: u8 = at.load_or_pull(&ctx, 0).unwrap_or(0x45);
        let protocol = at.load_or_pull(&ctx, 9).unwrap_or(0);
        (u32::from(first & 0xf) * 4, protocol)
    } else {
        let mut length = ip6::HEADER;
        let mut protocol = at.load_or_pull(&ctx, 6).unwrap_or(next::DESTINATION);
        for _ in 0..MAX_EXTENSIONS {
            if !matches!(
                protocol,
                next::HOP_BY_HOP | next::ROUTING | next::DESTINATION
            ) {
                break;
            }
            let Some(behind) = ip6::behind_extension(&ctx, at, length) else {
                break;
            };
            (protocol, length) = behind;
        }
        (length, protocol)
    };
    let transport = match protocol {
        IPPROTO_TCP => {
            let offset: u8 = at.load_or_pull(&ctx, length + 12).unwrap_or(0x50);
            u32::from(offset >> 4) * 4
        }
        IPPROTO_UDP => UDP_HEADER,
        _ => 0,
    };
    u64::from(length + transport)
}
