//! What acctd is made of: `CycloneDX`'s list beside the program, and cargo-auditable's in it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use testkit::{print, process};

use super::packing::Packing;
use crate::arch::Arch;

const CARGO_CYCLONEDX: &str = "0.5.9";
/// What it says in the place of the sources' directory.
const SOURCES: &str = "/usr/src/acctd";
pub(super) const NAME: &str = "acctd.cdx.json";

/// Lists what the sources need, into `release`. This writes lists of the other crates beside those.
pub(super) fn write(packing: &Packing<'_>, release: &Path) -> Result<PathBuf> {
    let mut list = packing.tool("cargo-cyclonedx", CARGO_CYCLONEDX, "0")?;
    list.args(["cyclonedx", "--format", "json", "--spec-version", "1.5"])
        .args(packing.cross.options());
    process::output(&mut list)?;
    let text = fs::read_to_string(packing.sources.join("acctd").join(NAME))?;
    let here = packing.sources.to_str();
    let here = here.context("a directory whose name is text")?;
    let place = release.join(NAME);
    fs::write(&place, text.replace(here, SOURCES))?;
    Ok(place)
}

/// Both lists name the same crates, in the same versions.
pub(super) fn check(list: &Path, program: &Path, arch: Arch) -> Result<()> {
    let list: Value = serde_json::from_str(&fs::read_to_string(list)?)?;
    let acctd = &list["metadata"]["component"];
    let version = env!("CARGO_PKG_VERSION");
    ensure!(
        acctd["name"] == "acctd" && acctd["version"] == version,
        "{acctd}"
    );
    let mut beside = crates(&list["components"]);
    beside.insert(format!("acctd {version}"));
    let place = TempDir::new()?;
    let script = "\"$2\" --dump-section .dep-v0=\"$1/list\" \"$0\" \"$1/copy\"
        python3 -c 'import sys, zlib; print(zlib.decompress(open(sys.argv[1], \"rb\").read()).decode())' \"$1/list\"";
    let mut dump = Command::new("sh");
    dump.args(["-euc", script]).arg(program).arg(place.path());
    dump.arg(arch.gnu_tool("objcopy"));
    let inside: Value = serde_json::from_str(&process::output(&mut dump)?)?;
    let inside = crates(&inside["packages"]);
    ensure!(
        inside.iter().any(|it| it.starts_with("aya ")) && inside == beside,
        "the program and {NAME} differ: {:?}",
        inside.symmetric_difference(&beside).collect::<Vec<_>>()
    );
    print::line(format!(
        "dist: ok: the program and {NAME} name the same {} crates",
        inside.len()
    ))
}

fn crates(list: &Value) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let crates = list.as_array().into_iter().flatten();
    crates
        .map(|it| format!("{} {}", text(&it["name"]), text(&it["version"])))
        .collect()
}
