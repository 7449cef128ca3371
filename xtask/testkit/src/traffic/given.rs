//! Frames made elsewhere, for instance by [`crate::craft`], sent as they are from a device, or as
//! packets into a tun device.

use std::io::Write as _;

use anyhow::{Context as _, Result};

use super::{sending::send_all, tun};
use crate::{packet_socket::PacketSocket, print};

/// What the process with a tun device prints when it has one.
pub(super) const READY: &str = "ready";

/// Sends all of them, so many times, past the device's egress hooks or through them. Returns how
/// many that were.
pub(super) fn send(dev: &str, frames: &[Vec<u8>], rounds: u64, hooks: bool) -> Result<u64> {
    let socket = if hooks {
        PacketSocket::open_with_hooks(dev)
    } else {
        PacketSocket::open(dev)
    };
    let socket = socket.with_context(|| format!("cannot send from device {dev}"))?;
    let mut total = 0;
    for _ in 0..rounds {
        for (i, frame) in frames.iter().enumerate() {
            send_all(&socket, &[frame], dev, format_args!("it"))
                .with_context(|| format!("frame {} was not sent", i + 1))?;
            total += 1;
        }
    }
    Ok(total)
}

/// Makes a tun device and writes all of the packets into it at each line of `orders`, until they end;
/// prints each time how many that were.
pub(super) fn write(
    name: &str,
    is_vnet: bool,
    packets: &[Vec<u8>],
    orders: impl Iterator<Item = std::io::Result<String>>,
) -> Result<()> {
    let mut device =
        tun::create(name, is_vnet).with_context(|| format!("cannot make the tun device {name}"))?;
    print::line(READY)?;
    for order in orders {
        order?;
        for packet in packets {
            device
                .write_all(packet)
                .with_context(|| format!("{name} does not take it"))?;
        }
        print::line(packets.len())?;
    }
    Ok(())
}
