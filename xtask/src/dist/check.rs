//! What must hold of the package, in a clean Debian with a real systemd: installed it is sound and starts nothing;
//! under its unit it counts exactly, also over a restart; removed it leaves nothing behind.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::{netns::Namespace, print, veth, veth::Veth};

use super::machine::Machine;

type Step = fn(&Machine, &Namespace) -> Result<()>;

pub(super) fn run(package: &Path, target: &Path) -> Result<()> {
    print::line("dist: booting a clean Debian")?;
    let machine = Machine::boot(target)?;
    let outside = machine.network.peer()?;
    Veth::new(&machine.network, "eth0", &outside, "wire0")?;
    machine.run("ip link set lo up")?;
    for (namespace, device, address) in [
        (&machine.network, "eth0", "10.1.0.1/24"),
        (&machine.network, "eth0", "fd00:1::1/64"),
        (&outside, "wire0", "10.1.0.2/24"),
        (&outside, "wire0", "fd00:1::2/64"),
    ] {
        veth::add_address(namespace, device, address)?;
    }
    machine.put(package, "/root/acctd.deb")?;
    let before = files(&machine)?;
    let steps: [(&str, Step); 9] = [
        ("installed, it is sound and nothing is started", it_installs),
        ("the unit's sandbox is what it says", the_sandbox),
        (
            "under its unit it counts exactly, over restarts too",
            it_counts,
        ),
        ("an acctd that hangs is started again", it_is_watched),
        ("the unit for a network namespace counts there", a_namespace),
        ("its timer's unit archives a day", a_day_is_archived),
        ("its unit sends that archive", an_archive_is_sent),
        ("an upgrade goes on where the old one was", an_upgrade),
        ("removed, it leaves the files that it has written", it_goes),
    ];
    for (what, step) in steps {
        step(&machine, &outside).context(what)?;
        print::line(format!("dist: ok: {what}"))?;
    }
    let after = files(&machine)?;
    let differs = |one: &str, other: &str| -> Vec<String> {
        let lines = one
            .lines()
            .filter(|line| !other.lines().any(|it| it == *line));
        lines.map(str::to_owned).collect()
    };
    let (gone, left) = (differs(&before, &after), differs(&after, &before));
    ensure!(
        gone.is_empty() && left.is_empty(),
        "left behind: {left:?}, missing: {gone:?}"
    );
    print::line("dist: ok: purged, it leaves nothing behind")?;
    Ok(())
}

/// All that a package may leave, and who there is.
fn files(machine: &Machine) -> Result<String> {
    machine.run(
        "find / -xdev \\( -path /root -o -path /var/log/journal -o -path /var/lib/dpkg -o -path /var/lib/systemd \
         -o -path /var/log/dpkg.log -o -path /var/cache -o -path '/etc/*-' -o -path /etc/.pwd.lock -o -path /var/tmp -o -path /old \
         -o -path /var/lib/private \\) -prune -o -print | sort; getent passwd; getent group",
    )
}

fn it_installs(machine: &Machine, _: &Namespace) -> Result<()> {
    machine.run("dpkg -i /root/acctd.deb")?;
    let version = machine.run("acctd --version")?;
    ensure!(
        version.trim() == concat!("acctd ", env!("CARGO_PKG_VERSION")),
        "{version}"
    );
    // What it only warns of, systemd ignores.
    machine.run(
        "said=$(systemd-analyze verify --man=no acctd.service acctd@blue.service acctd-archive.service acctd-archive.timer acctd-ship.service 2>&1)
         test -z \"$said\" || { echo \"$said\" >&2; exit 1; }",
    )?;
    let exposure = machine.run("systemd-analyze security --no-pager acctd.service | tail -1")?;
    let figure = exposure.split("acctd.service: ").nth(1).unwrap_or_default();
    let figure = figure.split_whitespace().next().unwrap_or_default();
    ensure!(figure.parse::<f64>()? <= 2.0, "{exposure}");
    print::line(format!(
        "dist: exposure by systemd-analyze security: {figure}"
    ))?;
    machine.run("! systemctl is-enabled --quiet acctd; ! systemctl is-active --quiet acctd")?;
    machine.run("! systemctl is-enabled --quiet acctd-archive.timer acctd-ship")?;
    machine.run(
        "test -s /usr/share/man/man8/acctd-rules.8.gz
         test -s /usr/share/bash-completion/completions/acctd
         test $(stat -c %U:%a /var/log/accounting) = acctd:750",
    )?;
    machine.run(
        "sed -i 's/^#ACCTD_CROSSCHECK/ACCTD_CROSSCHECK/; s/^ACCTD_INTERVAL=.*/ACCTD_INTERVAL=24h/' /etc/default/acctd
         echo ACCTD_CHECKPOINT=200ms >> /etc/default/acctd
         systemctl enable --quiet --now acctd
         # Whatever is logged from now on is counted, be it the kernel's own.
         acctd rules --apply",
    )?;
    machine.run("test $(systemctl is-active acctd) = active")?;
    Ok(())
}

