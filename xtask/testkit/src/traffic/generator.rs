//! The sending loop.

use std::{
    fmt, io, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    Sent, TrafficArgs,
    pace::{Pace, avoid_full_second, unix_time},
    plan::Plan,
};
use crate::{
    frame::{Frame, LinkHeader},
    packet_socket::PacketSocket,
};

/// How many frames go to the kernel in one call.
const BATCH: u64 = 64;

/// How long the device may refuse every frame before that is an error.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends, from this process and its network namespace.
pub fn run(args: &TrafficArgs) -> Result<Sent> {
    let plan = Plan::new(args)?;
    let socket = PacketSocket::open(&args.dev)
        .with_context(|| format!("cannot send from device {}", args.dev))?;
    let link = LinkHeader {
        to: args.to_mac,
        from: socket.address(),
        vlans: args.vlan.clone(),
        ether_type: args.ether_type,
    };
    let mut frame = Frame::new(&link, plan.family, args.size.max);
    if args.no_length {
        frame = frame.without_length();
    }
    let mut frames: Vec<Frame> = (0..BATCH).map(|_| frame.clone()).collect();

    let send_due = |n_due: u64, frames: &[Frame]| {
        let due = frames.get(..usize::try_from(n_due)?).unwrap_or(frames);
        send_all(
            &socket,
            due,
            &args.dev,
            format_args!("--size {}", args.size),
        )
    };

    let mut sent = Sent {
        packets: 0,
        bytes: 0,
        seconds: 0.0,
        straddled: 0,
    };
    let start = Instant::now();
    let mut pace = Pace::new(args.rate);
    while sent.packets < args.count {
        let left = args.count - sent.packets;
        let n_due = pace.wait(sent.packets, left.min(BATCH));
        let places = sent.packets..;
        let batch = frames.iter_mut().zip(places).take(usize::try_from(n_due)?);

        if args.clock_sources || args.clock_dests {
            pace.skip(avoid_full_second());
            let second = unix_time().as_secs();
            batch.for_each(|(frame, place)| plan.fill_at_second(frame, place, second));
            send_due(n_due, &frames)?;
            if unix_time().as_secs() != second {
                sent.straddled += n_due;
            }
        } else {
            batch.for_each(|(frame, place)| plan.fill(frame, place));
            send_due(n_due, &frames)?;
        }

        let lengths = frames.iter().take(usize::try_from(n_due)?);
        sent.bytes += lengths.map(|f| u64::from(f.ip_length())).sum::<u64>();
        sent.packets += n_due;
    }
    sent.seconds = start.elapsed().as_secs_f64();
    Ok(sent)
}

/// Sends frames, each exactly once. `too_long` is what to call one that
/// exceeds the device's MTU.
pub(super) fn send_all(
    socket: &PacketSocket,
    frames: &[Frame],
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
