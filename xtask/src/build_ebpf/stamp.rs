//! What the objects in the repository were made from: a SHA-256 of each file,
//! in the format of `sha256sum`, and who built them.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

/// The objects, and where the repository has them.
pub(super) const OBJECTS: [&str; 3] = ["acctd", "minimal", "mismatched"];
pub(super) const DIRECTORY: &str = "acctd-ebpf/objects";

/// What an object is made of. Of Cargo.lock, those packages that an object has.
const SOURCES: [&str; 2] = ["acctd-common", "acctd-ebpf"];
const PACKAGES: [&str; 2] = ["aya-ebpf", "aya-log-"];

const STAMP: &str = "acctd-ebpf/objects/SOURCES.sha256";

/// Writes the stamp of the repository as it is.
pub(super) fn write(root: &Path, builder: Option<&str>) -> Result<()> {
    let builder = builder.unwrap_or("a compiler that cannot be told exactly");
    let stamp = format!("# built by {builder}\n{}\n", sums(root)?.join("\n"));
    fs::write(root.join(STAMP), stamp).with_context(|| format!("cannot write {STAMP}"))
}

/// Fails if anything has changed since the objects were built.
pub(super) fn check(root: &Path) -> Result<()> {
    let stamp = read(root)?;
    let built: Vec<&str> = stamp.lines().skip(1).collect();
    let now = sums(root)?;
    let gone = built
        .iter()
        .filter(|&line| !now.iter().any(|it| it == line));
    let come = now.iter().filter(|line| !built.contains(&line.as_str()));
    let mut changed: Vec<&str> = gone.copied().chain(come.map(String::as_str)).collect();
    changed.sort_unstable_by_key(|line| line.split_once("  ").map(|(_, name)| name));
    ensure!(
        changed.is_empty(),
        "run `cargo xtask build-ebpf`: since {DIRECTORY} was built, there changed\n{}",
        changed.join("\n")
    );
    Ok(())
}

/// Whether this compiler has built the objects.
pub(super) fn is_by(root: &Path, builder: Option<&str>) -> Result<bool> {
    let stamp = read(root)?;
    let first = stamp.lines().next().unwrap_or_default();
    Ok(builder.is_some() && first.strip_prefix("# built by ") == builder)
}

fn read(root: &Path) -> Result<String> {
    fs::read_to_string(root.join(STAMP))
        .with_context(|| format!("cannot read {STAMP}: run `cargo xtask build-ebpf`"))
}

/// A line for each source, package and object, by name.
fn sums(root: &Path) -> Result<Vec<String>> {
    let mut names = OBJECTS.map(|name| format!("{DIRECTORY}/{name}.o")).to_vec();
    for package in SOURCES {
        names.push(format!("{package}/Cargo.toml"));
        rust_files(root, &format!("{package}/src"), &mut names)?;
    }
    names.sort_unstable();
    let mut sums = Vec::new();
    for name in names {
        let bytes = fs::read(root.join(&name)).with_context(|| format!("cannot read {name}"))?;
        sums.push(format!("{}  {name}", hex::encode(Sha256::digest(bytes))));
    }
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    sums.extend(lock.split("[[package]]").filter_map(package_sum));
    Ok(sums)
}

/// An editor's other files there do not matter.
fn rust_files(root: &Path, directory: &str, names: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(root.join(directory)).with_context(|| directory.to_owned())? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{directory}/{file}");
        if path.is_dir() {
            rust_files(root, &name, names)?;
        } else if path.extension().is_some_and(|it| it == "rs") {
            names.push(name);
        }
    }
    Ok(())
}

/// What Cargo.lock has as the sum of a package that an object is made of.
fn package_sum(package: &str) -> Option<String> {
    let value = |key| {
        let line = package.lines().find_map(|line| line.strip_prefix(key))?;
        line.strip_prefix(" = \"")?.strip_suffix('"')
    };
    let name: &str = value("name")?;
    let is_part = PACKAGES.iter().any(|it| name.starts_with(it));
    is_part.then_some(format!(
        "{}  {name}-{}.crate",
        value("checksum")?,
        value("version")?
    ))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const LOCK: &str = r#"
[[package]]
name = "aya"
version = "0.14.0"
checksum = "aa"

[[package]]
name = "aya-ebpf"
version = "0.2.1"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "bb"
dependencies = [
 "aya-ebpf-bindings",
]

[[package]]
name = "aya-log-common"
version = "0.2.0"
checksum = "cc"
"#;

    const FILES: [&str; 8] = [
        "acctd-common/Cargo.toml",
        "acctd-common/src/lib.rs",
        "acctd-ebpf/Cargo.toml",
        "acctd-ebpf/src/bin/acctd/main.rs",
        "acctd-ebpf/src/bin/minimal.rs",
        "acctd-ebpf/objects/acctd.o",
        "acctd-ebpf/objects/minimal.o",
        "acctd-ebpf/objects/mismatched.o",
    ];

    fn put(root: &TempDir, name: &str, text: &str) {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn stamped() -> TempDir {
        let root = TempDir::new().unwrap();
        put(&root, "Cargo.lock", LOCK);
        for file in FILES {
            put(&root, file, file);
        }
        write(root.path(), Some("rustc-web 1.96.0")).unwrap();
        root
    }

    #[test]
    fn the_objects_are_built_from_the_sources_beside_them() {
        check(&crate::workspace::root().unwrap()).unwrap();
    }

    #[test]
    fn a_stamp_says_who_built_and_has_the_sums_of_sha256sum() {
        let root = stamped();
        check(root.path()).unwrap();
        assert!(is_by(root.path(), Some("rustc-web 1.96.0")).unwrap());
        assert!(!is_by(root.path(), Some("rustc-web 1.9")).unwrap());
        put(&root, "acctd-common/src/lib.rs", "");
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let error = check(root.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{empty}  acctd-common/src/lib.rs")),
            "{error}"
        );
    }

    #[test]
    fn a_stamp_shows_each_file_that_changes() {
        let root = stamped();
        for file in FILES {
            put(&root, file, "something else");
            let error = check(root.path()).unwrap_err().to_string();
            assert!(error.matches(file).count() == 2, "{error}");
            put(&root, file, file);
        }
        check(root.path()).unwrap();
    }

    #[test]
    fn a_stamp_shows_files_that_come_and_go() {
        let root = stamped();
        put(&root, "acctd-ebpf/src/bin/.clock.rs.swp", "");
        check(root.path()).unwrap();
        put(&root, "acctd-ebpf/src/bin/new/clock.rs", "");
        assert!(check(root.path()).is_err());
        write(root.path(), None).unwrap();
        fs::remove_dir_all(root.path().join("acctd-ebpf/src/bin/new")).unwrap();
        assert!(check(root.path()).is_err());
    }

    #[test]
    fn a_stamp_has_the_versions_of_the_packages_that_an_object_is_made_of() {
        let found: Vec<_> = LOCK.split("[[package]]").filter_map(package_sum).collect();
        assert_eq!(
            found,
            ["bb  aya-ebpf-0.2.1.crate", "cc  aya-log-common-0.2.0.crate"]
        );
    }
}
