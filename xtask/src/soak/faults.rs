//! What happens to acctd, one after the other.

use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::Signal;
use testkit::{group_socket, interrupt::Interrupt, traffic::TrafficArgs};

use super::stage::{QUIET, Stage, finish};

/// What happens, whether another process goes on afterwards, and how it is brought about.
pub(super) struct Fault {
    pub(super) name: &'static str,
    pub(super) ends_acctd: bool,
    pub(super) strike: fn(&mut Stage, &Interrupt) -> Result<()>,
}

const fn fault(
    name: &'static str,
    ends_acctd: bool,
    strike: fn(&mut Stage, &Interrupt) -> Result<()>,
) -> Fault {
    Fault {
        name,
        ends_acctd,
        strike,
    }
}

pub(super) const FAULTS: [Fault; 8] = [
    fault("the disk is full for three intervals", false, fill_the_disk),
    fault("acctd is killed when all is saved", true, kill),
    fault(
        "acctd is kept from running under full speed traffic",
        false,
        hold_up,
    ),
    fault(
        "the disk is read-only for two intervals",
        false,
        make_the_disk_read_only,
    ),
    fault("acctd is stopped and started", true, restart),
    fault("acctd has 2 % of a core", false, take_cpu_time_away),
    fault("the group is unbound behind acctd's back", false, unbind),
    fault("a flood of random sources", false, flood),
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
