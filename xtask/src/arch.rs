//! Processors: this machine's, and others that acctd is built for and tried on.

use clap::ValueEnum;

/// A processor, as qemu and Linux call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    #[value(name = "x86_64", alias = "amd64")]
    X86_64,
    #[value(name = "aarch64", alias = "arm64")]
    Aarch64,
}

impl Arch {
    pub(crate) fn of_this_machine() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else {
            Self::X86_64
        }
    }

    pub(crate) fn is_of_this_machine(self) -> bool {
        self == Self::of_this_machine()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As Debian calls it.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// A program of the GNU tools that reads or writes this processor's programs.
    pub(crate) fn gnu_tool(self, name: &str) -> String {
        if self.is_of_this_machine() {
            name.to_owned()
        } else {
            format!("{}-linux-gnu-{name}", self.name())
        }
    }
}
