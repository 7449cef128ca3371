//! What the objects in the repository were made from: a SHA-256 of each file,
//! in the format of `sha256sum`, and who built them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::{DIRECTORY, OBJECTS, read};

/// The crates of the workspace that an object is made of.
const CRATES: [&str; 2] = ["acctd-common", "acctd-ebpf"];
/// How a line that tells the builder begins: for `sha256sum`, a comment.
const BUILDER: &str = "# built by ";

/// The stamp's place in the repository.
pub(super) fn path(root: &Path) -> PathBuf {
    root.join(DIRECTORY).join("SOURCES.sha256")
}

/// SHA-256 sums by name, of the sources, of the crates.io packages and of the
/// objects themselves.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    builder: Option<String>,
    sums: BTreeMap<String, String>,
}

impl Stamp {
    /// The sums of the repository as it is.
    pub(super) fn of_tree(root: &Path) -> Result<Self> {
        let mut names = Vec::new();
        for package in CRATES {
            names.push(format!("{package}/Cargo.toml"));
            sources_below(root, &format!("{package}/src"), &mut names)?;
        }
        names.extend(OBJECTS.map(|name| format!("{DIRECTORY}/{name}.o")));
        let mut sums = names
            .into_iter()
            .map(|name| Ok((name.clone(), sha256(&read(&root.join(&name))?))))
            .collect::<Result<BTreeMap<_, _>>>()?;
        let lock = root.join("Cargo.lock");
        let lock =
            fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
        sums.extend(packages(&lock));
        Ok(Self {
            builder: None,
            sums,
        })
    }

    /// The stamp in the repository.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let path = path(root);
        let text = fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}: run `cargo xtask build-ebpf`",
                path.display()
            )
        })?;
        Ok(Self::parse(&text))
    }

    /// Lines that are no sums are none that the sources have.
    fn parse(text: &str) -> Self {
        let builder = text.lines().find_map(|line| line.strip_prefix(BUILDER));
        let sums = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once("  "))
            .map(|(sum, name)| (name.to_owned(), sum.to_owned()))
            .collect();
        Self {
            builder: builder.map(str::to_owned),
            sums,
        }
    }

    /// This stamp with who built the objects, if that tells a compiler exactly.
    pub(super) fn with_builder(self, builder: Option<&str>) -> Self {
        Self {
            builder: builder.map(str::to_owned),
            ..self
        }
    }

    /// Who built the objects.
    pub(super) fn builder(&self) -> Option<&str> {
        self.builder.as_deref()
    }

    /// The names that only one of the two has, or with another sum.
    pub(super) fn differences<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let names: BTreeSet<&String> = self.sums.keys().chain(other.sums.keys()).collect();
        names
            .into_iter()
            .filter(|&name| self.sums.get(name) != other.sums.get(name))
            .map(String::as_str)
            .collect()
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(builder) = &self.builder {
            writeln!(f, "{BUILDER}{builder}")?;
        }
        for (name, sum) in &self.sums {
            writeln!(f, "{sum}  {name}")?;
        }
        Ok(())
    }
}

/// The Rust files below a directory, by their names from the root. An editor's
/// other files there do not matter.
fn sources_below(root: &Path, directory: &str, names: &mut Vec<String>) -> Result<()> {
    let path = root.join(directory);
    let entries = fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", path.display()))?;
        let name = format!("{directory}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            sources_below(root, &name, names)?;
        } else if entry.path().extension().is_some_and(|end| end == "rs") {
            names.push(name);
        }
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// The packages from crates.io that an object is made of, with the sums that
/// Cargo.lock has for them.
fn packages(lock: &str) -> impl Iterator<Item = (String, String)> {
    lock.split("[[package]]").filter_map(|package| {
        let value = |key: &str| {
            package.lines().find_map(|line| {
                line.strip_prefix(key)?
                    .strip_prefix(" = \"")?
                    .strip_suffix('"')
            })
        };
        let name = value("name")?;
        (name.starts_with("aya-ebpf") || name.starts_with("aya-log-"))
            .then_some(())
            .and_then(|()| {
                let file = format!("{name}-{}.crate", value("version")?);
                Some((file, value("checksum")?.to_owned()))
            })
    })
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

    /// All that a stamp depends on, but Cargo.lock.
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

    fn tree<'a>(files: impl IntoIterator<Item = &'a str>) -> TempDir {
        let root = TempDir::new().unwrap();
        put(&root, "Cargo.lock", LOCK);
        for file in files {
            put(&root, file, file);
        }
        root
    }

    fn put(root: &TempDir, name: &str, text: &str) {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn stamp(root: &TempDir) -> Stamp {
        Stamp::of_tree(root.path()).unwrap()
    }

    #[test]
    fn a_stamp_does_not_depend_on_the_order_of_files() {
        let one = stamp(&tree(FILES));
        let other = stamp(&tree(FILES.into_iter().rev()));
        assert_eq!(one.to_string(), other.to_string());
    }

    #[test]
    fn a_stamp_shows_each_file_that_changes() {
        let root = tree(FILES);
        let before = stamp(&root);
        for file in FILES {
            put(&root, file, "something else");
            assert_eq!(stamp(&root).differences(&before), [file]);
            put(&root, file, file);
        }
        assert_eq!(stamp(&root), before);
    }

    #[test]
    fn a_stamp_shows_files_that_come_and_go() {
        let root = tree(FILES);
        let before = stamp(&root);
        put(&root, "acctd-ebpf/src/bin/new/clock.rs", "");
        put(&root, "acctd-ebpf/src/bin/.clock.rs.swp", "");
        let after = stamp(&root);
        let new = ["acctd-ebpf/src/bin/new/clock.rs"];
        assert_eq!(after.differences(&before), new);
        assert_eq!(before.differences(&after), new);
    }

    #[test]
    fn a_stamp_has_the_versions_of_the_packages_that_an_object_is_made_of() {
        let found: Vec<_> = packages(LOCK).collect();
        let expected = [
            ("aya-ebpf-0.2.1.crate", "bb"),
            ("aya-log-common-0.2.0.crate", "cc"),
        ];
        assert_eq!(
            found,
            expected.map(|(name, sum)| (name.to_owned(), sum.to_owned()))
        );
    }

    #[test]
    fn a_stamp_survives_its_file() {
        let stamp = stamp(&tree(FILES)).with_builder(Some("rustc-web 1.96.0"));
        assert_eq!(Stamp::parse(&stamp.to_string()), stamp);
        assert_eq!(stamp.builder(), Some("rustc-web 1.96.0"));
    }

    #[test]
    fn the_sums_are_those_of_sha256sum() {
        assert_eq!(
            sha256(b""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
