//! Programs of one's own, and the flags of the cross-check.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use testkit::netns::Privilege;
use testkit::traffic::TrafficArgs;

use super::{checked, sum};
use crate::errors::{complains, fails};
use crate::rig::{LOG_AND_DROP, Rig};
use crate::waiting::{wait_until, wait_until_all_is_read};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Root,
        "crosscheck_a_program_of_ones_own_is_in_the_rows",
        a_program_of_ones_own,
    ),
    (
        Needs::Root,
        "crosscheck_a_program_that_is_none_is_refused_with_the_reason",
        a_program_that_is_none,
    ),
    (
        Needs::Root,
        "crosscheck_each_bad_flag_is_one_clear_line_and_exit_code_2",
        each_bad_flag,
    ),
    (
        Needs::Root,
        "crosscheck_flags_come_from_the_environment",
        flags_from_the_environment,
    ),
    (
        Needs::Root,
        "crosscheck_programs_log_with_debug_alone",
        programs_log_with_debug_alone,
    ),
    (
        // Older ones work out what a full map takes, and not what this one does.
        Needs::Since((6, 4)),
        "crosscheck_memory_is_what_the_log_says",
        memory_is_what_the_log_says,
    ),
];

fn rig() -> Result<Rig> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    Ok(rig)
}

fn object(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../acctd-ebpf/objects")
        .join(name)
}

fn object_flag(path: &Path) -> String {
    format!("-crosscheck-object={}", path.display())
}

fn a_program_of_ones_own() -> Result<()> {
    let rig = rig()?;
    let acctd = rig.acctd(&[
        "-interval=36500d",
        "-ip4-src-group=5",
        "-crosscheck=lan0",
        &object_flag(&object("minimal.o")),
    ])?;
    rig.send(&TrafficArgs {
        sources: 100,
        count: 10_000,
        rate: 20_000,
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    })?;
    acctd.finish()?;
    let intervals = checked(&rig)?;
    let rows = || intervals.iter().flat_map(|interval| &interval.rows);
    let truth = rig.counter("v4")?;
    ensure!(truth.packets == 10_000);
    ensure!(sum(rows(), |row| row.tc_source) == truth);
    for row in rows() {
        ensure!(row.verdict == "match" && row.is_equal() && row.tc_source.packets == 100);
    }
    Ok(())
}

fn a_program_that_is_none() -> Result<()> {
    let rig = rig()?;
    let written = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
        let path = rig.scratch().join(name);
        fs::write(&path, bytes)?;
        Ok(path)
    };
    let minimal = fs::read(object("minimal.o"))?;
    for (path, part) in [
        (
            object("mismatched.o"),
            "the inner map of ACCTD_EPOCHS differs in bytes of a key: 4 instead of 20, bytes of a value: 8 instead of 64",
        ),
        (written("text", b"a text")?, "it is no eBPF object"),
        (written("empty", b"")?, "it is no eBPF object"),
        (
            written("cut.o", &minimal[..minimal.len() / 2])?,
            "it is no eBPF object",
        ),
        (
            rig.scratch().join("nowhere.o"),
            "nowhere.o: No such file or directory",
        ),
        (rig.scratch().to_owned(), "Is a directory"),
        (
            written("refused.o", &refused_by_the_verifier(minimal.clone())?)?,
            "R0 !read_ok (Permission denied",
        ),
    ] {
        let flag = object_flag(&path);
        let args = ["-ip4-src-group=5", "-crosscheck=lan0", &flag];
        fails(&rig, &args, 1, part)?;
        let output = rig.acctd_command().args(args).output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        // Besides the memory, and that it is root.
        let n_lines = stderr.lines().filter(|line| !line.contains("stays root"));
        ensure!(n_lines.count() == 2, "more than a line: {stderr}");
        let name = path.file_name().and_then(|name| name.to_str());
        ensure!(stderr.contains(name.context("a name")?), "{stderr}");
    }
    let flag = object_flag(&object("minimal.o"));
    fails(
        &rig,
        &["-ip4-src-group=5", "-crosscheck=lan0:near", &flag],
        1,
        "it has no program acctd_ingress_dest, only acctd_egress_dest, acctd_ingress_source",
    )
}

