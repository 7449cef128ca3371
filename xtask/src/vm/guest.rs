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

use super::host::{Arch, directory};
use super::kernel::Kernel;
use super::machine::{Accelerator, Machine, NotBooted};
use super::run::{Ended, run};
use super::{archive, root};
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
        let objcopy = match self.arch {
            arch if arch == Arch::of_this_machine() => "objcopy".to_owned(),
            arch => format!("{}-linux-gnu-objcopy", arch.name()),
        };
        let mut strip = Command::new(objcopy);
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

    /// Runs a command in a fresh machine, in the directory of the repository.
    pub(crate) fn run(
        &self,
        kernel: &Kernel,
        command: &[OsString],
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<Ended> {
        let init = self.path("init".as_ref())?;
        fs::write(&init, INIT)?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
        fs::write(self.path("command".as_ref())?, script(command)?)?;
        let files = TempDir::with_prefix_in("run-", directory()?)?;
        let own = files.path().join("own.cpio");
        archive::pack(self.root.path(), &own)?;
        let base = root::archive(self.arch)?;
        let initramfs = files.path().join("initramfs");
        let archives = [Some(&base), kernel.modules.as_ref(), Some(&own)];
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
        let mut done = run(&machine, best, limit, interrupt);
        let has_booted = !matches!(&done, Err(error) if error.is::<NotBooted>());
        if best == Accelerator::Kvm && !has_booted {
            print::line("vm: no guest boots with KVM here: its instructions are translated")?;
            done = run(&machine, Accelerator::Tcg, limit, interrupt);
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
