//! TCP streams between the namespaces, whose packets the kernel puts together (GRO) and cuts up (GSO)
//! as it sees fit: both counts must have seen the same packets.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::thread;

use acctd::process::kernel::kernel_version;
use anyhow::{Context as _, Result, bail, ensure};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use serde_json::Value;
use testkit::netns::Namespace;
use testkit::process::{self, Process};
use testkit::veth::add_address;

use super::run::{Run, add};
use super::{CheckedRow, LINK_HEADER, prefix_of};
use crate::rig::{NONE, Rig};
use crate::waiting::PATIENCE;
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    (
        Needs::NetdevEgress,
        "crosscheck_tcp_streams_are_equal_to_the_byte",
        tcp_streams,
    ),
    (
        Needs::NetdevEgress,
        "crosscheck_big_tcp_is_equal_packet_by_packet_and_its_bytes_are_said_to_be_missing",
        big_tcp,
    ),
];

const PORT: u16 = 7_000;
/// So much goes each way on each connection.
pub(super) const STREAM: usize = 25_000_000;
const ROUTER: [&str; 2] = ["10.9.0.1", "2001:db8:9::1"];
const WIRE: [&str; 2] = ["10.9.0.2", "2001:db8:8::2"];

const RULES: &str = "
    table inet rig {
        counter in4 {}
        counter in6 {}
        chain prerouting {
            type filter hook prerouting priority raw
            meta nfproto ipv4 tcp dport 7000 counter name in4
            meta nfproto ipv6 tcp dport 7000 counter name in6
            meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50
            meta nfproto ipv6 log group 7 snaplen 40 queue-threshold 50
        }
    }
    table netdev rig {
        counter out4 {}
        counter out6 {}
        chain egress {
            type filter hook egress device lan0 priority 0
            meta protocol ip tcp sport 7000 counter name out4
            meta protocol ip6 tcp sport 7000 counter name out6
            meta protocol ip log group 4 snaplen 34 queue-threshold 50
            meta protocol ip6 log group 6 snaplen 54 queue-threshold 50
        }
    }";

const ARGS: &[&str] = &[
    "-ip4-src-group=5",
    "-ip6-src-group=7",
    "-ip4-dst-group=4",
    "-ip6-dst-group=6",
    "-crosscheck=lan0",
];

/// Both ends have addresses, and know each other without asking.
fn connected() -> Result<Rig> {
    let rig = Rig::new()?;
    add_address(&rig.router, "lan0", "10.9.0.1/24")?;
    add_address(&rig.router, "lan0", "2001:db8:9::1/32")?;
    add_address(&rig.wire, "wire0", "10.9.0.2/24")?;
    add_address(&rig.wire, "wire0", "2001:db8:8::2/32")?;
    let (near, far) = (rig.veth.near_mac.to_string(), rig.veth.far_mac.to_string());
    for at in 0..2 {
        rig.router.run(&[
            "ip", "neigh", "add", WIRE[at], "lladdr", &far, "dev", "lan0",
        ])?;
        rig.wire.run(&[
            "ip", "neigh", "add", ROUTER[at], "lladdr", &near, "dev", "wire0",
        ])?;
    }
    rig.rules(RULES)?;
    Ok(rig)
}

/// A stream each way over IPv4, then over IPv6.
fn exchange_both(rig: &Rig) -> Result<()> {
    ROUTER
        .iter()
        .try_for_each(|address| exchange_between(rig, &rig.router, &rig.wire, address))
}

/// A stream each way between a server at this address and a client.
pub(super) fn exchange_between(
    rig: &Rig,
    server: &Namespace,
    client: &Namespace,
    address: &str,
) -> Result<()> {
    let mut serving = server.command(rig.generator());
    serving
        .args(["stream", "serve", address])
        .stdout(Stdio::piped());
    let mut server = Process::spawn(&mut serving)?;
    let mut line = String::new();
    let output = server.child().stdout.take().context("stdout is a pipe")?;
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line == "ready\n", "{line:?}");
    let mut talking = client.command(rig.generator());
    process::output(talking.args(["stream", "talk", address]))?;
    ensure!(server.wait(PATIENCE)?.success());
    Ok(())
}

