//! From the kernel's NFLOG groups to single packets.

pub(crate) mod binding;
pub mod decode;
pub mod message;
pub(crate) mod network_namespace;
pub(crate) mod open;
pub(crate) mod pace;
pub(crate) mod receive_stamps;
pub(crate) mod rule_watch;
pub(crate) mod shape;
#[expect(
    unsafe_code,
    reason = "borrows the descriptor that the nflog crate gives as a number"
)]
pub mod socket;
#[expect(unsafe_code, reason = "passes pointers to setsockopt and getsockopt")]
pub(crate) mod socket_option;
pub mod table;
