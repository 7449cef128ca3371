//! A kernel and its modules: from Debian, from this machine, or built by the user.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::{fmt, fs};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use testkit::{print, process};

use super::archive;
use super::host::directory;
use crate::arch::Arch;

/// Debian's releases, and the versions that they have.
const SUITES: [(&str, &str); 4] = [
    ("5.10", "bullseye"),
    ("6.1", "bookworm"),
    ("6.12", "trixie"),
    ("7.2", "sid"),
];
/// The release that always has the newest.
const NEWEST: &str = "sid";

/// What tests and virtual machines use of it: all of networks, and what these need.
const MODULES: [&str; 9] = [
    "arch",
    "crypto",
    "drivers/block",
    "drivers/char",
    "drivers/net",
    "drivers/virtio",
    "fs/overlayfs",
    "lib",
    "net",
];

#[derive(Clone, Debug)]
pub(crate) enum KernelName {
    /// A version, or `newest`, and Debian's release that has it.
    Debian(String, &'static str),
    Host,
    Image(PathBuf),
}

impl FromStr for KernelName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, suite)) = SUITES.iter().find(|(version, _)| *version == text) {
            return Ok(Self::Debian(text.to_owned(), suite));
        }
        match text {
            "newest" => Ok(Self::Debian(text.to_owned(), NEWEST)),
            "host" => Ok(Self::Host),
            path if Path::new(path).is_file() => Ok(Self::Image(path.into())),
            _ => Err(format!(
                "it is neither a file, nor `host`, nor `newest`, nor one of {}",
                SUITES.map(|(version, _)| version).join(", ")
            )),
        }
    }
}

impl KernelName {
    /// The version of a kernel of Debian's; for the newest, the last that is known.
    pub(crate) fn version(&self) -> Option<&'static str> {
        let Self::Debian(_, suite) = self else {
            return None;
        };
        let (version, _) = SUITES.iter().find(|(_, other)| other == suite)?;
        Some(version)
    }
}

impl fmt::Display for KernelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian(version, _) => f.write_str(version),
            Self::Host => f.write_str("host"),
            Self::Image(path) => path.display().fmt(f),
        }
    }
}

/// A kernel image, and the archive of its modules.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    pub(crate) modules: Option<PathBuf>,
}

impl Kernel {
    pub(crate) fn find(name: &KernelName, modules: Option<PathBuf>, arch: Arch) -> Result<Self> {
        ensure!(
            modules.is_none() || matches!(name, KernelName::Image(_)),
            "--modules belongs to a kernel image: --kernel PATH"
        );
        match name {
            KernelName::Debian(version, suite) => debian(version, suite, arch),
            KernelName::Host => host(),
            KernelName::Image(image) => Ok(Self {
                image: image.clone(),
                modules: modules
                    .map(|root| modules_below(&root).and_then(|it| pack_own(&it)))
                    .transpose()?,
            }),
        }
    }
}

/// Kept: its files and versions do not change.
fn debian(version: &str, suite: &str, arch: Arch) -> Result<Kernel> {
    let place = directory()?.join(format!("linux-{version}-{}", arch.debian()));
    if !place.exists() {
        print::line(format!("vm: fetching Linux {version} of Debian's {suite}"))?;
        let half = TempDir::with_prefix_in("linux-", directory()?)?;
        let fetched = half.path().join("fetched");
        let root = fetch(version, suite, arch, half.path())?;
        fs::create_dir(&fetched)?;
        let modules = modules_below(&root)?;
        let release = modules.file_name().context("a release")?.to_string_lossy();
        let places = [
            modules.join("vmlinuz"),
            root.join(format!("boot/vmlinuz-{release}")),
        ];
        let image = places.iter().find(|place| place.exists());
        fs::rename(
            image.context("Debian's package has no kernel image")?,
            fetched.join("vmlinuz"),
        )?;
        pack_modules(&modules, &fetched.join("modules.cpio"))?;
        fs::rename(&fetched, &place)?;
    }
    Ok(Kernel {
        image: place.join("vmlinuz"),
        modules: Some(place.join("modules.cpio")),
    })
}