fn the_sandbox(machine: &Machine, _: &Namespace) -> Result<()> {
    let status = machine.run("cat /proc/$(systemctl show -P MainPID acctd)/status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).unwrap_or_default().to_owned()
    };
    // NET_ADMIN (12), PERFMON (38) and BPF (39) of linux/capability.h.
    ensure!(field("CapEff:") == "000000c000001000", "{status}");
    ensure!(field("CapBnd:") == "000000c000001000", "{status}");
    ensure!(
        field("NoNewPrivs:") == "1" && field("Seccomp:") == "2",
        "{status}"
    );
    ensure!(!field("Uid:").starts_with('0'), "{status}");
    machine.wait_for("systemctl show -P StatusText acctd | grep -q 'packets/s, 0 lost'")?;
    let log = machine.run("journalctl --no-pager -u acctd")?;
    for complaint in ["warning:", "error:"] {
        ensure!(!log.contains(complaint), "{log}");
    }
    machine.run("acctd status | grep -q 'cross-check of eth0:far'")?;
    // The manager's copies of the sockets are no other program's; nobody keeps a clock in here.
    machine.run(
        "set -a; . /etc/default/acctd
         found=$(acctd doctor || true); test \"${found%%[*}\" = OK -o \"${found##*[}\" = clock-not-synchronised]",
    )?;
    Ok(())
}

/// Packets from outside, five a millisecond, for a second, in both families.
fn ping(outside: &Namespace) -> Result<()> {
    for address in ["10.1.0.1", "fd00:1::1"] {
        outside.run(&["ping", "-q", "-f", "-c", "2000", "-i", "0.002", address])?;
    }
    Ok(())
}

/// By source and by destination, what the rules have counted and what all files say. No line of theirs may
/// say that something was lost.
fn ensure_exact(machine: &Machine) -> Result<()> {
    let rules: Value = serde_json::from_str(&machine.run("nft -j list table inet acctd")?)?;
    let mut logged = [0, 0];
    for rule in rules["nftables"].as_array().into_iter().flatten() {
        let rule = &rule["rule"];
        for expression in rule["expr"].as_array().into_iter().flatten() {
            let packets = expression["counter"]["packets"].as_u64().unwrap_or(0);
            logged[usize::from(rule["chain"] == "output")] += packets;
        }
    }
    let lines = machine.run("cat /var/log/accounting/intervals.jsonl")?;
    let mut counted = [0, 0];
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line)?;
        for (side, field) in ["source_packets", "dest_packets"].into_iter().enumerate() {
            counted[side] += line[field].as_u64().context("a number")?;
        }
        ensure!(line["lost"] == 0 && line["gaps"].is_null(), "{line}");
        let verdicts = &line["crosscheck"]["verdicts"];
        for bad in ["uncovered", "extra", "lost"] {
            ensure!(verdicts[bad]["prefixes"] == 0, "{line}");
        }
    }
    ensure!(
        counted == logged && logged[0] > 4_000,
        "{counted:?} in files, {logged:?} logged"
    );
    Ok(())
}

fn it_counts(machine: &Machine, outside: &Namespace) -> Result<()> {
    thread::scope(|scope| {
        let pings = scope.spawn(|| ping(outside));
        for _ in 0..3 {
            thread::sleep(Duration::from_secs(1));
            machine.run("systemctl restart acctd")?;
        }
        pings.join().unwrap_or_else(|_panicked| Ok(()))
    })?;
    // Nothing more comes then, not even of the kernel's own, before all is counted.
    machine.run("ip link set eth0 down; sleep 1.5; systemctl stop acctd")?;
    ensure_exact(machine)?;
    machine.run(
        "systemctl start acctd; ip link set eth0 up; ip addr add fd00:1::1/64 dev eth0 nodad",
    )?;
    Ok(())
}

