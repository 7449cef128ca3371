//! A restart without loss: sockets and positions pass from one process to the next.

pub mod checksummed;
pub mod handover;
#[expect(unsafe_code, reason = "makes owned descriptors of numbers")]
pub mod inherited;
pub(crate) mod systemd;
