//! The two namespaces, the rules, and the traffic between them.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use testkit::{
    interrupt::Interrupt,
    link::Link,
    netns::{Namespace, Privilege},
    process::Process,
    programs::{bound_command, this_program},
    traffic::{Sizes, Traffic, TrafficArgs},
    veth::add_address,
};

use crate::peer;

/// How long each of the two rounds of traffic lasts: more than one of acctd's 5 s intervals.
pub(super) const SECONDS: u16 = 7;

/// The traffic may take longer than planned on a slow machine.
const LIMIT: Duration = Duration::from_secs(SECONDS as u64 + 30);

const HOST_V4: &str = "192.0.2.1";
const HOST_V6: &str = "2001:db8::1";
const OUTSIDE_V4: &str = "192.0.2.2";
const OUTSIDE_V6: &str = "2001:db8::2";

/// How many addresses the generator sends from, and how fast, per family.
const GENERATOR_SOURCES: u32 = 300;
const GENERATOR_RATE: u32 = 1000;

/// One of the generator's addresses, which the rules leave out in the first round.
pub(super) const LEFT_OUT: &str = "198.18.0.7";

/// A counter and a log statement see the same packets, as they stand in the
/// same rule: the counter counts, then the packet goes to acctd's group.
pub(super) const RULESET: &str = "\
table inet acctd_demo {
    counter ip4_in { }
    counter ip4_out { }
    counter ip6_in { }
    counter ip6_out { }
    counter left_out { }
    set not_accounted { type ipv4_addr; elements = { 198.18.0.7 }; }

    chain prerouting {
        type filter hook prerouting priority raw; policy accept;
        ip saddr @not_accounted counter name left_out accept
        meta nfproto ipv4 counter name ip4_in log group 5 snaplen 20 queue-threshold 50
        meta nfproto ipv6 counter name ip6_in log group 7 snaplen 40 queue-threshold 50
    }

    chain output {
        type filter hook output priority filter; policy accept;
        meta nfproto ipv4 counter name ip4_out log group 4 snaplen 20 queue-threshold 50
        meta nfproto ipv6 counter name ip6_out log group 6 snaplen 40 queue-threshold 50
    }
}
";

/// Two connected namespaces, and a server on `host`.
pub(super) struct Stage {
    // Dropped in this order: what runs in the namespaces goes before them.
    _server: Process,
    pub(super) link: Link,
}

impl Stage {
    pub(super) fn set(privilege: Privilege, interrupt: &Interrupt) -> Result<Self> {
        let link = Link::new(privilege, "host0", "outside0")?;
        let (host, outside) = (&link.host, &link.wire);
        for (namespace, device, v4, v6) in [
            (host, "host0", HOST_V4, HOST_V6),
            (outside, "outside0", OUTSIDE_V4, OUTSIDE_V6),
        ] {
            add_address(namespace, device, &format!("{v4}/24"))?;
            add_address(namespace, device, &format!("{v6}/64"))?;
        }
        // The generator's sources are beyond `outside`, so that host answers
        // them as it would answer the Internet.
        host.run(&["ip", "route", "add", "default", "via", OUTSIDE_V4])?;
        host.run(&["ip", "-6", "route", "add", "default", "via", OUTSIDE_V6])?;
        interrupt.check()?;
        Ok(Self {
            _server: start_server(host)?,
            link,
        })
    }

    /// From here on the rules leave nothing out.
    pub(super) fn account_all(&self) -> Result<()> {
        let element = format!("{{ {LEFT_OUT} }}");
        let words = ["delete", "element", "inet", "acctd_demo", "not_accounted"];
        self.link
            .host
            .run(&[&["nft"], words.as_slice(), &[&element]].concat())
            .map(drop)
    }

    /// Runs all the traffic of a round to its end.
    pub(super) fn play_traffic(&self, interrupt: &Interrupt) -> Result<()> {
        let processes = [self.talk()?, self.ping(HOST_V4)?, self.ping(HOST_V6)?];
        let generators = [
            self.generate("198.18.0.1/15", "192.0.2.1/32")?,
            self.generate("2001:db8:1::1/48", "2001:db8::1/128")?,
        ];
        for mut process in processes {
            interrupt.wait_for_success(&mut process, LIMIT)?;
        }
        for generator in generators {
            generator.finish_within(LIMIT, interrupt)?;
        }
        Ok(())
    }

    /// Afterwards nothing moves any more: some seconds after the last packet
    /// the kernel still asks its neighbours whether they are there.
    pub(super) fn close(&self) -> Result<()> {
        self.link
            .host
            .run(&["ip", "link", "set", &self.link.veth.near, "down"])
            .map(drop)
    }

    /// TCP and UDP through ordinary sockets.
    fn talk(&self) -> Result<Process> {
        let seconds = SECONDS.to_string();
        let mut command = bound_command(&self.link.wire, this_program()?);
        command
            .args(["peer", "talk", "--seconds", &seconds])
            .args(["--to", HOST_V4, "--to", HOST_V6]);
        Process::spawn(&mut command)
    }

    /// ICMP.
    fn ping(&self, to: &str) -> Result<Process> {
        let count = SECONDS.to_string();
        let mut command = bound_command(&self.link.wire, "ping");
        command.args(["-n", "-q", "-c", &count, to]);
        Process::spawn(command.stdout(Stdio::null()))
    }

    /// UDP from some hundred addresses.
    fn generate(&self, sources: &str, to: &str) -> Result<Traffic> {
        let args = TrafficArgs {
            sources: GENERATOR_SOURCES,
            rate: GENERATOR_RATE,
            count: u64::from(GENERATOR_RATE) * u64::from(SECONDS),
            size: Sizes { min: 64, max: 1400 },
            ..self.link.traffic(sources, to)?
        };
        self.link.start_sending(&args, None)
    }
}

fn start_server(host: &Namespace) -> Result<Process> {
    let mut command = bound_command(host, this_program()?);
    command.args(["peer", "serve"]).stdout(Stdio::piped());
    let mut server = Process::spawn(&mut command)?;
    let stdout = server
        .child()
        .stdout
        .take()
        .context("no pipe to the server")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(
        line.trim() == peer::READY,
        "the demo's server does not start"
    );
    Ok(server)
}
