//! Finds the IP header and reads bytes of the packet.

use acctd_common::contract::{AddressKey, VlanKey, reason};
use aya_ebpf::bindings::bpf_hdr_start_off::{BPF_HDR_START_MAC, BPF_HDR_START_NET};
use aya_ebpf::helpers::bpf_skb_load_bytes_relative;
use aya_ebpf::programs::TcContext;
use core::mem::MaybeUninit;

use super::hook::Hook;
use super::maps::{ACCTD_ADDRESSES, ACCTD_VLANS};

/// `linux/if_packet.h`.
const PACKET_OTHERHOST: u32 = 3;
/// `linux/if_ether.h`.
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
/// The Ethernet header, its type at the end.
const ETHERNET: u32 = 14;
const VLAN_TAG: u32 = 4;
/// `linux/netdevice.h`: a link-layer header is no longer, on any device.
const LINK_HEADER_MAX: u32 = 128;
const VLAN_ID: u16 = 0x0fff;
/// Two tags are QinQ; more are nobody's.
const MAX_TAGS: u32 = 3;

/// A packet that is counted for a prefix.
pub(super) struct Counted {
    /// The address of the side that is accounted, not masked; IPv4 in the first four bytes.
    pub(super) address: [u8; 16],
    /// `None` if the header has no length.
    pub(super) bytes: Option<u64>,
    /// `None` for a packet that is not a fragment.
    pub(super) fragment: Option<Fragment>,
}

pub(super) struct Fragment {
    pub(super) is_first: bool,
    pub(super) header_bytes: u64,
}

/// Why a packet is counted for no prefix: one of `contract::reason`.
pub(super) type Reason = u8;

pub(super) enum Version {
    Ip4,
    Ip6,
}

/// The IP header's place in the packet.
#[derive(Clone, Copy)]
pub(super) struct Header {
    /// What `offset` counts from: a `BPF_HDR_START_…`.
    pub(super) start: u32,
    pub(super) offset: u32,
}

/// Finds the IP header by the frame's protocol.
#[inline(always)]
pub(super) fn find(ctx: &TcContext, hook: Hook) -> Result<(Version, Header), Reason> {
    // SAFETY: the kernel gives the program a descriptor that is valid while it runs.
    let (kind, protocol) = unsafe { ((*ctx.skb.skb).pkt_type, (*ctx.skb.skb).protocol) };
    if matches!(hook, Hook::Ingress) && kind == PACKET_OTHERHOST && !is_for_a_device_above(ctx) {
        return Err(reason::OTHER_HOST);
    }
    #[expect(clippy::cast_possible_truncation, reason = "a __be16 in 32 bits")]
    let protocol = u16::from_be(protocol as u16);
    let at_network_header = Header::at_network(0);
    // SAFETY: as above.
    let has_tag = unsafe { (*ctx.skb.skb).vlan_present } != 0;
    if !has_tag && let Some(version) = version(protocol) {
        return Ok((version, at_network_header));
    }
    match hook {
        Hook::Ingress => behind_tags_at_network(ctx, protocol, has_tag),
        Hook::Egress => match version(protocol) {
            Some(version) => Ok((version, at_network_header)),
            None if is_vlan(protocol) => behind_tags_of_egress(ctx),
            None => Err(reason::NOT_IP),
        },
    }
}

/// Whether a macvlan or VLAN device on this one accepts the frame after this hook. Until then the kernel takes
/// it for a frame for another host.
#[inline(always)]
fn is_for_a_device_above(ctx: &TcContext) -> bool {
    let frame = Header {
        start: BPF_HDR_START_MAC,
        offset: 0,
    };
    let Some(address) = frame.load(ctx, 0) else {
        return false;
    };
    let key = AddressKey {
        // SAFETY: the kernel gives the program a descriptor that is valid while it runs.
        device: unsafe { (*ctx.skb.skb).ifindex },
        address,
        padding: [0; 2],
    };
    // SAFETY: acctd removes entries while programs run, but only the presence of an entry matters.
    unsafe { ACCTD_ADDRESSES.get(key) }.is_some()
}

#[inline(always)]
fn version(protocol: u16) -> Option<Version> {
    match protocol {
        ETH_P_IP => Some(Version::Ip4),
        ETH_P_IPV6 => Some(Version::Ip6),
        _ => None,
    }
}

#[inline(always)]
fn is_vlan(protocol: u16) -> bool {
    matches!(protocol, ETH_P_8021Q | ETH_P_8021AD)
}

/// The kernel has removed the outer tag from the packet (`skb_vlan_untag`); inner tags are at the network
/// header. Each tag leads to a VLAN device on the device before. If there is none, the kernel discards the
/// frame after this hook.
#[inline(always)]
fn behind_tags_at_network(
    ctx: &TcContext,
    protocol: u16,
    has_tag: bool,
) -> Result<(Version, Header), Reason> {
    let mut protocol = protocol;
    let mut at = Header::at_network(0);
    // SAFETY: the kernel gives the program a descriptor that is valid while it runs.
    let mut device = unsafe { (*ctx.skb.skb).ifindex };
    if has_tag {
        // SAFETY: as above.
        #[expect(clippy::cast_possible_truncation, reason = "a u16 in 32 bits")]
        let tag = unsafe { (*ctx.skb.skb).vlan_tci } as u16;
        device = vlan_device(device, tag)?;
    }
    for _ in 0..MAX_TAGS {
        if let Some(version) = version(protocol) {
            return Ok((version, at));
        }
        if !is_vlan(protocol) {
            return Err(reason::NOT_IP);
        }
        let [tag, next]: [u16; 2] = at.load_or_pull(ctx, 0).ok_or(reason::TRUNCATED)?;
        device = vlan_device(device, u16::from_be(tag))?;
        protocol = u16::from_be(next);
        at.offset += VLAN_TAG;
    }
    Err(reason::UNKNOWN_VLAN)
}

