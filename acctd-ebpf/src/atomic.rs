//! Atomic addition.

use core::arch::asm;

/// Adds to a number that other CPUs add to as well. Rust's `AtomicU64` has no `fetch_add` on this
/// target, which lacks compare-and-swap in its older versions; the instruction is as old as eBPF.
///
/// # Safety
///
/// `number` must be valid, and only be changed atomically while this runs.
#[inline(always)]
pub(crate) unsafe fn atomic_add(number: *mut u64, more: u64) {
    // SAFETY: it writes only to `number`.
    unsafe {
        asm!(
            "lock *(u64 *)({number} + 0) += {more}",
            number = in(reg) number,
            more = in(reg) more,
        );
    }
}
