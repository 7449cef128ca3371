//! What happens to acctd, one after the other.

use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::Signal;
use testkit::{group_socket, interrupt::Interrupt, traffic::TrafficArgs};

use super::stage::{QUIET, Stage, finish};

pub(super) struct Fault {
    pub(super) name: &'static str,
    /// Whether another process goes on afterwards.
    pub(super) ends_acctd: bool,
    strike: fn(&mut Stage, &Interrupt) -> Result<()>,
}

impl Fault {
    pub(super) fn strike(&self, stage: &mut Stage, interrupt: &Interrupt) -> Result<()> {
        (self.strike)(stage, interrupt)
    }
}

pub(super) const FAULTS: [Fault; 8] = [
    Fault {
        name: "the disk is full for three intervals",
        ends_acctd: false,
        strike: fill_the_disk,
    },
    Fault {
        name: "acctd is killed when all is saved",
        ends_acctd: true,
        strike: kill,
    },
    Fault {
        name: "acctd is kept from running under full speed traffic",
        ends_acctd: false,
        strike: hold_up,
    },
    Fault {
        name: "the disk is read-only for two intervals",
        ends_acctd: false,
        strike: make_the_disk_read_only,
    },
    Fault {
        name: "acctd is stopped and started",
        ends_acctd: true,
        strike: restart,
    },
    Fault {
        name: "acctd has 2 % of a core",
        ends_acctd: false,
        strike: take_cpu_time_away,
    },
    Fault {
        name: "the group is unbound behind acctd's back",
        ends_acctd: false,
        strike: unbind,
    },
    Fault {
        name: "a flood of random sources",
        ends_acctd: false,
        strike: flood,
    },
];

fn fill_the_disk(stage: &mut Stage, interrupt: &Interrupt) -> Result<()> {
    let generators = stage.start_steady_traffic()?;
    let fill = "cat /dev/zero > $0/filler 2>/dev/null; test -s $0/filler";
    stage.on_disk(&["sh", "-c", fill])?;
    interrupt.rest(Duration::from_secs(3))?;
    stage.on_disk(&["sh", "-c", "rm $0/filler"])?;
    finish(generators, interrupt)
}

fn make_the_disk_read_only(stage: &mut Stage, interrupt: &Interrupt) -> Result<()> {
    let generators = stage.start_steady_traffic()?;
    // Refused for as long as a file is open for writing.
    let remount = "for try in 1 2 3 4 5 6 7 8 9; do mount -o remount,ro $0 2>/dev/null && exit; sleep 0.05; done; exit 1";
    stage.on_disk(&["sh", "-c", remount])?;
    interrupt.rest(Duration::from_secs(2))?;
    stage.on_disk(&["mount", "-o", "remount,rw"])?;
    finish(generators, interrupt)
}

/// The socket overflows; each lost packet has a number.
fn hold_up(stage: &mut Stage, interrupt: &Interrupt) -> Result<()> {
    let full_speed = |traffic: TrafficArgs| TrafficArgs {
        sources: 50_000,
        count: 1_000_000,
        ..traffic
    };
    stage.acctd.signal(Signal::STOP)?;
    let ip4 = full_speed(stage.link.traffic("10.0.0.0/8", "192.0.2.1/32")?);
    let ip6 = full_speed(stage.link.traffic("2001:db8::/32", "2001:db8::1/128")?);
    let sent = stage
        .send(&ip4, interrupt)
        .and_then(|()| stage.send(&ip6, interrupt));
    stage.acctd.signal(Signal::CONT)?;
    sent
}

fn take_cpu_time_away(stage: &mut Stage, interrupt: &Interrupt) -> Result<()> {
    stage.cpu.allow(20)?;
    let generators = stage.start_steady_traffic()?;
    let sent = finish(generators, interrupt);
    stage.cpu.lift()?;
    sent
}

/// While nothing is sent, as nobody could say what was lost.
fn unbind(stage: &mut Stage, interrupt: &Interrupt) -> Result<()> {
    interrupt.rest(QUIET)?;
    let n_before = n_bound_again(stage);
    for copy in group_socket::copies_of_sockets(stage.acctd.pid())? {
        // Refused but on the socket of the group.
        group_socket::unbind(&copy, 5)?;
    }
    for _ in 0..100 {
        interrupt.rest(Duration::from_millis(100))?;
        if n_bound_again(stage) > n_before {
            return Ok(());
        }
    }
    bail!("group 5 was not bound again");
}

fn n_bound_again(stage: &mut Stage) -> usize {
    let lines = stage.acctd.log().iter();
    lines
        .filter(|line| line.contains("Group 5 is bound again"))
        .count()
}

fn flood(stage: &mut Stage, interrupt: &Interrupt) -> Result<()> {
    let random = TrafficArgs {
        sources: 3_000_000,
        scattered: true,
        count: 1_500_000,
        ..stage.link.traffic("10.0.0.0/8", "192.0.2.1/32")?
    };
    stage.send(&random, interrupt)
}

fn kill(stage: &mut Stage, interrupt: &Interrupt) -> Result<()> {
    interrupt.rest(QUIET)?;
    stage.acctd.kill(interrupt)?;
    stage.start_again(interrupt)
}

fn restart(stage: &mut Stage, interrupt: &Interrupt) -> Result<()> {
    interrupt.rest(QUIET)?;
    stage.acctd.stop(interrupt)?;
    stage.start_again(interrupt)
}
