//! What outlives one process: sockets and positions handed to the next.

pub mod checksummed;
pub mod handover;
#[expect(
    unsafe_code,
    reason = "takes descriptors over that are known by their numbers"
)]
pub mod inherited;
pub mod systemd;
