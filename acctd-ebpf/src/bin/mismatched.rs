//! For the tests: a program that breaks the map contract. Its keys are bare addresses.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
#[expect(unsafe_code, reason = "a section for the loader")]
#[path = "../support.rs"]
mod support;

#[cfg(target_arch = "bpf")]
mod program {
    use acctd_common::contract::{CLOCK_ENTRIES, SLOTS};
    use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
    use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap};
    use aya_ebpf::macros::{btf_map, classifier};
    use aya_ebpf::programs::TcContext;

    type Epoch = HashMap<u32, u64, 1, { BPF_F_NO_PREALLOC as usize }>;

    #[btf_map]
    static ACCTD_EPOCHS: ArrayOfMaps<Epoch, { SLOTS as usize }> = ArrayOfMaps::new();

    #[btf_map]
    static ACCTD_CLOCK: Array<u64, { CLOCK_ENTRIES as usize }> = Array::new();

    #[classifier]
    fn acctd_ingress_source(_ctx: TcContext) -> i32 {
        count();
        -1
    }

    #[classifier]
    fn acctd_egress_dest(_ctx: TcContext) -> i32 {
        count();
        -1
    }

    #[inline(always)]
    fn count() {
        let slot = ACCTD_CLOCK.get(0).map_or(0, |_| 0);
        if let Some(epoch) = ACCTD_EPOCHS.get(slot) {
            let _counted = epoch.insert(1_u32, 1_u64, 0);
        }
    }
}

/// There is nothing to run on the host: `cargo xtask build-ebpf` builds the program.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
