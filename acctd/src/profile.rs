//! `-cpuprofile`: samples of the process's CPU time, from start to stop, in pprof's format.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use log::info;
use pprof::protos::Message;
use pprof::{ProfilerGuard, ProfilerGuardBuilder};

/// Samples a second of CPU time, as Go's profiler takes.
const FREQUENCY: i32 = 100;

/// A profile that is being taken.
#[derive(Debug)]
pub struct CpuProfile {
    file: File,
    path: PathBuf,
    guard: Guard,
}

struct Guard(ProfilerGuard<'static>);

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProfilerGuard")
    }
}

impl CpuProfile {
    /// Creates the file, so that a wrong path is found out now, and starts sampling.
    pub fn start(path: &Path) -> Result<Self> {
        info!("Starting cpu profiler on {}", path.display());
        let file = File::create(path).with_context(|| {
            format!(
                "cannot create {}: choose another file with --cpuprofile",
                path.display()
            )
        })?;
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
        })
    }

    /// Stops sampling and writes the profile.
    pub fn finish(mut self) -> Result<()> {
        let path = self.path.display().to_string();
        let mut write = || -> Result<()> {
            let profile = self.guard.0.report().build()?.pprof()?;
            self.file.write_all(&profile.encode_to_vec())?;
            Ok(())
        };
        write().with_context(|| format!("cannot write the cpu profile to {path}"))
    }
}
