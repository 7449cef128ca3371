//! Frames handed to a device, each exactly once.

use std::{
    fmt, io, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::packet_socket::PacketSocket;

/// How long the device may refuse every frame before that is an error.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends frames, each exactly once. `too_long` is what to call one that
/// exceeds the device's MTU.
pub(super) fn send_all(
    socket: &PacketSocket,
    frames: &[impl AsRef<[u8]>],
    dev: &str,
    too_long: fmt::Arguments<'_>,
) -> Result<()> {
    let mut rest = frames;
    let mut refused_since = None;
    while !rest.is_empty() {
        match socket.send(rest) {
            Ok(n_sent) => {
                rest = rest.get(n_sent..).unwrap_or_default();
                refused_since = None;
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                // The receiver's queue is full. The frame was not taken, so
                // it is sent again.
                let since = *refused_since.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    bail!("device {dev} takes no frames: is its other end up?");
                }
                thread::yield_now();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                bail!("{too_long} exceeds the MTU of {dev}");
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot send from {dev}"));
            }
        }
    }
    Ok(())
}
