//! `cargo xtask fuzz`: libFuzzer looks for bytes that acctd does not take well.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, builder::PossibleValuesParser};
use testkit::{
    netns::find_program,
    print,
    process::{self, run},
    programs::cargo,
};

use crate::workspace::root;

const TARGETS: [&str; 5] = ["checkpoint", "epoch_map", "flags", "netlink", "object"];
const CARGO_FUZZ: &str = "0.13.2";

/// Let libFuzzer look for input that acctd does not take well
///
/// What is there to be tried is in acctd/fuzz/corpus, and the test fuzz_corpus tries it with stable Rust
/// as well. What is found here goes to target/fuzz/corpus; input that a target fails over goes to
/// acctd/fuzz/artifacts, and belongs into the corpus once it is taken.
///
/// Takes a C++ compiler, and builds cargo-fuzz into target/fuzz. With a nightly Rust the address
/// sanitizer watches too.
#[derive(Args)]
#[expect(clippy::doc_markdown, reason = "it is a help text")]
pub(crate) struct Fuzz {
    /// Targets; all if none is given
    #[arg(value_name = "TARGET", value_parser = PossibleValuesParser::new(TARGETS))]
    targets: Vec<String>,
    /// How long, each of them
    #[arg(long, value_name = "N", default_value_t = 10)]
    minutes: u64,
    /// The same in seconds
    #[arg(long, value_name = "N", conflicts_with = "minutes")]
    seconds: Option<u64>,
}

impl Fuzz {
    pub(crate) fn run(&self) -> Result<()> {
        let root = root()?;
        if find_program("c++").is_none() {
            return print::line(
                "fuzz: skipped: libFuzzer takes a C++ compiler (Debian: g++); cargo test replays the corpus",
            );
        }
        let rust = Rust::find();
        print::line(match rust {
            Rust::Nightly => "fuzz: with nightly Rust and the address sanitizer",
            Rust::Stable => "fuzz: without the address sanitizer, which takes a nightly Rust",
        })?;
        let cargo_fuzz = cargo_fuzz(&root)?;
        let all = TARGETS.map(str::to_owned);
        let targets = if self.targets.is_empty() {
            &all[..]
        } else {
            &self.targets
        };
        let minutes = Duration::from_secs(60 * self.minutes);
        let length = self.seconds.map_or(minutes, Duration::from_secs);
        for target in targets {
            print::line(format!("fuzz: {target} for {length:?}"))?;
            fuzz(&root, &rust, &cargo_fuzz, target, length)?;
        }
        Ok(())
    }
}

/// Which one compiles the targets.
enum Rust {
    Nightly,
    Stable,
}

impl Rust {
    fn find() -> Self {
        let is_nightly = Command::new("rustup")
            .args(["run", "nightly", "rustc", "--version"])
            // It is the user's to install a toolchain.
            .env("RUSTUP_AUTO_INSTALL", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if is_nightly {
            Self::Nightly
        } else {
            Self::Stable
        }
    }

    /// cargo-fuzz, which calls cargo. Coverage alone takes nothing unstable.
    fn command(&self, cargo_fuzz: &Path) -> Command {
        match self {
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly"]).arg(cargo_fuzz);
                // Those of the cargo that runs this program.
                command.env_remove("CARGO").env_remove("RUSTC");
                command.env_remove("RUSTUP_TOOLCHAIN");
                command.args(["fuzz", "run", "--sanitizer", "address"]);
                command
            }
            Self::Stable => {
                let mut command = Command::new(cargo_fuzz);
                command.args(["fuzz", "run", "--sanitizer", "none"]);
                command
            }
        }
    }
}

fn fuzz(root: &Path, rust: &Rust, cargo_fuzz: &Path, target: &str, length: Duration) -> Result<()> {
    let corpus = root.join("acctd/fuzz/corpus").join(target);
    // libFuzzer adds to the first one.
    let found = root.join("target/fuzz/corpus").join(target);
    fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    let mut command = rust.command(cargo_fuzz);
    command
        .current_dir(root.join("acctd"))
        .args(["--fuzz-dir", "fuzz", "--target-dir"])
        .arg(root.join("target/fuzz"))
        .arg(target)
        .args([&found, &corpus])
        .arg("--")
        .arg(format!("-max_total_time={}", length.as_secs()))
        .args(["-timeout=20", "-print_final_stats=1", "-verbosity=0"]);
    if run(&mut command).is_err() {
        bail!(
            "{target} fails over an input, see above. It is in acctd/fuzz/artifacts/{target}; once the \
             cause is gone, put it into acctd/fuzz/corpus/{target}, so that cargo test replays it"
        );
    }
    Ok(())
}

/// cargo-fuzz, built with the Rust that has built this program.
fn cargo_fuzz(root: &Path) -> Result<PathBuf> {
    let tools = root.join("target/fuzz/tools");
    let program = tools.join("bin/cargo-fuzz");
    let version = process::output(Command::new(&program).args(["fuzz", "--version"]));
    if version.is_ok_and(|version| version.trim().ends_with(CARGO_FUZZ)) {
        return Ok(program);
    }
    print::line(format!("fuzz: building cargo-fuzz {CARGO_FUZZ}"))?;
    run(Command::new(cargo())
        .args(["install", "cargo-fuzz", "--version", CARGO_FUZZ])
        .args(["--locked", "--quiet", "--force", "--root"])
        .arg(&tools)
        .arg("--target-dir")
        .arg(tools.join("build")))?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_known_and_has_a_corpus() {
        let directory = root().unwrap().join("acctd/fuzz");
        let mut targets: Vec<String> = fs::read_dir(directory.join("targets"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        targets.sort_unstable();
        assert_eq!(targets, TARGETS.map(|target| format!("{target}.rs")));
        for target in TARGETS {
            let mut corpus = fs::read_dir(directory.join("corpus").join(target)).unwrap();
            assert!(corpus.next().is_some(), "{target}");
        }
    }
}
