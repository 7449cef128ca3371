//! Single Ethernet frames, each as odd as a test of a packet parser needs it.
//! All is valid but what is forced: a struct's fields are what a frame says,
//! `None` is what is right.
//!
//! ```
//! use testkit::{craft::{Ethernet, Ipv4, VlanTag}, mac::MacAddr};
//!
//! let packet = Ipv4 {
//!     total_length: Some(0),
//!     ..Ipv4::udp([192, 0, 2, 1], [198, 51, 100, 2], b"payload")
//! }
//! .packet();
//! let frame = Ethernet {
//!     tags: vec![VlanTag::service(5), VlanTag::customer(7)],
//!     ..Ethernet::to(MacAddr([2, 0, 0, 0, 0, 1]))
//! }
//! .frame(&packet);
//! assert_eq!(frame.ip_length(), 0);
//! assert_eq!(frame.bytes().len(), 14 + 2 * 4 + 20 + 8 + 7);
//! ```
//!
//! No library makes these: `etherparse`, for one, writes versions, header
//! lengths and the order of extension headers itself, so that every malformed
//! frame would be a valid one of its, patched here.

mod ethernet;
mod ipv4;
mod ipv6;
mod packet;
mod template;

pub use ethernet::{ANOTHER_HOST, BROADCAST, Ethernet, Frame, VlanTag, multicast_mac};
pub use ipv4::Ipv4;
pub use ipv6::{Extension, Ipv6};
pub use packet::{Fragment, Packet, Payload};

pub(crate) use packet::Family;
pub(crate) use template::Template;