fn tcp_streams() -> Result<()> {
    let rig = connected()?;
    let run = Run::of(&rig, ARGS, || exchange_both(&rig))?;
    for (at, family) in ["4", "6"].iter().enumerate() {
        let row = tcp_row(&run, at)?;
        let received = rig.counter(&format!("in{family}"))?;
        let mut sent = rig.counter(&format!("out{family}"))?;
        sent.bytes -= sent.packets * LINK_HEADER;
        ensure!(
            row.source == received && row.tc_source == received,
            "{row:?} {received:?}"
        );
        ensure!(row.dest == sent && row.tc_dest == sent, "{row:?} {sent:?}");
        for one in [received, sent] {
            ensure!(one.bytes > STREAM as u64);
            // So it is about packets that no wire could carry.
            ensure!(one.bytes / one.packets > 1_500, "not put together: {one:?}");
        }
    }
    ensure_all_match(&run)
}

/// Packets of more than 64 KiB, whose length is in no header, in both families: nothing about them is silent, and the
/// cure that doctor names is one.
fn big_tcp() -> Result<()> {
    /// BIG TCP for IPv4; for IPv6 it came with 5.19.
    const IP4: (u32, u32) = (6, 3);
    let has_ip4 = kernel_version() >= IP4;
    let rig = connected()?;
    let doctor = || -> Result<Option<Value>> {
        let mut doctor = rig.router.command(rig.acctd_path());
        doctor.args(["doctor", "--json"]).args(&ARGS[..4]);
        let found: Vec<Value> = serde_json::from_slice(&doctor.output()?.stdout)?;
        Ok(found.into_iter().find(|it| it["id"] == "big-tcp"))
    };
    ensure!(doctor()?.is_none(), "{:?}", doctor()?);
    for (namespace, device) in [(&rig.router, "lan0"), (&rig.wire, "wire0")] {
        for what in ["gso_max_size", "gro_max_size"] {
            namespace.run(&["ip", "link", "set", device, what, "180000"])?;
        }
        if has_ip4 {
            process::output(namespace.command(rig.generator()).args([
                "stream",
                "limit-ip4",
                device,
            ]))?;
        }
    }
    let finding = doctor()?.context("doctor finds nothing")?;
    ensure!(finding["severity"] == "warning", "{finding}");
    let ip4 = if has_ip4 {
        ", gso_ipv4_max_size 180000, gro_ipv4_max_size 180000"
    } else {
        ""
    };
    let all = format!("lan0 (gso_max_size 180000, gro_max_size 180000{ip4})");
    let what = finding["what"].as_str().unwrap_or_default();
    ensure!(what.contains(&all), "{finding}");

    let run = Run::of(&rig, ARGS, || exchange_both(&rig))?;
    let mut truth = NONE;
    let mut in_rows = NONE;
    for (at, family) in ["4", "6"].iter().enumerate() {
        let row = tcp_row(&run, at)?;
        let mut sent = rig.counter(&format!("out{family}"))?;
        let received = rig.counter(&format!("in{family}"))?;
        sent.bytes -= sent.packets * LINK_HEADER;
        ensure!(
            (row.source, row.dest) == (row.tc_source, row.tc_dest),
            "{row:?}"
        );
        ensure!((row.source.packets, row.dest.packets) == (received.packets, sent.packets));
        // Most of what was sent is not in the bytes.
        let is_missing = row.dest.bytes < STREAM as u64;
        ensure!(is_missing == (has_ip4 || *family == "6"), "{row:?}");
        for count in [received, sent] {
            add(&mut truth, count);
        }
        for count in [row.source, row.dest] {
            add(&mut in_rows, count);
        }
    }
    // Of those the frame is counted, with the header that the link has.
    let without_length = run.interval.uncounted("without_length");
    let crosscheck = &run.interval.crosscheck;
    let missing = crosscheck.missing_source_bytes + crosscheck.missing_dest_bytes;
    ensure!(missing == without_length.bytes, "{run:?}");
    let without_link = missing - without_length.packets * LINK_HEADER;
    ensure!(
        truth.bytes == in_rows.bytes + without_link,
        "{truth:?} {in_rows:?} {without_length:?}"
    );
    ensure_all_match(&run)?;
    ensure!(run.interval.bytes_are_lower_bound);
    run.line("packets counted with 0 bytes, their header has no length (BIG TCP)")?;
    run.line("bytes are too low: ")?;

    let cure = finding["cure"].as_str().unwrap_or_default();
    rig.router.run(&["sh", "-e", "-c", cure])?;
    ensure!(doctor()?.is_none(), "{:?}", doctor()?);
    rig.wire
        .run(&["sh", "-e", "-c", &cure.replace("lan0", "wire0")])?;
    let run = Run::of(&rig, ARGS, || exchange_both(&rig))?;
    ensure!(run.interval.uncounted("without_length") == NONE, "{run:?}");
    ensure!(!run.interval.bytes_are_lower_bound);
    for at in 0..2 {
        let row = tcp_row(&run, at)?;
        ensure!(row.dest.bytes > STREAM as u64, "{row:?}");
    }
    ensure_all_match(&run)
}

