//! The maps and globals of the contract.

use acctd_common::contract::{AddressKey, CLOCK_ENTRIES, EpochKey, EpochValue, SLOTS, VlanKey};
use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap};
use aya_ebpf::macros::btf_map;

/// One epoch's counters. Only a template: acctd creates the maps that are used.
pub(super) type Epoch = HashMap<EpochKey, EpochValue, 1, { BPF_F_NO_PREALLOC as usize }>;

#[btf_map]
pub(super) static ACCTD_EPOCHS: ArrayOfMaps<Epoch, { SLOTS as usize }> = ArrayOfMaps::new();

#[btf_map]
pub(super) static ACCTD_CLOCK: Array<u64, { CLOCK_ENTRIES as usize }> = Array::new();

#[btf_map]
pub(super) static ACCTD_VLANS: HashMap<VlanKey, u32, 4096, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

#[btf_map]
pub(super) static ACCTD_ADDRESSES: HashMap<AddressKey, u32, 4096, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

#[unsafe(no_mangle)]
pub(super) static IP4_PREFIX_LENGTH: Global<u8> = Global::new(32);
#[unsafe(no_mangle)]
pub(super) static IP6_PREFIX_LENGTH: Global<u8> = Global::new(64);
#[unsafe(no_mangle)]
pub(super) static ACCOUNTED: Global<u8> = Global::new(0b1111);
#[unsafe(no_mangle)]
pub(super) static DEBUG: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub(super) static WIRE: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub(super) static IOAM: Global<u8> = Global::new(1);
