//! What becomes of the groups when acctd ends.

/// How acctd parts with its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// It lets go of them: the kernel hands over what it holds, and logs nothing more.
    Unbind,
    /// It leaves them to the next acctd, for which the kernel goes on logging.
    KeepBound,
}
