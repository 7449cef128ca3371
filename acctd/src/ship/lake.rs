//! Sends the archives of a host to a directory or a bucket, below its name, as they are. Nothing there is ever replaced.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use log::error;
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use super::sink::{Compared, Outcome, Sink};
use super::state::State;
use crate::client::s3::{Bucket, Object};
use crate::fault_points::reached;
use crate::files::archive::{self, Archive, JOURNAL_EXTENSION};
use crate::files::directory;
use crate::model::interval::UnixNanos;
use crate::output::log_directory::LogDirectory;

/// What is read of a file at once.
const BUFFER: usize = 65_536;
/// Archives are named after it: 2026-11-28.
const DAY_LENGTH: usize = 10;

/// Where archives are sent to.
#[derive(Debug)]
pub(super) enum Place {
    Directory(PathBuf),
    /// With a prefix that is empty or ends with a slash.
    Bucket(Box<Bucket>, String),
}

/// Sends the archives of one directory.
#[derive(Debug)]
pub(super) struct Lake {
    directory: PathBuf,
    place: Place,
    host: String,
    /// Archives that are there.
    stored: HashSet<String>,
    /// The sizes of archives that could not be sent. If the size of one changes, it is sent again.
    refused: HashMap<String, u64>,
    state: Arc<State>,
}

/// Whether a file is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Same,
    Other,
}

impl Lake {
    pub(super) fn new(directory: &Path, place: Place, host: String) -> Result<Self> {
        ensure!(
            !host.contains('/') && !host.starts_with('.'),
            "{host:?} cannot be the name of a directory: see --host"
        );
        Ok(Self {
            directory: directory.to_owned(),
            place,
            host,
            stored: HashSet::new(),
            refused: HashMap::new(),
            state: Arc::new(State::new()),
        })
    }

    /// In the order of their days.
    fn archives(&self) -> Result<BTreeSet<String>> {
        let names = directory::names(&self.directory)?.into_iter();
        Ok(names.filter(|name| archive::is_name(name)).collect())
    }

    fn waiting(&self) -> Result<Vec<String>> {
        let mut waiting = Vec::new();
        let mut oldest = None;
        for name in self.archives()? {
            if self.stored.contains(&name) {
                continue;
            }
            let metadata = fs::metadata(self.directory.join(&name))?;
            if self.refused.get(&name) == Some(&metadata.len()) {
                continue;
            }
            let age = metadata.modified()?.duration_since(UNIX_EPOCH);
            oldest = oldest.or(Some(UnixNanos(0).plus(age.unwrap_or_default())));
            waiting.push(name);
        }
        self.state.waiting.set(i64::try_from(waiting.len())?);
        self.state.set_oldest(oldest);
        Ok(waiting)
    }

    /// Sends an archive, and its lines of the journal before, if they are not there. Returns whether it was sent.
    fn send(&mut self, name: &str) -> Result<bool> {
        let archive = match Archive::open(&self.directory.join(name)) {
            Ok(archive) => archive,
            Err(error) => {
                self.refuse(name, &format!("{error:#}"))?;
                return Ok(false);
            }
        };
        let mut is_sent = false;
        for file in self.files(name) {
            let mut found = self.find(&file, is_sent)?;
            if found == Found::Nothing {
                reached("ship-send");
                self.create(&file)?;
                is_sent = true;
                reached("ship-compare");
                found = self.find(&file, true)?;
            }
            match found {
                Found::Same => {}
                Found::Nothing => bail!("{file} was sent, and is not there"),
                Found::Other => {
                    self.refuse(name, OTHER)?;
                    return Ok(false);
                }
            }
        }
        self.stored.insert(name.to_owned());
        self.refused.remove(name);
        self.state.waiting.dec();
        if is_sent {
            self.state.files.inc();
            let sizes = archive.files.iter().map(|file| file.size);
            self.state.bytes.inc_by(sizes.sum());
            self.state.rows.inc_by(rows(&archive));
        }
        Ok(is_sent)
    }

    /// An archive's files: its lines, if it has some, are there before it.
    fn files(&self, name: &str) -> Vec<String> {
        let lines = Path::new(name).with_extension(JOURNAL_EXTENSION);
        let lines = lines.to_string_lossy().into_owned();
        let mut files = Vec::new();
        if self.directory.join(&lines).exists() {
            files.push(lines);
        }
        files.push(name.to_owned());
        files
    }

    fn refuse(&mut self, name: &str, why: &str) -> Result<()> {
        let path = self.directory.join(name);
        error!("{} is not sent: {why}", path.display());
        self.refused
            .insert(name.to_owned(), fs::metadata(&path)?.len());
        self.state.refused.set(i64::try_from(self.refused.len())?);
        self.state.waiting.dec();
        Ok(())
    }