/// Downloads the packages of a kernel and unpacks them, with a configuration of apt's that leaves this machine's alone.
/// The release's signature is checked as usual.
fn fetch(version: &str, suite: &str, arch: Arch, place: &Path) -> Result<PathBuf> {
    const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let (root, debs) = (place.join("root"), place.join("debs"));
    for directory in ["debs", "state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(place.join(directory))?;
    }
    let arch = arch.debian();
    let source = format!(
        "deb [arch={arch} signed-by={KEYS}] {} {suite} main\n",
        mirror()
    );
    fs::write(place.join("sources.list"), source)?;
    fs::write(place.join("status"), "")?;
    let apt = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        let own = |name: &str, file: &str| format!("-oDir::{name}={}", place.join(file).display());
        command.args([
            own("Etc::sourcelist", "sources.list"),
            own("State", "state"),
            own("State::status", "status"),
            own("Cache", "cache"),
            "-oDir::Etc::sourceparts=-".to_owned(),
            // This directory is root's alone.
            "-oAPT::Sandbox::User=root".to_owned(),
            format!("-oAPT::Architecture={arch}"),
            format!("-oAPT::Architectures={arch}"),
        ]);
        process::output(command.args(words).current_dir(&debs))
    };
    apt("apt-get", &["-qq", "update"])?;
    let flavour = format!("linux-image-cloud-{arch}");
    let tree = apt(
        "apt-cache",
        &["depends", "--recurse", "--important", &flavour],
    )?;
    let packages: Vec<&str> = tree.lines().filter(|line| is_of_a_kernel(line)).collect();
    let has_version = |name: &&str| {
        let version = format!("-{version}.");
        name.contains(&version)
    };
    if version != "newest" && !packages.iter().any(has_version) {
        bail!(
            "Debian's {suite} has no Linux {version} any more, only {}",
            packages.join(" ")
        );
    }
    apt("apt-get", &[&["-qq", "download"], &packages[..]].concat())?;
    for deb in fs::read_dir(&debs)? {
        process::output(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(deb?.path())
                .arg(&root),
        )?;
    }
    Ok(root)
}

/// Since 7.x the image and its modules are packages of their own.
fn is_of_a_kernel(package: &str) -> bool {
    ["linux-image-", "linux-binary-", "linux-modules-"]
        .iter()
        .filter_map(|prefix| package.strip_prefix(prefix))
        .any(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// The mirror that this machine uses.
fn mirror() -> String {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI)"]);
    targets.args(["Created-By: Packages", "Origin: Debian", "Component: main"]);
    let found = process::output(&mut targets).unwrap_or_default();
    let mut mirrors = found.lines().filter(|uri| !uri.contains("security"));
    mirrors
        .next()
        .unwrap_or("http://deb.debian.org/debian")
        .to_owned()
}

fn host() -> Result<Kernel> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let image = PathBuf::from(format!("/boot/vmlinuz-{release}"));
    ensure!(
        image.exists(),
        "there is no {}, the image of the running kernel: name it with --kernel PATH",
        image.display()
    );
    let modules = Path::new("/lib/modules").join(&release);
    let modules = modules.exists().then(|| pack_own(&modules));
    Ok(Kernel {
        image,
        modules: modules.transpose()?,
    })
}

/// Packed anew each time: they may have been built anew.
fn pack_own(modules: &Path) -> Result<PathBuf> {
    let archive = directory()?.join("own-modules.cpio");
    pack_modules(modules, &archive)?;
    Ok(archive)
}

/// `lib/modules/RELEASE` below a root directory.
fn modules_below(root: &Path) -> Result<PathBuf> {
    // One of them may be a link to the other.
    let places = ["usr/lib/modules", "lib/modules"].map(|place| root.join(place));
    let place = places.into_iter().find(|place| place.exists());
    let place = place.with_context(|| format!("there are no modules below {}", root.display()))?;
    let entries = fs::read_dir(&place)?.flatten().map(|entry| entry.path());
    let mut releases: Vec<PathBuf> = entries.filter(|it| it.join("kernel").exists()).collect();
    match (releases.pop(), releases.is_empty()) {
        (Some(release), true) => Ok(release),
        _ => bail!(
            "{} has no kernel's modules, or several kernels'",
            place.display()
        ),
    }
}

/// What [`MODULES`] names, in the order of their needs (depmod(8)).
fn pack_modules(place: &Path, archive: &Path) -> Result<()> {
    let release = place.file_name().context("a release")?;
    let packed = TempDir::with_prefix_in("modules-", directory()?)?;
    let to = packed.path().join("lib/modules").join(release);
    fs::create_dir_all(&to)?;
    for kept in MODULES {
        let from = place.join("kernel").join(kept);
        if from.exists() {
            let into = to.join("kernel").join(kept);
            fs::create_dir_all(into.parent().unwrap_or(&to))?;
            process::output(Command::new("cp").arg("-r").arg(from).arg(into))?;
        }
    }
    for list in [
        "modules.order",
        "modules.builtin",
        "modules.builtin.modinfo",
    ] {
        // Not every kernel has all of them.
        fs::copy(place.join(list), to.join(list)).ok();
    }
    let mut depmod = Command::new("depmod");
    process::output(depmod.arg("--basedir").arg(packed.path()).arg(release))?;
    archive::pack(packed.path(), archive)
}