/// Its `acctd_egress_dest` only returns -1: now it does so without saying what.
fn refused_by_the_verifier(mut minimal: Vec<u8>) -> Result<Vec<u8>> {
    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
    const NOTHING: [u8; 8] = [0x05, 0, 0, 0, 0, 0, 0, 0];
    // `r0 = -1` or `w0 = -1`, with 32 or 64 bits in one or two instructions.
    let minus_one =
        |bytes: &[u8]| matches!(bytes[0], 0xb7 | 0xb4) && bytes[1] == 0 && bytes[4..8] == [0xff; 4];
    let wide = |bytes: &[u8]| bytes[0] == 0x18 && bytes[1] == 0 && bytes[4..8] == [0xff; 4];
    let mut n_changed = 0;
    for at in (0..minimal.len().saturating_sub(24)).step_by(8) {
        let next = &minimal[at..at + 24];
        let length = if minus_one(next) && next[8..16] == EXIT {
            8
        } else if wide(next) && next[16..24] == EXIT {
            16
        } else {
            continue;
        };
        for instruction in minimal[at..at + length].chunks_exact_mut(8) {
            instruction.copy_from_slice(&NOTHING);
        }
        n_changed += 1;
    }
    ensure!(n_changed > 0, "no return of -1 was found");
    Ok(minimal)
}

fn each_bad_flag() -> Result<()> {
    let rig = rig()?;
    for (flag, parts) in [
        ("-crosscheck=lan0:middle", ["lan0:middle", "neither"]),
        ("-crosscheck=lan0:", ["lan0:", "neither"]),
        (
            "-crosscheck=",
            ["is not a valid name of an interface", "\"\""],
        ),
        (
            "-crosscheck=a-name-of-16-byt",
            ["a-name-of-16-byt", "is not a valid name"],
        ),
        ("-crosscheck=lan0,lan0:near", ["lan0", "twice"]),
        ("-crosscheck-attach=xdp", ["xdp", "auto, tcx, clsact"]),
        ("-crosscheck-max-prefixes=0", ["0 is not in", "1..="]),
        (
            "-crosscheck-max-prefixes=100000001",
            ["100000001 is not in", "100000000"],
        ),
        ("-crosscheck-max-prefixes=many", ["many", "invalid digit"]),
        ("-crosscheck-object=", ["crosscheck-object", "value"]),
        ("-crosscheck-pin=", ["crosscheck-pin", "value"]),
    ] {
        // The last one wins, as everywhere.
        let args = ["-ip4-src-group=5", "-crosscheck=wan0", flag];
        let args = if flag.starts_with("-crosscheck=") {
            vec![args[0], args[2]]
        } else {
            args.to_vec()
        };
        for part in parts {
            fails(&rig, &args, 2, part)?;
        }
        ensure!(!rig.log_directory().exists(), "{flag}: something was done");
    }
    Ok(())
}

fn flags_from_the_environment() -> Result<()> {
    let rig = rig()?;
    let with = |variables: &[(&str, &str)]| {
        rig.acctd_command()
            .arg("-ip4-src-group=5")
            .envs(variables.iter().copied())
            .output()
    };
    let missing = ("ACCTD_CROSSCHECK", "nosuch0,nosuch1:near");
    // It accounts, and waits for both.
    let mut command = rig.acctd_command();
    command.envs([missing, ("ACCTD_CROSSCHECK_MAX_PREFIXES", "1234")]);
    let acctd = crate::rig::Acctd::spawn(command.arg("-ip4-src-group=5"))?;
    acctd.wait_for_line("Started accounting")?;
    let ended = acctd.finish()?;
    for said in ["nosuch0", "nosuch1", "for 1234 prefixes"] {
        ended.line(said)?;
    }
    let output = with(&[missing, ("ACCTD_CROSSCHECK_ATTACH", "xdp")])?;
    complains(&output, 2, "xdp")?;
    let output = with(&[missing, ("ACCTD_CROSSCHECK_OBJECT", "/nowhere/own.o")])?;
    complains(&output, 1, "cannot read --crosscheck-object /nowhere/own.o")?;
    let output = with(&[missing, ("ACCTD_CROSSCHECK_PIN", "/tmp/acctd-nowhere")])?;
    complains(
        &output,
        1,
        "--crosscheck-pin /tmp/acctd-nowhere is not on bpffs",
    )?;
    // Empty ones say nothing: a cross-check is not even tried.
    let mut command = rig.acctd_command();
    for name in ["", "_ATTACH", "_MAX_PREFIXES", "_OBJECT", "_PIN"] {
        command.env(format!("ACCTD_CROSSCHECK{name}"), "");
    }
    let acctd = crate::rig::Acctd::spawn(command.arg("-ip4-src-group=5"))?;
    acctd.wait_for_line("Started accounting")?;
    let ended = acctd.finish()?;
    ensure!(ended.line("ross-check").is_err(), "{:?}", ended.log);
    Ok(())
}

