//! A minimal program for `acctd --crosscheck-object`: it counts IPv4 packets by their full source address, in
//! the oldest open epoch.
//!
//! A complete program also finds the epoch of a packet's time, masks the address to the prefix length that
//! acctd sets, and counts other packets in the entries of `contract::reason`.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
#[expect(unsafe_code, reason = "an instruction that the language does not give")]
#[path = "../atomic.rs"]
mod atomic;

#[cfg(target_arch = "bpf")]
#[expect(unsafe_code, reason = "a section for the loader")]
#[path = "../support.rs"]
mod support;

#[cfg(target_arch = "bpf")]
#[expect(
    unsafe_code,
    reason = "maps and the packet's descriptor are pointers that the verifier checks"
)]
mod program {
    use crate::atomic::atomic_add;
    use acctd_common::Counters;
    use acctd_common::contract::{
        CLOCK_ENTRIES, CLOCK_OLDEST, EpochKey, EpochValue, SIDE_SOURCE, SLOTS,
    };
    use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
    use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap};
    use aya_ebpf::macros::{btf_map, classifier};
    use aya_ebpf::programs::TcContext;

    type Epoch = HashMap<EpochKey, EpochValue, 1, { BPF_F_NO_PREALLOC as usize }>;

    #[btf_map]
    static ACCTD_EPOCHS: ArrayOfMaps<Epoch, { SLOTS as usize }> = ArrayOfMaps::new();

    #[btf_map]
    static ACCTD_CLOCK: Array<u64, { CLOCK_ENTRIES as usize }> = Array::new();

    #[classifier]
    fn acctd_ingress_source(ctx: TcContext) -> i32 {
        let _counted = count(&ctx);
        -1
    }

    /// Counts nothing: this example accounts only ingress.
    #[classifier]
    fn acctd_egress_dest(_ctx: TcContext) -> i32 {
        -1
    }

    #[inline(always)]
    fn count(ctx: &TcContext) -> Option<()> {
        const ETHERNET: usize = 14;
        let header: [u8; 20] = ctx.load(ETHERNET).ok()?;
        if header[0] >> 4 != 4 {
            return None;
        }
        let oldest = *ACCTD_CLOCK.get(CLOCK_OLDEST)?;
        #[expect(clippy::cast_possible_truncation, reason = "acctd stores a slot there")]
        let epoch = ACCTD_EPOCHS.get(oldest as u32)?;
        let mut key = EpochKey {
            version: 4,
            side: SIDE_SOURCE,
            ..EpochKey::default()
        };
        key.address[..4].copy_from_slice(&header[12..16]);
        let value = EpochValue {
            total: Counters {
                bytes: u16::from_be_bytes([header[2], header[3]]).into(),
                packets: 1,
            },
            ..EpochValue::default()
        };
        if epoch.insert(&key, &value, u64::from(BPF_NOEXIST)).is_err() {
            let counted = epoch.get_ptr_mut(&key)?;
            // SAFETY: the entry stays while the program runs, and is only changed atomically.
            unsafe {
                atomic_add(&raw mut (*counted).total.bytes, value.total.bytes);
                atomic_add(&raw mut (*counted).total.packets, 1);
            }
        }
        Some(())
    }
}

/// There is nothing to run on the host: `cargo xtask build-ebpf` builds the program.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