/// The device that receives frames of `device` with this tag. VLAN 0 is a priority and not a VLAN.
#[inline(always)]
fn vlan_device(device: u32, tag: u16) -> Result<u32, Reason> {
    let vlan = u32::from(tag & VLAN_ID);
    if vlan == 0 {
        return Ok(device);
    }
    let key = VlanKey { device, vlan };
    // SAFETY: acctd removes entries while programs run, and the kernel may reuse a removed element. Then this is
    // another device's index, and the packet was for a device that was just removed.
    unsafe { ACCTD_VLANS.get(key) }
        .copied()
        .ok_or(reason::UNKNOWN_VLAN)
}

/// The sender of a frame with tags in it sets its network header, which may be anywhere. So tags are read from
/// the front. (Tags of VLAN devices are not in the packet yet.)
#[inline(always)]
fn behind_tags_of_egress(ctx: &TcContext) -> Result<(Version, Header), Reason> {
    let mut at = Header {
        start: BPF_HDR_START_MAC,
        offset: ETHERNET,
    };
    for _ in 0..MAX_TAGS {
        let [_tag, next]: [u16; 2] = at.load_or_pull(ctx, 0).ok_or(reason::TRUNCATED)?;
        at.offset += VLAN_TAG;
        let next = u16::from_be(next);
        if let Some(version) = version(next) {
            return Ok((version, at));
        }
        if !is_vlan(next) {
            return Err(reason::NOT_IP);
        }
    }
    Err(reason::NOT_IP)
}

impl Header {
    /// The header at `offset` from the kernel's network header.
    #[inline(always)]
    pub(super) fn at_network(offset: u32) -> Self {
        Self {
            start: BPF_HDR_START_NET,
            offset,
        }
    }

    /// The bytes at `offset` from the IP header; `None` after the end of the packet's linear part.
    #[inline(always)]
    pub(super) fn load<T: Copy>(self, ctx: &TcContext, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        let is_read = self.read(ctx, offset, &mut value);
        // SAFETY: all of it has been written, and `T` is an integer or an array of some.
        is_read.then(|| unsafe { value.assume_init() })
    }

    /// As [`Self::load`], but pulls bytes into the linear part if necessary, as the kernel does after this hook:
    /// the helper reads only that part.
    #[inline(always)]
    pub(super) fn load_or_pull<T: Copy>(self, ctx: &TcContext, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        let mut is_read = self.read(ctx, offset, &mut value);
        if !is_read && linear_length(ctx) < ctx.len() {
            let wanted = LINK_HEADER_MAX + self.offset + offset + size_of::<T>() as u32;
            is_read =
                ctx.pull_data(wanted.min(ctx.len())).is_ok() && self.read(ctx, offset, &mut value);
        }
        // SAFETY: all of it has been written, and `T` is an integer or an array of some.
        is_read.then(|| unsafe { value.assume_init() })
    }

    /// Returns whether it could be read.
    #[inline(always)]
    pub(super) fn read<T: Copy>(
        self,
        ctx: &TcContext,
        offset: u32,
        value: &mut MaybeUninit<T>,
    ) -> bool {
        // SAFETY: the helper writes as many bytes as `value` has.
        let failed = unsafe {
            bpf_skb_load_bytes_relative(
                ctx.skb.skb.cast(),
                self.offset + offset,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                self.start,
            )
        };
        failed == 0
    }

    /// Whether the frame has `length` bytes, starting at the IP header.
    #[inline(always)]
    pub(super) fn has(self, ctx: &TcContext, length: u32) -> bool {
        let length = self.offset.saturating_add(length);
        let Some(rest) = ctx.len().checked_sub(length) else {
            return false;
        };
        // Exact on Ethernet, cautious on devices without a link-layer header. This avoids reading the
        // packet's last byte, which is in no cache.
        if self.offset == 0 && rest >= ETHERNET {
            return true;
        }
        // True if the link-layer header is no longer than the rest. Only the end of the linear part, as seen
        // from both headers, shows that.
        let Some(in_linear) = linear_length(ctx).checked_sub(rest) else {
            return true;
        };
        let from_front = Self { offset: 0, ..self };
        in_linear == 0 || from_front.load::<u8>(ctx, in_linear - 1).is_some()
    }
}

/// The bytes of the frame that are in one piece.
#[inline(always)]
fn linear_length(ctx: &TcContext) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "as long as an skb can be")]
    let length = ctx.data_end().wrapping_sub(ctx.data()) as u32;
    length
}
