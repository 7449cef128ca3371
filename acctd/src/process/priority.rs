//! Nice values of threads.

/// Nice values are a thread's own on Linux, and lowering one's priority is always allowed. The readers'
/// is that of the process's first thread, which has started them.
pub(crate) fn yield_to_readers() {
    set_behind_readers(|behind| behind.min(0));
}

/// The same, and not in front of other programs either: for work that whoever can connect may ask for without end.
pub(crate) fn yield_to_readers_and_others() {
    set_behind_readers(|behind| behind.max(0));
}

fn set_behind_readers(within: impl Fn(i32) -> i32) {
    let this_thread = Some(rustix::thread::gettid());
    let first_thread = Some(rustix::process::getpid());
    let nice_value = rustix::process::getpriority_process;
    let (Ok(own), Ok(readers)) = (nice_value(this_thread), nice_value(first_thread)) else {
        return;
    };
    let wanted = within(readers + BEHIND_READERS);
    if own < wanted {
        // Should it fail, the work is done at the readers' priority.
        let _no_matter = rustix::process::setpriority_process(this_thread, wanted);
    }
}

/// By how much the nice value of the thread that sorts and writes is above the readers', up to 0: on a
/// busy core they come first, with three quarters of it where both want all. A file may be late, a packet
/// cannot wait. No more than that, or the writer gets too little where there is too little for all,
/// and falls further behind with each interval.
const BEHIND_READERS: i32 = 5;
