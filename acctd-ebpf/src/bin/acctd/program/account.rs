//! Counts one packet in its epoch's map.

use acctd_common::Counters;
use acctd_common::contract::{EpochKey, EpochValue, accounted_bit, reason};
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;
use aya_log_ebpf::info;

use crate::atomic::atomic_add;

use super::clock::{self, Place};
use super::hook::{Hook, Side};
use super::maps::{
    ACCOUNTED, ACCTD_EPOCHS, DEBUG, Epoch, IP4_PREFIX_LENGTH, IP6_PREFIX_LENGTH, WIRE,
};
use super::packet::{self, Counted, Header, Reason, Version};
use super::sample::sample;
use super::{ip4, ip6, segments};

/// Counts the packet. acctd adds the epochs' maps before it attaches the programs.
#[inline(always)]
pub(super) fn account(ctx: &TcContext, hook: Hook, side: Side) {
    let Some(place) = clock::place(ctx, hook) else {
        return;
    };
    let Some(epoch) = ACCTD_EPOCHS.get(place.slot) else {
        return;
    };
    let mut key = EpochKey {
        side: side.number(),
        ..EpochKey::default()
    };
    match read(ctx, hook, side, &mut key.version) {
        Ok((counted, header)) => {
            if count(ctx, epoch, place, key, &counted, header) {
                sample(ctx, header, hook, place, &key);
            }
        }
        Err(reason) => count_reason(epoch, key, reason, frame_bytes(ctx)),
    }
    if DEBUG.load() != 0 {
        log(ctx);
    }
}

#[inline(always)]
fn read(
    ctx: &TcContext,
    hook: Hook,
    side: Side,
    version: &mut u8,
) -> Result<(Counted, Header), Reason> {
    let (found, header) = packet::find(ctx, hook)?;
    let counted = match found {
        Version::Ip4 => {
            *version = 4;
            ip4::read(ctx, header, hook, side)?
        }
        Version::Ip6 => {
            *version = 6;
            ip6::read(ctx, header, hook, side)?
        }
    };
    Ok((counted, header))
}

/// Returns whether it is counted for a prefix.
#[inline(always)]
fn count(
    ctx: &TcContext,
    epoch: &Epoch,
    place: Place,
    key: EpochKey,
    packet: &Counted,
    header: Header,
) -> bool {
    let bytes = packet.bytes.unwrap_or(0);
    if ACCOUNTED.load() & accounted_bit(key.version, key.side) == 0 {
        count_reason(epoch, key, reason::UNACCOUNTED, bytes);
        return false;
    }
    if packet.bytes.is_none() {
        count_reason(epoch, key, reason::WITHOUT_LENGTH, frame_bytes(ctx));
    }
    let one = Counters { bytes, packets: 1 };
    let none = Counters::default();
    let value = EpochValue {
        total: one,
        near_end: if place.is_near_end(packet.fragment.is_some()) {
            one
        } else {
            none
        },
        before_end: if place.is_before_end() { one } else { none },
        fragments: match &packet.fragment {
            None => none,
            Some(fragment) => Counters {
                bytes: fragment.header_bytes,
                packets: u64::from(!fragment.is_first),
            },
        },
    };
    let prefix = EpochKey {
        address: mask(key.version, packet.address),
        ..key
    };
    if DEBUG.load() != 0 {
        note_for_log(&prefix, bytes);
    }
    if !add(epoch, &prefix, &value) {
        count_reason(epoch, key, reason::OVERFLOW, bytes);
    }
    if let Some(more) = segments::beyond_the_first(ctx, header, key.version, bytes) {
        count_segments(epoch, &prefix, more);
    }
    true
}

#[inline(always)]
fn count_segments(epoch: &Epoch, prefix: &EpochKey, more: Counters) {
    let value = EpochValue {
        total: more,
        ..EpochValue::default()
    };
    let key = EpochKey {
        reason: reason::SEGMENTS,
        ..*prefix
    };
    if WIRE.load() == 0 || !add(epoch, &key, &value) {
        let key = EpochKey {
            address: [0; 16],
            ..key
        };
        // acctd has added the entry.
        let _counted = add_to_existing(epoch, &key, &value);
    }
}

#[inline(always)]
fn mask(version: u8, address: [u8; 16]) -> [u8; 16] {
    let length = if version == 4 {
        IP4_PREFIX_LENGTH.load()
    } else {
        IP6_PREFIX_LENGTH.load()
    };
    let (high, low) = halves(address);
    halves_to_address(
        high & half_mask(length),
        low & half_mask(length.saturating_sub(64)),
    )
}

