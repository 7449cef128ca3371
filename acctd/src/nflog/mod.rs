//! From the kernel's NFLOG groups to single packets.

pub mod binding;
pub mod decode;
pub mod message;
pub mod network_namespace;
pub mod open;
pub mod pace;
pub mod rule_watch;
pub(crate) mod shape;
#[expect(
    unsafe_code,
    reason = "borrows the descriptor that the nflog crate gives as a number"
)]
pub mod socket;
#[expect(
    unsafe_code,
    reason = "hands values and what they point to to setsockopt, and a buffer to getsockopt"
)]
pub mod socket_option;
pub mod table;
