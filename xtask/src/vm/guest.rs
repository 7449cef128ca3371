//! What is in a guest beside Debian's programs, and its run.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use testkit::interrupt::Interrupt;
use testkit::{print, process};

use super::host::directory;
use super::kernel::Kernel;
use super::machine::{Accelerator, Machine, NotBooted};
use super::run::{Ended, run};
use super::{archive, root};
use crate::arch::Arch;
use crate::workspace;

const INIT: &str = include_str!("init.sh");

pub(crate) struct Guest {
    arch: Arch,
    root: TempDir,
}

impl Guest {
    /// With the repository at its place.
    pub(crate) fn new(arch: Arch) -> Result<Self> {
        let guest = Self {
            arch,
            root: TempDir::with_prefix_in("guest-", directory()?)?,
        };
        let repository = workspace::root()?;
        let mut list = Command::new("git");
        list.args(["ls-files", "-z"]).current_dir(&repository);
        for file in process::output(&mut list)?.split_terminator('\0') {
            let from = repository.join(file);
            if from.is_file() {
                guest.install(&from, &from)?;
            }
        }
        Ok(guest)
    }

    /// Copies a file of the host.
    fn install(&self, from: &Path, to: &Path) -> Result<()> {
        let to = self.path(to)?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(())
    }

    /// Copies a program of the host, without what only a debugger reads.
    pub(crate) fn install_program(&self, from: &Path, to: &Path) -> Result<()> {
        let mut strip = Command::new(self.arch.gnu_tool("objcopy"));
        strip.arg("--strip-all").arg(from).arg(self.path(to)?);
        process::output(&mut strip).map(drop)
    }

    /// A path of the guest's, seen from here.
    fn path(&self, path: &Path) -> Result<PathBuf> {
        let path = self
            .root
            .path()
            .join(path.strip_prefix("/").unwrap_or(path));
        fs::create_dir_all(path.parent().context("a file")?)?;
        Ok(path)
    }

    /// For a command, which runs in the directory of the repository.
    pub(crate) fn pack(self, command: &[OsString]) -> Result<Packed> {
        let init = self.path("init".as_ref())?;
        fs::write(&init, INIT)?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
        fs::write(self.path("command".as_ref())?, script(command)?)?;
        let place = TempDir::with_prefix_in("packed-", directory()?)?;
        let own = place.path().join("own.cpio");
        archive::pack(self.root.path(), &own)?;
        Ok(Packed {
            arch: self.arch,
            debian: root::archive(self.arch)?,
            own,
            _place: place,
        })
    }
}

/// A guest that is ready to run.
pub(crate) struct Packed {
    arch: Arch,
    debian: PathBuf,
    own: PathBuf,
    _place: TempDir,
}

impl Packed {
    /// Runs the command in a fresh machine. `label` is put in front of each line that it prints.
    pub(crate) fn run(
        &self,
        kernel: &Kernel,
        label: &str,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<Ended> {
        let files = TempDir::with_prefix_in("run-", directory()?)?;
        let initramfs = files.path().join("initramfs");
        let archives = [Some(&self.debian), kernel.modules.as_ref(), Some(&self.own)];
        let archives: Vec<&Path> = archives
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
            .collect();
        archive::join(&archives, &initramfs)?;
        let machine = Machine {
            arch: self.arch,
            image: &kernel.image,
            initramfs: &initramfs,
            files: files.path(),
        };
        let best = Accelerator::best(self.arch);
        let mut done = run(&machine, best, label, limit, interrupt);
        let has_booted = !matches!(&done, Err(error) if error.is::<NotBooted>());
        if best == Accelerator::Kvm && !has_booted {
            print::line("vm: no guest boots with KVM here: its instructions are translated")?;
            done = run(&machine, Accelerator::Tcg, label, limit, interrupt);
        }
        done?;
        Ended::read(files)
    }
}

/// As `sh` reads it.
fn script(command: &[OsString]) -> Result<Vec<u8>> {
    let repository = workspace::root()?;
    let mut script = b"cd ".to_vec();
    quote(repository.as_os_str().as_bytes(), &mut script);
    script.extend(b"\nexec");
    for word in command {
        script.push(b' ');
        quote(word.as_bytes(), &mut script);
    }
    script.push(b'\n');
    Ok(script)
}

fn quote(word: &[u8], script: &mut Vec<u8>) {
    script.push(b'\'');
    for byte in word {
        match byte {
            b'\'' => script.extend(br"'\''"),
            byte => script.push(*byte),
        }
    }
    script.push(b'\'');
}