/// Above 64 KiB for IPv4, which `ip` of Debian 12 cannot say.
fn limit_ip4(device: &str) -> Result<()> {
    const SIZE: u32 = 180_000;
    let index = fs::read_to_string(format!("/sys/class/net/{device}/ifindex"))?;
    let mut message = LinkMessage::default();
    message.header.index = index.trim().parse()?;
    message.attributes = vec![
        LinkAttribute::GsoIpv4MaxSize(SIZE),
        LinkAttribute::GroIpv4MaxSize(SIZE),
    ];
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let payload = NetlinkPayload::from(RouteNetlinkMessage::SetLink(message));
    let mut request = NetlinkMessage::new(header, payload);
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let socket = netlink_sys::Socket::new(NETLINK_ROUTE)?;
    socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
        other => bail!("the kernel refuses: {other:?}"),
    }
}

fn tcp_row(run: &Run, at: usize) -> Result<CheckedRow> {
    let address: IpAddr = WIRE[at].parse()?;
    let row = run.interval.row(prefix_of(address));
    row.cloned().with_context(|| format!("no row {address}"))
}

fn ensure_all_match(run: &Run) -> Result<()> {
    for row in &run.interval.rows {
        ensure!(row.verdict == "match", "{row:?}");
    }
    Ok(())
}

/// One end of a stream, in a process of its own: `serve ADDRESS` or `talk ADDRESS`.
pub(crate) fn main_from(mut args: impl Iterator<Item = String>) -> Result<()> {
    let (Some(word), Some(address)) = (args.next(), args.next()) else {
        bail!("serve or talk, and an address");
    };
    if word == "limit-ip4" {
        return limit_ip4(&address);
    }
    let address = SocketAddr::new(address.parse()?, PORT);
    if word == "talk" {
        return exchange(TcpStream::connect(address)?);
    }
    let listener = TcpListener::bind(address)?;
    writeln!(io::stdout(), "ready")?;
    exchange(listener.accept()?.0)
}

/// Sends and receives, both at once, until both are done.
fn exchange(mut stream: TcpStream) -> Result<()> {
    let mut sender = stream.try_clone()?;
    let sending = thread::spawn(move || {
        sender.write_all(&vec![b'a'; STREAM])?;
        sender.shutdown(Shutdown::Write)
    });
    let received = io::copy(&mut stream, &mut io::sink())?;
    sending.join().ok().context("the sender has panicked")??;
    ensure!(received == STREAM as u64, "{received} bytes arrived");
    Ok(())
}
