//! TCP streams between the namespaces, whose packets the kernel puts together (GRO) and cuts up (GSO)
//! as it sees fit: both counts must have seen the same packets.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use xtask::netns::Namespace;
use xtask::process::{self, Process};
use xtask::veth::add_address;

use super::run::Run;
use super::{CheckedRow, LINK_HEADER, prefix_of};
use crate::rig::Rig;
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    (
        Needs::Root,
        "crosscheck_tcp_streams_are_equal_to_the_byte",
        tcp_streams,
    ),
    (
        Needs::Root,
        "crosscheck_big_tcp_is_equal_packet_by_packet",
        big_tcp,
    ),
];

const PORT: u16 = 7_000;
const PATIENCE: Duration = Duration::from_secs(30);
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

/// Packets of more than 64 KiB, whose length is in no header.
fn big_tcp() -> Result<()> {
    let rig = connected()?;
    for (namespace, device) in [(&rig.router, "lan0"), (&rig.wire, "wire0")] {
        for what in ["gso_max_size", "gro_max_size"] {
            namespace.run(&["ip", "link", "set", device, what, "180000"])?;
        }
    }
    let run = Run::of(&rig, ARGS, || exchange_both(&rig))?;
    let row = tcp_row(&run, 1)?;
    let mut sent = rig.counter("out6")?;
    let received = rig.counter("in6")?;
    sent.bytes -= sent.packets * LINK_HEADER;
    ensure!(
        (row.source, row.dest) == (row.tc_source, row.tc_dest),
        "{row:?}"
    );
    ensure!((row.source.packets, row.dest.packets) == (received.packets, sent.packets));
    let without_length = run.interval.uncounted("without_length");
    ensure!(without_length.packets > 0, "none was big: {run:?}");
    // Of those the frame is counted, with the header that the link has.
    let bytes = received.bytes + sent.bytes;
    let in_rows = row.source.bytes + row.dest.bytes;
    let without_link = without_length.bytes - without_length.packets * LINK_HEADER;
    ensure!(
        bytes == in_rows + without_link,
        "{bytes} {in_rows} {without_length:?}"
    );
    ensure_all_match(&run)
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