    /// By its size; `with_digest`: to the last byte.
    fn find(&self, name: &str, with_digest: bool) -> Result<Found> {
        let path = self.directory.join(name);
        let found = match &self.place {
            Place::Bucket(bucket, prefix) => bucket.find(&self.key(prefix, name))?,
            Place::Directory(directory) => {
                let path = directory.join(&self.host).join(name);
                match fs::metadata(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => return Err(error).context(path.display().to_string()),
                    Ok(metadata) => Some(Object {
                        size: metadata.len(),
                        sha256: with_digest.then(|| sha256(&path)).transpose()?,
                    }),
                }
            }
        };
        let Some(found) = found else {
            return Ok(Found::Nothing);
        };
        let is_same = found.size == fs::metadata(&path)?.len()
            && (!with_digest || found.sha256 == Some(sha256(&path)?));
        Ok(if is_same { Found::Same } else { Found::Other })
    }

    fn key(&self, prefix: &str, name: &str) -> String {
        format!("{prefix}{}/{name}", self.host)
    }

    /// Unless there is one of this name.
    fn create(&self, name: &str) -> Result<()> {
        let path = self.directory.join(name);
        let mut file = File::open(&path)?;
        let directory = match &self.place {
            Place::Bucket(bucket, prefix) => {
                return bucket.create(&self.key(prefix, name), &file, &sha256(&path)?);
            }
            Place::Directory(directory) => directory.join(&self.host),
        };
        let written = (|| {
            fs::create_dir_all(&directory)?;
            let directory = LogDirectory::open(&directory)?;
            // A killed one's is written again.
            let temporary = format!(".{name}");
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
            let mut copy = directory.open_file(&temporary, flags)?;
            io::copy(&mut file, &mut copy)?;
            copy.sync_all()?;
            match directory.rename_without_replacing(&temporary, name) {
                // Another one was faster; what it has sent is looked at.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    directory.remove(&temporary)
                }
                renamed => renamed,
            }?;
            directory.sync()
        })();
        written.with_context(|| directory.join(name).display().to_string())
    }

    /// Compares a file of the archive `name` with what is there. `rows` is how many rows the archive has, or why it cannot be read.
    fn compare_one(&self, name: &str, file: &str, rows: &Result<u64>) -> Result<Compared> {
        let compared = |rows, outcome, why: &str| Compared {
            file: file.to_owned(),
            rows,
            outcome,
            why: why.to_owned(),
        };
        let rows = match rows {
            Ok(rows) if file == name => *rows,
            Ok(_) => 0,
            Err(error) => return Ok(compared(0, Outcome::Changed, &format!("{error:#}"))),
        };
        Ok(match self.find(file, true)? {
            Found::Same => compared(rows, Outcome::Same, ""),
            Found::Nothing => compared(rows, Outcome::NotThere, "it is not there"),
            Found::Other => compared(rows, Outcome::Changed, OTHER),
        })
    }
}

const OTHER: &str = "another file is there, which is not replaced: this one was changed, or another machine sends as this host (--host)";

impl Sink for Lake {
    fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Archives are made when their host likes.
    fn interval(&self) -> Duration {
        Duration::ZERO
    }

    fn round(&mut self) -> Result<usize> {
        let mut n_sent = 0;
        for name in self.waiting()? {
            n_sent += usize::from(self.send(&name)?);
        }
        Ok(n_sent)
    }

    fn roll_up(&mut self) -> Result<()> {
        Ok(())
    }

    fn disconnect(&mut self) {
        self.stored.clear();
    }

    fn compare(&mut self, each: &mut dyn FnMut(&str, Vec<Compared>) -> Result<()>) -> Result<()> {
        let archives: Vec<String> = self.archives()?.into_iter().collect();
        for of_day in archives.chunk_by(|a, b| a[..DAY_LENGTH] == b[..DAY_LENGTH]) {
            let mut compared = Vec::new();
            for name in of_day {
                let archive = Archive::open(&self.directory.join(name));
                let rows = archive.map(|archive| rows(&archive));
                for file in self.files(name) {
                    let of_file = self.compare_one(name, &file, &rows)?;
                    if of_file.outcome == Outcome::NotThere {
                        // What kept it from being sent may be gone.
                        self.refused.remove(name);
                    }
                    compared.push(of_file);
                }
            }
            each(&of_day[0][..DAY_LENGTH], compared)?;
        }
        self.state.refused.set(i64::try_from(self.refused.len())?);
        Ok(())
    }

    /// Nothing is replaced.
    fn send_again(&mut self, _name: String) {}

    fn check_roll_ups(&mut self) -> Result<usize> {
        Ok(0)
    }
}

fn rows(archive: &Archive) -> u64 {
    archive.files.iter().map(|file| file.rows).sum()
}

/// Of a file, in hexadecimal.
fn sha256(path: &Path) -> Result<String> {
    let failed = || path.display().to_string();
    let file = File::open(path).with_context(failed)?;
    let mut reader = BufReader::with_capacity(BUFFER, file);
    let mut digest = Sha256::new();
    loop {
        let read = reader.fill_buf().with_context(failed)?;
        let n = read.len();
        if n == 0 {
            return Ok(hex::encode(digest.finalize()));
        }
        digest.update(read);
        reader.consume(n);
    }
}