fn programs_log_with_debug_alone() -> Result<()> {
    for is_debug in [true, false] {
        let rig = rig()?;
        let flag = format!("-debug={is_debug}");
        let acctd = rig.acctd(&[
            "-interval=36500d",
            "-ip4-src-group=5",
            "-crosscheck=lan0",
            &flag,
        ])?;
        rig.send(&TrafficArgs {
            count: 3,
            rate: 100,
            ..rig.traffic("10.1.2.3/32", "10.255.0.1/32")?
        })?;
        wait_until_all_is_read(&acctd)?;
        let n_lines = |log: &[String]| {
            let of_program = log.iter().filter(|line| line.contains("TC "));
            of_program.filter(|line| line.contains("10.1.2.3")).count()
        };
        let expected = if is_debug { 3 } else { 0 };
        wait_until("the program has said it", || {
            Ok(n_lines(&acctd.log()) >= expected)
        })?;
        let ended = acctd.finish()?;
        ensure!(n_lines(&ended.log) == expected, "{:?}", ended.log);
    }
    Ok(())
}

/// What the kernel accounts for the maps of the epochs, by map.
fn memory_of_epochs(pid: u32) -> Result<Vec<u64>> {
    let mut memory = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let Ok(text) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        let field = |name: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(name))?;
            value.trim().parse::<u64>().ok()
        };
        // BPF_MAP_TYPE_HASH of epochs, whose values are longer than those of the VLAN devices.
        if field("map_type:") == Some(1) && field("value_size:") == Some(64) {
            memory.push(field("memlock:").context("no memlock")?);
        }
    }
    memory.sort_unstable();
    Ok(memory)
}

fn memory_is_what_the_log_says() -> Result<()> {
    const N: u64 = 100_000;
    let rig = rig()?;
    let flag = format!("-crosscheck-max-prefixes={N}");
    let acctd = rig.acctd(&[
        "-interval=36500d",
        "-ip4-src-group=5",
        "-crosscheck=lan0",
        &flag,
    ])?;
    let line = acctd.wait_for_line("The cross-check uses up to")?;
    let mut said = line.split_whitespace().skip_while(|word| *word != "to");
    let said: u64 = said.nth(1).context("a number")?.parse()?;
    let empty = memory_of_epochs(acctd.pid())?;
    // Before the first, the open one, and the next.
    ensure!(empty.len() == 3 && empty[0] == empty[2], "{empty:?}");
    rig.send(&TrafficArgs {
        sources: u32::try_from(N)?,
        count: N,
        rate: 50_000,
        ..rig.traffic("10.0.0.0/8", "11.0.0.1/32")?
    })?;
    let filled = memory_of_epochs(acctd.pid())?;
    ensure!(filled[..2] == empty[..2], "{filled:?}");
    // The kernel's own figure leaves out what its allocator rounds up: 144 bytes lie in 192.
    let of_prefixes = (filled[2] - empty[2]) / 144 * 192;
    acctd.finish()?;
    let intervals = checked(&rig)?;
    ensure!(intervals[0].rows.len() as u64 == N);
    let most = (empty.iter().sum::<u64>() + 2 * of_prefixes) / 1_000_000;
    ensure!(
        said >= most && said * 100 <= most * 120,
        "the log says {said} MB, the kernel {most} MB"
    );
    Ok(())
}
