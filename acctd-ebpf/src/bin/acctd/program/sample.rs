//! Packets for `acctd explain`, while it asks for them (`acctd_common::sample`).

use core::mem::MaybeUninit;

use acctd_common::contract::{EpochKey, SIDE_SOURCE};
use acctd_common::sample::{
    ASKED_BITS, AskedKey, EGRESS, HEADER_BYTES, MAX_ASKED, RING_BYTES, STAMPED, Sample, Sampling,
    WINDOW_NANOS, Window,
};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{LpmTrie, RingBuf};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;

use crate::atomic::atomic_add;

use super::clock::Place;
use super::hook::Hook;
use super::packet::Header;

#[btf_map]
static ACCTD_ASKED: LpmTrie<AskedKey, u32, { MAX_ASKED as usize }> = LpmTrie::new();

#[btf_map]
static ACCTD_SAMPLES: RingBuf<Sample, { RING_BYTES as usize }> = RingBuf::new();

#[unsafe(no_mangle)]
static mut ACCTD_SAMPLING: Sampling = Sampling {
    limit: 0,
    n_lost: 0,
    windows: [Window {
        number: 0,
        n_sampled: 0,
    }; 2],
};

/// What of a packet's way a function takes in one number.
const SIDE_SHIFT: u32 = 8;
const FLAGS_SHIFT: u32 = 16;

const KEY_WORDS: usize = size_of::<Key<AskedKey>>() / size_of::<u32>();

/// Samples the packet if it is asked for. `key` has its version and side.
#[inline(always)]
pub(super) fn sample(ctx: &TcContext, at: Header, hook: Hook, place: Place, key: &EpochKey) {
    // SAFETY: acctd changes it while programs run, so it is read once, and whole.
    if unsafe { (&raw const ACCTD_SAMPLING.limit).read_volatile() } == 0 {
        return;
    }
    let flags = match hook {
        Hook::Ingress => 0,
        Hook::Egress => EGRESS,
    } | if place.is_stamped { STAMPED } else { 0 };
    let packed = u32::from(key.version)
        | u32::from(key.side) << SIDE_SHIFT
        | u32::from(flags) << FLAGS_SHIFT;
    // SAFETY: the kernel's descriptor, as it gave it to the program.
    unsafe { acctd_sample(ctx.skb.skb, at.start, at.offset, place.time, packed) };
}

/// Puts the packet into the ring buffer, unless nobody asks for its address or its window is full. A global function, as `acctd_find_fragment` of
/// IPv6.
///
/// # Safety
///
/// `skb` must be the descriptor of the packet that is read.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn acctd_sample(
    skb: *mut __sk_buff,
    start: u32,
    offset: u32,
    time: u64,
    packed: u32,
) -> u64 {
    const WORD: usize = 4;
    let [version, side, flags, _] = packed.to_le_bytes();
    let ctx = TcContext::new(skb);
    let at = Header { start, offset };
    if !is_asked_for(&ctx, at, version, side) || !has_room(flags & EGRESS != 0, time) {
        return 0;
    }
    let Some(mut entry) = ACCTD_SAMPLES.reserve(0) else {
        // SAFETY: the global is only changed atomically while programs run, or as a whole.
        unsafe { atomic_add(&raw mut ACCTD_SAMPLING.n_lost, 1) };
        return 0;
    };
    let sample = entry.as_mut_ptr();
    // SAFETY: the kernel gives the program a descriptor that is valid while it runs, and the entry has room for a sample,
    // of which all is written here and below.
    unsafe {
        let tag = if (*skb).vlan_present != 0 {
            (*skb).vlan_tci
        } else {
            0
        };
        (&raw mut (*sample).time).write(time);
        (&raw mut (*sample).interface).write((*skb).ifindex);
        (&raw mut (*sample).bytes).write((*skb).len);
        (&raw mut (*sample).mark).write((*skb).mark);
        (&raw mut (*sample).segments).write((*skb).gso_segs);
        (&raw mut (*sample).vlan).write(tag as u16);
        (&raw mut (*sample).packet_type).write((*skb).pkt_type as u8);
        (&raw mut (*sample).flags).write(flags);
        (&raw mut (*sample).version).write(version);
        (&raw mut (*sample).side).write(side);
        (&raw mut (*sample).padding).write(0);
    }
    let mut n_read = 0;
    let mut is_over = false;
    for word in 0..HEADER_BYTES / WORD {
        let mut bytes = [0_u8; WORD];
        if !is_over {
            match at.load(&ctx, (word * WORD) as u32) {
                Some(read) => {
                    bytes = read;
                    n_read += WORD as u8;
                }
                None => is_over = true,
            }
        }
        // SAFETY: as above.
        unsafe {
            (&raw mut (*sample).header[word * WORD])
                .cast::<[u8; WORD]>()
                .write(bytes)
        };
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*sample).header_bytes).write(n_read) };
    entry.submit(0);
    0
}

/// The prefix to which it is accounted may be shorter than what is asked for, so this reads the address again.
#[inline(always)]
fn is_asked_for(ctx: &TcContext, at: Header, version: u8, side: u8) -> bool {
    let mut key = MaybeUninit::<[u32; KEY_WORDS]>::uninit();
    let words = key.as_mut_ptr().cast::<u32>();
    // The address is read into its place, and zeros are volatile: a copy, or a call of memset, takes more of the 512
    // bytes of stack that a program and its functions have.
    // SAFETY: the words are the number of bits, what the address is, and room for an address of either version. All are
    // written before they are used as a key, which consists of bytes.
    unsafe {
        words.write_volatile(ASKED_BITS + 128);
        words
            .add(1)
            .write_volatile(u32::from_le_bytes([version, side, 0, 0]));
        for word in 2..KEY_WORDS {
            words.add(word).write_volatile(0);
        }
        let address = words.add(2);
        let is_read = if version == 4 {
            let offset = if side == SIDE_SOURCE { 12 } else { 16 };
            at.read(ctx, offset, &mut *address.cast::<MaybeUninit<[u8; 4]>>())
        } else {
            let offset = if side == SIDE_SOURCE { 8 } else { 24 };
            at.read(ctx, offset, &mut *address.cast::<MaybeUninit<[u8; 16]>>())
        };
        is_read && ACCTD_ASKED.get(&*words.cast::<Key<AskedKey>>()).is_some()
    }
}

/// Whether the hook's window has room, of which the packet then takes some. Other CPUs may do so at the same time, so
/// there may be some samples more than the limit.
#[inline(always)]
fn has_room(is_egress: bool, time: u64) -> bool {
    let number = time / WINDOW_NANOS;
    // SAFETY: each part is read or written whole.
    unsafe {
        let window = if is_egress {
            &raw mut ACCTD_SAMPLING.windows[1]
        } else {
            &raw mut ACCTD_SAMPLING.windows[0]
        };
        // Packets of different times mix at a window's start.
        if number > (&raw const (*window).number).read_volatile() {
            (&raw mut (*window).number).write_volatile(number);
            (&raw mut (*window).n_sampled).write_volatile(0);
        }
        let limit = (&raw const ACCTD_SAMPLING.limit).read_volatile();
        if (&raw const (*window).n_sampled).read_volatile() >= limit {
            return false;
        }
        atomic_add(&raw mut (*window).n_sampled, 1);
    }
    true
}
