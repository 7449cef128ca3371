//! Nice values of threads.

/// Lowers the priority of this thread below the readers'. Linux has a nice value per thread, and always allows
/// to raise it. The readers inherit theirs from the first thread of the process.
pub(crate) fn yield_to_readers() {
    raise_nice_value(|above_readers| above_readers.min(0));
}

/// As [`yield_to_readers`], and never before other programs: for work that clients can cause without limit.
pub(crate) fn yield_to_readers_and_others() {
    raise_nice_value(|above_readers| above_readers.max(0));
}

fn raise_nice_value(limit: impl Fn(i32) -> i32) {
    let this_thread = Some(rustix::thread::gettid());
    let first_thread = Some(rustix::process::getpid());
    let nice_value = rustix::process::getpriority_process;
    let (Ok(own), Ok(readers)) = (nice_value(this_thread), nice_value(first_thread)) else {
        return;
    };
    let wanted = limit(readers + ABOVE_READERS);
    if own < wanted {
        // If it fails, the thread works at the readers' priority.
        let _ignored = rustix::process::setpriority_process(this_thread, wanted);
    }
}

/// How far the nice value of the thread that sorts and writes is above the readers', up to 0. If both want all
/// of a core, the readers get three quarters: a file may be late, but a packet cannot wait. With a larger
/// difference, the writer would fall further behind with each interval when CPU is short.
const ABOVE_READERS: i32 = 5;
