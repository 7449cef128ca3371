//! qemu's command line.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{error, fmt};

use anyhow::{Context as _, Result};
use testkit::netns::find_program;

use crate::arch::Arch;

/// MiB. The root directory is a part of it.
const MEMORY: u32 = 3072;

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// This machine's processor. On some virtual machines it is there and a guest does not get on.
    Kvm,
    /// qemu, which translates them.
    Tcg,
}

impl Accelerator {
    /// How long a guest may take from power on until its command starts, also beside other work.
    pub(super) fn boot_limit(self) -> Duration {
        match self {
            Self::Kvm => Duration::from_secs(6),
            Self::Tcg => Duration::from_secs(180),
        }
    }

    /// The best that may work.
    pub(super) fn best(arch: Arch) -> Self {
        let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
        if arch.is_of_this_machine() && kvm.is_ok() {
            Self::Kvm
        } else {
            Self::Tcg
        }
    }
}

/// The error of a guest whose command has not started, or not in time. It has the last lines of the console.
#[derive(Debug)]
pub(super) struct NotBooted(pub(super) String);

impl fmt::Display for NotBooted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the guest has not booted, or not in time; its kernel printed last:\n{}",
            self.0
        )
    }
}

impl error::Error for NotBooted {}

/// The files of the host that take what the guest writes, in this order.
pub(super) const PORTS: [&str; 4] = ["out", "err", "files", "result"];
pub(super) const CONSOLE: &str = "console";

/// A guest's machine.
pub(super) struct Machine<'a> {
    pub(super) arch: Arch,
    pub(super) image: &'a Path,
    pub(super) initramfs: &'a Path,
    /// Where the files of the ports are.
    pub(super) files: &'a Path,
}

impl Machine<'_> {
    pub(super) fn command(&self, accelerator: Accelerator) -> Result<Command> {
        let (machine, emulated, console) = match self.arch {
            Arch::X86_64 => ("q35", "max", "ttyS0"),
            // The default, `max`, spends its time on pointer authentication.
            Arch::Aarch64 => ("virt,gic-version=3", "cortex-a72", "ttyAMA0"),
        };
        let (accelerated_by, processor, n_processors) = match accelerator {
            Accelerator::Kvm => ("kvm", "host", "2"),
            // With a thread for each of two processors, one may run an instruction that the other is just replacing:
            // the kernel then stops with "Oops: int3". With one thread for both, each stands still for 100 ms at a time.
            Accelerator::Tcg => ("tcg", emulated, "1"),
        };
        let program = format!("qemu-system-{}", self.arch.name());
        let program = find_program(&program).with_context(|| format!("there is no {program}"))?;
        let mut qemu = Command::new(program);
        qemu.args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ])
        .args([
            "-machine",
            machine,
            "-accel",
            accelerated_by,
            "-cpu",
            processor,
        ])
        .args(["-smp", n_processors, "-m", &MEMORY.to_string()])
        .arg("-kernel")
        .arg(self.image)
        .arg("-initrd")
        .arg(self.initramfs)
        // After a panic or an oops the machine restarts, which ends qemu.
        .arg("-append")
        .arg(format!(
            "console={console} rdinit=/init panic=-1 oops=panic quiet"
        ))
        .args(["-device", "virtio-serial-pci"]);
        for name in PORTS.iter().chain([&CONSOLE]) {
            let file = self.files.join(name);
            let file = file.display();
            qemu.arg("-chardev")
                .arg(format!("file,id={name},path={file}"));
        }
        for name in PORTS {
            let port = format!("virtserialport,chardev={name},name={name}");
            qemu.args(["-device", &port]);
        }
        qemu.arg("-serial").arg(format!("chardev:{CONSOLE}"));
        qemu.stdin(Stdio::null());
        if accelerator == Accelerator::Kvm {
            // If it fails, TCG is next.
            qemu.stderr(Stdio::null());
        }
        Ok(qemu)
    }
}
