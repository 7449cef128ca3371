//! Which epoch a packet belongs to.

use acctd_common::contract::{
    BEFORE_END_NANOS, CLOCK_OFFSET, CLOCK_OLDEST, EGRESS_LEAD_NANOS, MAX_STEPS, NEAR_END_NANOS,
    SLOTS,
};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::programs::TcContext;

use super::hook::Hook;
use super::maps::ACCTD_CLOCK;

/// A packet's place in time.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The slot of its epoch.
    pub(super) slot: u32,
    /// Nanoseconds of Unix time.
    pub(super) time: u64,
    /// Nanoseconds until that epoch's end.
    until_end: u64,
    /// NFLOG reports the same time stamp.
    pub(super) is_stamped: bool,
}

impl Place {
    /// Whether a packet that NFLOG stamps in the kernel may be in the next epoch for NFLOG.
    #[inline(always)]
    pub(super) fn is_near_end(self, is_fragment: bool) -> bool {
        (!self.is_stamped || is_fragment) && self.until_end <= NEAR_END_NANOS
    }

    /// The same for a packet whose time at NFLOG is that of the receive.
    #[inline(always)]
    pub(super) fn is_before_end(self) -> bool {
        self.until_end <= BEFORE_END_NANOS
    }
}

#[inline(always)]
pub(super) fn place(ctx: &TcContext, hook: Hook) -> Option<Place> {
    // SAFETY: the kernel gives the program a descriptor that is valid while it runs.
    let stamp = unsafe { (*ctx.skb.skb).tstamp };
    // On egress `tstamp` is the time to send the packet at, by another clock.
    let is_stamped = matches!(hook, Hook::Ingress) && stamp != 0;
    let time = if is_stamped {
        stamp
    } else {
        // SAFETY: a helper without arguments.
        let uptime = unsafe { bpf_ktime_get_ns() };
        let now = uptime.wrapping_add(clock(CLOCK_OFFSET)?);
        match hook {
            Hook::Ingress => now,
            Hook::Egress => now.wrapping_sub(EGRESS_LEAD_NANOS),
        }
    };
    #[expect(clippy::cast_possible_truncation, reason = "acctd stores a slot there")]
    let mut slot = clock(CLOCK_OLDEST)? as u32 % SLOTS;
    let mut end = clock(slot)?;
    for _ in 0..MAX_STEPS {
        if time < end {
            break;
        }
        slot = (slot + 1) % SLOTS;
        end = clock(slot)?;
    }
    Some(Place {
        slot,
        time,
        until_end: end.saturating_sub(time),
        is_stamped,
    })
}

#[inline(always)]
fn clock(index: u32) -> Option<u64> {
    let value = ACCTD_CLOCK.get_ptr(index)?;
    // SAFETY: the pointer is to an element of an array map. acctd changes it while the program
    // runs, so it is read once, and whole.
    Some(unsafe { value.read_volatile() })
}
