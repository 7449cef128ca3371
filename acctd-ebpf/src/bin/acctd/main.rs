//! The cross-check's TC programs: they count IP packets per prefix, in the kernel, as
//! `acctd_common::contract` defines it. They change and drop nothing.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
#[expect(unsafe_code, reason = "an instruction that the language does not give")]
#[path = "../../atomic.rs"]
mod atomic;

#[cfg(target_arch = "bpf")]
#[expect(unsafe_code, reason = "a section for the loader")]
#[path = "../../support.rs"]
mod support;

#[cfg(target_arch = "bpf")]
#[expect(
    unsafe_code,
    reason = "maps, helpers and the packet's descriptor are pointers that the verifier checks"
)]
mod program {
    mod account;
    mod clock;
    mod hook;
    mod maps;
    mod packet;

    mod ip4;
    mod ip6;
    mod sample;
    mod segments;

    use aya_ebpf::macros::classifier;
    use aya_ebpf::programs::TcContext;

    use account::account;
    use hook::{Hook, Side};

    /// `TCX_NEXT`, `TC_ACT_UNSPEC`: acctd only counts, other programs on the hook decide.
    const PASS_ON: i32 = -1;

    #[classifier]
    fn acctd_ingress_source(ctx: TcContext) -> i32 {
        account(&ctx, Hook::Ingress, Side::Source);
        PASS_ON
    }

    #[classifier]
    fn acctd_ingress_dest(ctx: TcContext) -> i32 {
        account(&ctx, Hook::Ingress, Side::Dest);
        PASS_ON
    }

    #[classifier]
    fn acctd_egress_source(ctx: TcContext) -> i32 {
        account(&ctx, Hook::Egress, Side::Source);
        PASS_ON
    }

    #[classifier]
    fn acctd_egress_dest(ctx: TcContext) -> i32 {
        account(&ctx, Hook::Egress, Side::Dest);
        PASS_ON
    }
}

/// There is nothing to run on the host: `cargo xtask build-ebpf` builds the program.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