/// The mask of the first `length` bits of 64.
#[inline(always)]
fn half_mask(length: u8) -> u64 {
    match length {
        0 => 0,
        1..=63 => u64::MAX << (64 - length),
        _ => u64::MAX,
    }
}

#[inline(always)]
fn halves(address: [u8; 16]) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    (
        u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        u64::from_be_bytes([i, j, k, l, m, n, o, p]),
    )
}

#[inline(always)]
fn halves_to_address(high: u64, low: u64) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h] = high.to_be_bytes();
    let [i, j, k, l, m, n, o, p] = low.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

#[inline(always)]
fn count_reason(epoch: &Epoch, key: EpochKey, reason: Reason, bytes: u64) {
    let key = EpochKey { reason, ..key };
    let value = EpochValue {
        total: Counters { bytes, packets: 1 },
        ..EpochValue::default()
    };
    // acctd has added the entry, so this cannot fail.
    let _counted = add(epoch, &key, &value);
}

/// Adds to the key's entry, creating it if necessary; false if there is no room.
#[inline(always)]
fn add(epoch: &Epoch, key: &EpochKey, value: &EpochValue) -> bool {
    if add_to_existing(epoch, key, value) {
        return true;
    }
    // Another CPU may create it meanwhile.
    epoch.insert(key, value, u64::from(BPF_NOEXIST)).is_ok() || add_to_existing(epoch, key, value)
}

#[inline(always)]
fn add_to_existing(epoch: &Epoch, key: &EpochKey, value: &EpochValue) -> bool {
    let Some(existing) = epoch.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: the entry is valid while the program runs, because nobody removes entries. Other CPUs add to it at
    // the same time, atomically as well.
    unsafe {
        add_counters(&raw mut (*existing).total, value.total);
        add_counters(&raw mut (*existing).near_end, value.near_end);
        add_counters(&raw mut (*existing).before_end, value.before_end);
        add_counters(&raw mut (*existing).fragments, value.fragments);
    }
    true
}

/// # Safety
///
/// `counters` must point to counters that are only changed atomically while this runs.
#[inline(always)]
unsafe fn add_counters(counters: *mut Counters, more: Counters) {
    // Usually only the total changes.
    if more.bytes != 0 {
        // SAFETY: the caller's.
        unsafe { atomic_add(&raw mut (*counters).bytes, more.bytes) };
    }
    if more.packets != 0 {
        // SAFETY: the caller's.
        unsafe { atomic_add(&raw mut (*counters).packets, more.packets) };
    }
}

#[inline(always)]
fn frame_bytes(ctx: &TcContext) -> u64 {
    u64::from(ctx.len())
}

/// The packet to log with `DEBUG`; not part of the contract.
#[btf_map]
static LOG_RECORD: PerCpuArray<LogRecord, 1> = PerCpuArray::new();

/// A packet to log after it is counted. It is kept in a map, whose content the verifier does not track. So the
/// verifier checks the long code of aya-log once, and not again for each path that leads there.
#[repr(C)]
#[derive(Clone, Copy)]
struct LogRecord {
    bytes: u64,
    is_new: u64,
    prefix: EpochKey,
}

#[inline(always)]
fn note_for_log(prefix: &EpochKey, bytes: u64) {
    let Some(record) = LOG_RECORD.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the memory is this CPU's own, TC programs run with bottom halves off, and one run of
    // them logs one packet.
    unsafe {
        record.write_volatile(LogRecord {
            bytes,
            is_new: 1,
            prefix: *prefix,
        });
    }
}

/// As acctd logs a packet that came by NFLOG.
#[inline(always)]
fn log(ctx: &TcContext) {
    let Some(place) = LOG_RECORD.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: as above.
    let record = unsafe { place.read_volatile() };
    if record.is_new == 0 {
        return;
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*place).is_new).write_volatile(0) };
    let LogRecord { bytes, prefix, .. } = record;
    let (high, _) = halves(prefix.address);
    if prefix.version == 4 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the address is in the upper half"
        )]
        let address = (high >> 32) as u32;
        info!(
            ctx,
            "TC side {} Addr {:i} Size {}", prefix.side, address, bytes
        );
    } else {
        info!(
            ctx,
            "TC side {} Addr {:i} Size {}", prefix.side, prefix.address, bytes
        );
    }
}
