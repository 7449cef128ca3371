//! The sending loop.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{
    args::{Sent, TrafficArgs},
    pace::{Pace, avoid_full_second, unix_time},
    plan::Plan,
    sending::send_all,
};
use crate::{
    craft::{Ethernet, Template, VlanTag},
    packet_socket::PacketSocket,
};

/// How many frames go to the kernel in one call.
const BATCH: u64 = 64;

/// Sends, from this process and its network namespace.
pub(super) fn run(args: &TrafficArgs) -> Result<Sent> {
    let plan = Plan::new(args)?;
    let socket = PacketSocket::open(&args.dev)
        .with_context(|| format!("cannot send from device {}", args.dev))?;
    let innermost = args.vlan.len().saturating_sub(1);
    let tag = |(depth, &id): (usize, &u16)| {
        if depth == innermost {
            VlanTag::customer(id)
        } else {
            VlanTag::service(id)
        }
    };
    let link = Ethernet {
        from: socket.address(),
        tags: args.vlan.iter().enumerate().map(tag).collect(),
        ether_type: args.ether_type,
        ..Ethernet::to(args.to_mac)
    };
    let template = Template::new(&link, plan.family, args.size.max, args.no_length);
    let mut frames = vec![template; usize::try_from(BATCH)?];

    let send_due = |n_due: u64, frames: &[Template]| {
        let due = frames.get(..usize::try_from(n_due)?).unwrap_or(frames);
        send_all(&socket, due, &args.dev, format_args!("size {}", args.size))
    };

    let mut sent = Sent::default();
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
