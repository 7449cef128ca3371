//! `-cpuprofile`: samples of the process's CPU time, from start to stop, in pprof's format.

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

/// Samples a second of CPU time, as Go's profiler takes.
const FREQUENCY: i32 = 100;

/// A profile that is being taken.
#[derive(Debug)]
pub(crate) struct CpuProfile {
    file: File,
    path: PathBuf,
    guard: Guard,
    /// Removed with all that pprof has put into it; dropped after the guard, which stops sampling.
    _scratch: TempDir,
}

struct Guard(ProfilerGuard<'static>);

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProfilerGuard")
    }
}

impl CpuProfile {
    /// Creates the file, so that a wrong path is found out now, and starts sampling.
    pub(crate) fn start(path: &Path) -> Result<Self> {
        info!("Starting cpu profiler on {}", path.display());
        let file = create(path).with_context(|| {
            format!(
                "cannot create {}: choose another file with --cpuprofile",
                path.display()
            )
        })?;
        let scratch = scratch_for_pprof().context("cannot start the cpu profiler")?;
        let guard = ProfilerGuardBuilder::default()
            .frequency(FREQUENCY)
            // The unwinder is not safe to enter again from a signal that came within it.
            .blocklist(&["libc", "libgcc", "pthread", "vdso"])
            .build()
            .context("cannot start the cpu profiler")?;
        Ok(Self {
            file,
            path: path.to_owned(),
            guard: Guard(guard),
            _scratch: scratch,
        })
    }

    /// Stops sampling and writes the profile.
    pub(crate) fn finish(mut self) -> Result<()> {
        let path = self.path.display().to_string();
        let mut write = || -> Result<()> {
            let profile = self.guard.0.report().build()?.pprof()?;
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

/// pprof puts samples beyond some thousands into a temporary file, opens it by its name at the end,
/// and keeps it in a static that is never dropped. So it gets a directory of its own for it. Nothing
/// else in acctd makes temporary files through that crate.
fn scratch_for_pprof() -> Result<TempDir> {
    let scratch = tempfile::Builder::new().prefix("acctd-").tempdir()?;
    // It can be set once, and one profile is all that a process takes.
    if let Err(other) = tempfile::env::override_temp_dir(scratch.path()) {
        bail!("temporary files go to {} already", other.display());
    }
    Ok(scratch)
}
