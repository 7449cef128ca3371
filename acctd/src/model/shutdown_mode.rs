//! What happens to the groups when acctd ends.

/// What happens to the groups when acctd ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// acctd unbinds them. The kernel sends what it still holds, and logs no more.
    Unbind,
    /// They stay bound. The kernel continues to log, into sockets that the next acctd takes over.
    KeepBound,
}
