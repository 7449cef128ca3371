//! Whether something synchronises the kernel's clock (adjtimex(2)).

/// `None` if the kernel does not say.
#[must_use]
pub fn is_synchronised() -> Option<bool> {
    // SAFETY: a struct of integers, for which zero is a value.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: it is valid for reads and writes; without modes nothing is set.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    (state >= 0).then_some(state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0)
}
