//! Where the IP header is, and bytes of the packet.

use acctd_common::contract::{VlanKey, reason};
use aya_ebpf::bindings::bpf_hdr_start_off::{BPF_HDR_START_MAC, BPF_HDR_START_NET};
use aya_ebpf::helpers::bpf_skb_load_bytes_relative;
use aya_ebpf::programs::TcContext;
use core::mem::MaybeUninit;

use super::account::Hook;
use super::maps::ACCTD_VLANS;

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
const VLAN_ID: u16 = 0x0fff;
/// Two tags are QinQ; more are nobody's.
const MAX_TAGS: u32 = 3;

/// A packet that is counted for a prefix.
pub(super) struct Counted {
    /// The address of the side that is accounted, not masked; IPv4 in the first four bytes.
    pub(super) address: [u8; 16],
    /// As the header gives it; `None` where it gives none.
    pub(super) bytes: Option<u64>,
    /// How many bytes of headers reassembly takes away, for a fragment.
    pub(super) fragment: Option<Fragment>,
}

pub(super) struct Fragment {
    pub(super) is_first: bool,
    pub(super) header_bytes: u64,
}

/// Why a packet is counted for none: one of `contract::reason`.
pub(super) type Reason = u8;

pub(super) enum Version {
    Ip4,
    Ip6,
}

/// The IP header's place in the packet.
#[derive(Clone, Copy)]
pub(super) struct Header {
    start: u32,
    offset: u32,
}

/// Finds the IP header, by what the frame says that it carries.
#[inline(always)]
pub(super) fn find(ctx: &TcContext, hook: Hook) -> Result<(Version, Header), Reason> {
    // SAFETY: the kernel gives the program a descriptor that is valid while it runs.
    let (kind, protocol) = unsafe { ((*ctx.skb.skb).pkt_type, (*ctx.skb.skb).protocol) };
    if matches!(hook, Hook::Ingress) && kind == PACKET_OTHERHOST {
        return Err(reason::OTHER_HOST);
    }
    #[expect(clippy::cast_possible_truncation, reason = "a __be16 in 32 bits")]
    let protocol = u16::from_be(protocol as u16);
    let at_network_header = Header {
        start: BPF_HDR_START_NET,
        offset: 0,
    };
    // SAFETY: as above.
    let has_tag = unsafe { (*ctx.skb.skb).vlan_present } != 0;
    if !has_tag && let Some(version) = version(protocol) {
        return Ok((version, at_network_header));
    }
    match hook {
        Hook::Ingress => behind_tags_of_ingress(ctx, protocol, has_tag),
        Hook::Egress => match version(protocol) {
            Some(version) => Ok((version, at_network_header)),
            None if is_vlan(protocol) => behind_tags_of_egress(ctx),
            None => Err(reason::NOT_IP),
        },
    }
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

/// The kernel has taken the outer tag out of the packet (`skb_vlan_untag`); inner ones stand at the
/// network header. A tag leads to the VLAN device that lies on the device before it; the kernel
/// discards what has none, behind this hook.
#[inline(always)]
fn behind_tags_of_ingress(
    ctx: &TcContext,
    protocol: u16,
    has_tag: bool,
) -> Result<(Version, Header), Reason> {
    let mut protocol = protocol;
    let mut at = Header {
        start: BPF_HDR_START_NET,
        offset: 0,
    };
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
        let [tag, next]: [u16; 2] = at.load(ctx, 0).ok_or(reason::TRUNCATED)?;
        device = vlan_device(device, u16::from_be(tag))?;
        protocol = u16::from_be(next);
        at.offset += VLAN_TAG;
    }
    Err(reason::UNKNOWN_VLAN)
}

/// The device that takes what comes to `device` with this tag. VLAN 0 is a priority and no VLAN.
#[inline(always)]
fn vlan_device(device: u32, tag: u16) -> Result<u32, Reason> {
    let vlan = u32::from(tag & VLAN_ID);
    if vlan == 0 {
        return Ok(device);
    }
    let key = VlanKey { device, vlan };
    // SAFETY: acctd removes entries while programs run, and an element that is removed may be used
    // anew: then this is another device's index, and the packet was for a device that has just gone.
    unsafe { ACCTD_VLANS.get(key) }
        .copied()
        .ok_or(reason::UNKNOWN_VLAN)
}

/// Whoever sends a frame with a tag in it decides where its network header is, so the tags are
/// counted from the front. (Tags of VLAN devices are not in the packet yet.)
#[inline(always)]
fn behind_tags_of_egress(ctx: &TcContext) -> Result<(Version, Header), Reason> {
    let mut at = Header {
        start: BPF_HDR_START_MAC,
        offset: ETHERNET,
    };
    for _ in 0..MAX_TAGS {
        let [_tag, next]: [u16; 2] = at.load(ctx, 0).ok_or(reason::TRUNCATED)?;
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
    /// The bytes at `offset` from the IP header on; `None` behind the packet's end.
    #[inline(always)]
    pub(super) fn load<T: Copy>(self, ctx: &TcContext, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes as many bytes as `value` has, or fails.
        let failed = unsafe {
            bpf_skb_load_bytes_relative(
                ctx.skb.skb.cast(),
                self.offset + offset,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                self.start,
            )
        };
        // SAFETY: it has written all of them, and `T` is an integer or an array of some.
        (failed == 0).then(|| unsafe { value.assume_init() })
    }

    /// Whether the frame has `length` bytes from the IP header on.
    #[inline(always)]
    pub(super) fn has(self, ctx: &TcContext, length: u32) -> bool {
        // On Ethernet this is exact, on devices without a link-layer header it errs to the safe
        // side. It saves a look at the packet's last byte, which no cache has.
        if self.offset == 0 && ctx.len() >= length.saturating_add(ETHERNET) {
            return true;
        }
        length == 0 || self.load::<u8>(ctx, length - 1).is_some()
    }
}