fn it_is_watched(machine: &Machine, _: &Namespace) -> Result<()> {
    machine.run(
        "mkdir -p /run/systemd/system/acctd.service.d
         printf '[Service]\\nWatchdogSec=2s\\n' > /run/systemd/system/acctd.service.d/watchdog.conf
         systemctl daemon-reload
         systemctl restart acctd",
    )?;
    // It lives for longer than that where it is left alone.
    thread::sleep(Duration::from_secs(4));
    machine.run("test $(systemctl show -P NRestarts acctd) = 0; systemctl kill -s STOP acctd")?;
    machine.wait_for(
        "test $(systemctl show -P NRestarts acctd) = 1; systemctl is-active --quiet acctd",
    )?;
    machine.run(
        "rm -r /run/systemd/system/acctd.service.d
         systemctl daemon-reload
         systemctl restart acctd",
    )?;
    Ok(())
}

fn a_namespace(machine: &Machine, _: &Namespace) -> Result<()> {
    machine.run(
        "ip netns add blue
         ip netns exec blue ip link set lo up
         printf 'ACCTD_IP4_SRC_GROUP=5\\n' > /etc/default/acctd-blue
         ip netns exec blue acctd rules --apply -ip4-src-group=5
         systemctl start acctd@blue
         ip netns exec blue ping -q -c 50 -i 0.002 127.0.0.1
         ip netns exec blue nft list table inet acctd | grep -q 'packets 100 bytes 8400'
         systemctl stop acctd@blue
         grep -q 127.0.0.1,8400,100,0,0 /var/log/accounting/blue/*.csv
         ip netns del blue
         rm -r /etc/default/acctd-blue",
    )?;
    Ok(())
}

fn a_day_is_archived(machine: &Machine, _: &Namespace) -> Result<()> {
    machine.run(
        "cd /var/log/accounting
         file=2026-01-01-000000_2026-01-01-000500.csv
         printf 'Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets\\nx,10.0.0.1,1,1,1,1\\n' > $file
         chown acctd:acctd $file
         echo ARCHIVE_FLAGS=--keep=90d >> /etc/default/acctd
         systemctl start acctd-archive
         test $(stat -c %U:%a 2026-01-01.parquet) = acctd:640
         test ! -e $file",
    )?;
    Ok(())
}

/// By a user who can read acctd's files, and has no rights.
fn an_archive_is_sent(machine: &Machine, _: &Namespace) -> Result<()> {
    machine.run(
        "install -d -m 777 /srv/lake
         override=/run/systemd/system/acctd-ship.service.d
         mkdir -p $override
         printf '[Service]\nReadWritePaths=/srv/lake\n' > $override/lake.conf
         echo 'SHIP_FLAGS=--to=file:///srv/lake --host=gate' >> /etc/default/acctd
         systemctl daemon-reload
         systemctl start acctd-ship || { journalctl -u acctd-ship --no-pager >&2; exit 1; }
         is_sent() { cmp -s /var/log/accounting/2026-01-01.parquet /srv/lake/gate/2026-01-01.parquet; }
         for i in $(seq 300); do is_sent && break; sleep 0.1; done
         is_sent
         systemctl is-active --quiet acctd-ship
         status=/proc/$(systemctl show -P MainPID acctd-ship)/status
         grep -q '^CapEff:.0000000000000000$' $status
         grep -q '^NoNewPrivs:.1$' $status
         ! grep -q '^Uid:.0' $status
         systemctl stop acctd-ship
         rm -r /srv/lake $override
         systemctl daemon-reload",
    )?;
    Ok(())
}

fn an_upgrade(machine: &Machine, outside: &Namespace) -> Result<()> {
    let pid = machine.run("systemctl show -P MainPID acctd")?;
    thread::scope(|scope| {
        let pings = scope.spawn(|| ping(outside));
        thread::sleep(Duration::from_secs(1));
        machine.run("dpkg -i /root/acctd.deb")?;
        pings.join().unwrap_or_else(|_panicked| Ok(()))
    })?;
    machine.run("systemctl is-active --quiet acctd")?;
    let new_pid = machine.run("systemctl show -P MainPID acctd")?;
    ensure!(new_pid != pid, "the old one runs still");
    Ok(())
}

fn it_goes(machine: &Machine, _: &Namespace) -> Result<()> {
    machine.run("dpkg -r acctd")?;
    machine.run(
        "! pgrep -x acctd; test -s /var/log/accounting/intervals.jsonl; test -s /etc/default/acctd",
    )?;
    machine
        .run("dpkg -P acctd; test -s /var/log/accounting/intervals.jsonl; getent passwd acctd")?;
    // Whoever wants them gone removes them.
    machine.run("rm -r /var/log/accounting")?;
    machine.run("dpkg -i /root/acctd.deb && dpkg -P acctd && nft delete table inet acctd")?;
    Ok(())
}
