//! `-cpuprofile`: samples of the process's CPU time, from start to stop, in the format of pprof.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use log::info;
use pprof::protos::Message;
use pprof::{ProfilerGuard, ProfilerGuardBuilder};
use tempfile::TempDir;

use crate::process::user::FILE_MODE;

/// Samples per second of CPU time, as in Go's profiler.
const FREQUENCY: i32 = 100;

/// A running profiler.
pub(crate) struct CpuProfile {
    file: File,
    path: PathBuf,
    guard: ProfilerGuard<'static>,
    /// Dropped after the guard, which stops sampling. Removes pprof's files.
    _scratch: TempDir,
}

impl CpuProfile {
    /// Creates the file first, so that a wrong path is an error at the start, and starts sampling.
    pub(crate) fn start(path: &Path) -> Result<Self> {
        info!("Starting cpu profiler on {}", path.display());
        let file = create(path).with_context(|| {
            format!(
                "cannot create {}: choose another file with --cpuprofile",
                path.display()
            )
        })?;
        let scratch = scratch_for_pprof().context("cannot start the cpu profiler")?;
        let builder = ProfilerGuardBuilder::default().frequency(FREQUENCY);
        // A signal may interrupt the unwinder, which is not reentrant. On other processors pprof cannot know.
        #[cfg(any(
            target_arch = "x86_64",
            target_arch = "aarch64",
            target_arch = "riscv64"
        ))]
        let builder = builder.blocklist(&["libc", "libgcc", "pthread", "vdso"]);
        let guard = builder.build().context("cannot start the cpu profiler")?;
        Ok(Self {
            file,
            path: path.to_owned(),
            guard,
            _scratch: scratch,
        })
    }

    /// Stops sampling and writes the profile.
    pub(crate) fn finish(mut self) -> Result<()> {
        let path = self.path.display().to_string();
        let mut write = || -> Result<()> {
            let profile = self.guard.report().build()?.pprof()?;
            self.file.write_all(&profile.encode_to_vec())?;
            Ok(())
        };
        write().with_context(|| format!("cannot write the cpu profile to {path}"))
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    options.mode(FILE_MODE).open(path)
}

/// After some thousand samples, pprof writes to a temporary file, opens it by its name at the end, and keeps it
/// in a static that is never dropped. So it gets a separate directory. Nothing else in acctd creates temporary
/// files with that crate.
fn scratch_for_pprof() -> Result<TempDir> {
    let scratch = tempfile::Builder::new().prefix("acctd-").tempdir()?;
    // This can be set once, and a process takes one profile.
    if let Err(other) = tempfile::env::override_temp_dir(scratch.path()) {
        bail!(
            "the directory for temporary files is already {}",
            other.display()
        );
    }
    Ok(scratch)
}
