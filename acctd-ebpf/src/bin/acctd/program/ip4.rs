//! IPv4: which packets `ip_rcv_core` (net/ipv4/ip_input.c) accepts, and what is counted of them.

use acctd_common::contract::reason;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;

use super::hook::{Hook, Side};
use super::packet::{Counted, Fragment, Header, Reason};

/// The header without options, as 32-bit words.
const WORDS: u32 = 5;
const MAX_OPTION_WORDS: u32 = 10;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

#[inline(always)]
pub(super) fn read(ctx: &TcContext, at: Header, hook: Hook, side: Side) -> Result<Counted, Reason> {
    let words: [u32; WORDS as usize] = at.load_or_pull(ctx, 0).ok_or(reason::TRUNCATED)?;
    let first = u32::from_be(words[0]);
    let header_words = first >> 24 & 0xf;
    let total = first & 0xffff;
    // SAFETY: the kernel gives the program a descriptor that is valid while it runs.
    let is_gso = unsafe { (*ctx.skb.skb).gso_size } != 0;
    if first >> 28 != 4 {
        return Err(reason::BAD_HEADER);
    }
    if matches!(hook, Hook::Ingress) {
        if header_words < WORDS {
            return Err(reason::BAD_HEADER);
        }
        if !checksum_is_right(ctx, at, &words, header_words)? {
            return Err(reason::BAD_CHECKSUM);
        }
        if total < header_words * 4 && !(total == 0 && is_gso) {
            return Err(reason::BAD_HEADER);
        }
        if !at.has(ctx, total) {
            return Err(reason::TRUNCATED);
        }
    }
    let address = match side {
        Side::Source => words[3],
        Side::Dest => words[4],
    };
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
    let fragment = u32::from_be(words[1]) as u16;
    let is_first = fragment & FRAGMENT_OFFSET == 0;
    let mut key = [0; 16];
    key[..4].copy_from_slice(&address.to_ne_bytes());
    Ok(Counted {
        address: key,
        bytes: (total != 0).then_some(u64::from(total)),
        fragment: (fragment & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0).then_some(Fragment {
            is_first,
            header_bytes: if is_first {
                0
            } else {
                u64::from(header_words * 4)
            },
        }),
    })
}

/// RFC 1071: the ones' complement sum over the header is 0xffff, in any byte order.
#[inline(always)]
fn checksum_is_right(
    ctx: &TcContext,
    at: Header,
    words: &[u32; WORDS as usize],
    header_words: u32,
) -> Result<bool, Reason> {
    let mut sum: u64 = 0;
    for word in words {
        sum += u64::from(*word);
    }
    if header_words > WORDS {
        // SAFETY: the kernel's descriptor, as it gave it to the program.
        let options = unsafe {
            acctd_sum_of_ip4_options(ctx.skb.skb, at.start, at.offset, header_words - WORDS)
        };
        if options == CANNOT_READ {
            return Err(reason::TRUNCATED);
        }
        sum += options;
    }
    sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    Ok(sum == 0xffff)
}

/// No sum of options is as large.
const CANNOT_READ: u64 = u64::MAX;

/// A global function, as `acctd_find_fragment` of IPv6.
///
/// # Safety
///
/// `skb` must be the descriptor of the packet that is read.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn acctd_sum_of_ip4_options(
    skb: *mut __sk_buff,
    start: u32,
    offset: u32,
    n_words: u32,
) -> u64 {
    let ctx = TcContext::new(skb);
    let at = Header { start, offset };
    let mut sum = 0;
    for option in 0..MAX_OPTION_WORDS {
        if option >= n_words {
            break;
        }
        let Some(word) = at.load_or_pull::<u32>(&ctx, (WORDS + option) * 4) else {
            return CANNOT_READ;
        };
        sum += u64::from(word);
    }
    sum
}
