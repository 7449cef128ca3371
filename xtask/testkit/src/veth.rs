//! Pairs of virtual Ethernet devices between two namespaces.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{mac::MacAddr, netns::Namespace};

/// How long a device may take to come up.
const UP_LIMIT: Duration = Duration::from_secs(60);

/// Two ends of a veth pair, both up. Offloads are as the kernel sets them.
///
/// Neither end has an IP address, and so neither sends anything by itself.
/// With an IPv6 address (see [`add_address`]) the kernel reports the
/// address's multicast group a few times in the next seconds.
#[derive(Debug)]
pub struct Veth {
    /// The device in the first namespace.
    pub near: String,
    /// The device in the second namespace.
    pub far: String,
    pub near_mac: MacAddr,
    pub far_mac: MacAddr,
}

impl Veth {
    /// Makes the pair, `near` in namespace `a` and `far` in `b`, and waits
    /// until both ends are up.
    pub fn new(a: &Namespace, near: &str, b: &Namespace, far: &str) -> Result<Self> {
        let b_pid = b.pid().to_string();
        a.run(&[
            "ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", &b_pid,
        ])?;
        a.run(&["ip", "link", "set", near, "up"])?;
        b.run(&["ip", "link", "set", far, "up"])?;
        Ok(Self {
            near: near.to_owned(),
            far: far.to_owned(),
            near_mac: wait_until_up(a, near)?,
            far_mac: wait_until_up(b, far)?,
        })
    }
}

/// Gives a device an address, `192.0.2.1/24` or `2001:db8::1/64`, usable at
/// once: without duplicate address detection.
pub fn add_address(namespace: &Namespace, device: &str, address: &str) -> Result<()> {
    namespace
        .run(&["ip", "addr", "add", address, "dev", device, "nodad"])
        .map(drop)
}

/// What `ip -j link` says of a device, as far as it matters here.
#[derive(Deserialize)]
struct Link {
    operstate: String,
    address: String,
}

fn wait_until_up(namespace: &Namespace, device: &str) -> Result<MacAddr> {
    let end = Instant::now() + UP_LIMIT;
    loop {
        let json = namespace.run(&["ip", "-j", "link", "show", "dev", device])?;
        let links: Vec<Link> = serde_json::from_str(&json)
            .with_context(|| format!("what `ip -j link` says of {device}: {json}"))?;
        let link = links.first().context("`ip -j link` shows no device")?;
        if link.operstate == "UP" {
            return link.address.parse().map_err(anyhow::Error::msg);
        }
        if Instant::now() >= end {
            bail!("{device} is {} after {UP_LIMIT:?}", link.operstate);
        }
        thread::sleep(Duration::from_millis(5));
    }
}
