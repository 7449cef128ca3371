//! The part of a service manager that keeps descriptors, as systemd does it.

use std::ffi::OsString;
use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, IntoRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::process::Signal;

use crate::rig::{Acctd, Ended, Rig};
use crate::waiting::{PATIENCE, wait_until};

/// The part of a service manager that keeps descriptors, as systemd does it: it takes messages from a
/// datagram socket, and passes what it holds to acctd at each start. A test with it runs alone: a program that
/// another test starts has, until its exec, a copy of each descriptor of this one, and so keeps a group bound.
pub(super) struct Manager {
    path: PathBuf,
    told: Arc<Mutex<Told>>,
    /// Marks that were sent.
    n_marks: AtomicU64,
}

#[derive(Default)]
pub(super) struct Told {
    pub(super) store: Vec<(String, OwnedFd)>,
    /// The messages that had no descriptors to do with.
    words: Vec<String>,
    /// The last mark that came.
    mark: u64,
    /// Something was not as it should be.
    complaint: Option<anyhow::Error>,
}

/// In one message.
const MOST_FDS: usize = 8;

/// The word by which this program is started to hand descriptors over.
pub(crate) const HAND_OVER: &str = "hand-over";

/// Sent by the test itself, with its number.
const MARK: &str = "MARK=";

impl Manager {
    pub(super) fn new(rig: &Rig) -> Result<Self> {
        let path = rig.scratch().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        let told: Arc<Mutex<Told>> = Arc::default();
        let listener = Arc::clone(&told);
        // Ends with the test program.
        thread::spawn(move || {
            loop {
                let received = receive(socket.as_fd(), RecvFlags::CMSG_CLOEXEC);
                let mut told = listener.lock().unwrap_or_else(PoisonError::into_inner);
                let taken = match received {
                    Ok((message, fds)) => told.take_in(&message, fds).context(message),
                    Err(error) => Err(error),
                };
                if let Err(error) = taken {
                    told.complaint = Some(error);
                }
            }
        });
        let n_marks = AtomicU64::new(0);
        Ok(Self {
            path,
            told,
            n_marks,
        })
    }

    /// Starts acctd and waits until it counts.
    pub(super) fn start(&self, rig: &Rig, args: &[&str]) -> Result<Acctd> {
        self.start_under(rig, &[], args)
    }

    /// `wrapper` is a command line that starts what follows it.
    pub(super) fn start_under(&self, rig: &Rig, wrapper: &[&str], args: &[&str]) -> Result<Acctd> {
        let acctd = self.start_unready(rig, wrapper, args)?;
        acctd.wait_for_line("Started accounting")?;
        wait_until("acctd says that it is ready", || {
            Ok(self.told()?.words.iter().any(|word| word == "READY=1"))
        })?;
        Ok(acctd)
    }

    pub(super) fn start_unready(
        &self,
        rig: &Rig,
        wrapper: &[&str],
        args: &[&str],
    ) -> Result<Acctd> {
        let mut told = self.told()?;
        told.words.clear();
        let (ours, theirs) = UnixDatagram::pair()?;
        send(&ours, told.store.iter().map(|(_, fd)| fd.as_fd()))?;
        // What the test program itself has inherited is in the way of the numbers from 3 on.
        let script = "exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-; exec \"$@\"";
        let mut command = rig.router.command("sh");
        command
            .args(["-c", script, "sh"])
            .arg(rig.generator())
            .arg(HAND_OVER)
            .args(wrapper)
            .arg(rig.acctd_path())
            .arg("-log-directory")
            .arg(rig.log_directory())
            .args(args)
            .env("NOTIFY_SOCKET", &self.path)
            .stdin(OwnedFd::from(theirs));
        let names: Vec<&str> = told.store.iter().map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            command.env("LISTEN_FDS", names.len().to_string());
            command.env("LISTEN_FDNAMES", names.join(":"));
        }
        Acctd::spawn_with_input(&mut command)
    }

    /// Ends acctd as for a restart; all must be well.
    pub(super) fn end_for_restart(&self, acctd: Acctd) -> Result<Ended> {
        self.end(acctd, Signal::USR2)
    }

    pub(super) fn end(&self, acctd: Acctd, signal: Signal) -> Result<Ended> {
        let ended = acctd.stop(signal)?;
        ensure!(ended.code == Some(0), "{:?}", ended.log);
        let told = self.told()?;
        ensure!(
            told.words.last().is_some_and(|word| word == "STOPPING=1"),
            "{:?}",
            told.words
        );
        Ok(ended)
    }

    pub(super) fn names(&self) -> Result<Vec<String>> {
        let told = self.told()?;
        let names = told.store.iter().map(|(name, _)| name.clone());
        // Before Linux 6.6 there is a socket that has no group.
        let mut names: Vec<String> = names.filter(|name| name != "receive-stamps").collect();
        names.sort_unstable();
        Ok(names)
    }

    /// All that was sent until now is taken in.
    pub(super) fn told(&self) -> Result<MutexGuard<'_, Told>> {
        let marker = UnixDatagram::unbound()?;
        let mark = self.n_marks.fetch_add(1, Ordering::Relaxed) + 1;
        marker.send_to(format!("{MARK}{mark}").as_bytes(), &self.path)?;
        let end = Instant::now() + PATIENCE;
        loop {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(complaint) = told.complaint.take() {
                bail!(complaint);
            }
            if told.mark >= mark {
                return Ok(told);
            }
            drop(told);
            ensure!(
                Instant::now() < end,
                "the manager has not taken in mark {mark}"
            );
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Told {
    fn take_in(&mut self, message: &str, fds: Vec<OwnedFd>) -> Result<()> {
        let lines: Vec<&str> = message.lines().collect();
        let name = lines.iter().find_map(|line| line.strip_prefix("FDNAME="));
        if lines.contains(&"FDSTORE=1") {
            ensure!(lines.contains(&"FDPOLL=0"), "an overrun would end it");
            let name = name.context("a descriptor without a name")?;
            for fd in fds {
                // What it holds already it does not take again, whatever its name.
                if !self.store.iter().any(|(_, held)| is_same(held, &fd)) {
                    self.store.push((name.to_owned(), fd));
                }
            }
        } else if lines.contains(&"FDSTOREREMOVE=1") {
            let name = name.context("nothing to remove")?;
            self.store.retain(|(held, _)| held != name);
        } else if lines.contains(&"BARRIER=1") {
            ensure!(fds.len() == 1, "a pipe to close");
        } else if let Some(mark) = message.strip_prefix(MARK) {
            self.mark = mark.parse()?;
        } else {
            ensure!(fds.is_empty(), "descriptors for nothing");
            self.words.push(message.trim_end().to_owned());
        }
        Ok(())
    }
}

/// `namespaces hand-over PROGRAM ARG…` becomes PROGRAM, with the descriptors that come over its standard input, from
/// number 3 on, as systemd passes them. It does so in a process of its own: a descriptor that the test program made
/// inheritable would also be in what another test starts at that moment.
pub(crate) fn hand_over_from(mut args: impl Iterator<Item = OsString>) -> Result<()> {
    let (_, fds) = receive(std::io::stdin().as_fd(), RecvFlags::empty())?;
    for (expected, fd) in (3..).zip(fds) {
        let number = fd.into_raw_fd();
        ensure!(number == expected, "descriptor {expected} is {number}");
    }
    let mut command = Command::new(args.next().context("no program")?);
    command
        .args(args)
        .env("LISTEN_PID", std::process::id().to_string())
        .stdin(Stdio::null());
    Err(command.exec().into())
}

fn send<'a>(socket: &UnixDatagram, fds: impl Iterator<Item = BorrowedFd<'a>>) -> Result<()> {
    let fds: Vec<BorrowedFd<'_>> = fds.collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        let has_room = ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        ensure!(has_room, "{} descriptors at once", fds.len());
    }
    let text = [IoSlice::new(b".")];
    rustix::net::sendmsg(socket, &text, &mut ancillary, SendFlags::empty())?;
    Ok(())
}

fn receive(socket: BorrowedFd<'_>, flags: RecvFlags) -> Result<(String, Vec<OwnedFd>)> {
    let mut text = [0; 1_024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut text)],
        &mut ancillary,
        flags,
    )?;
    ensure!(
        !received.flags.contains(ReturnFlags::CTRUNC),
        "too many descriptors"
    );
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((
        String::from_utf8_lossy(&text[..received.bytes]).into_owned(),
        fds,
    ))
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let identity = |fd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    identity(one).is_ok_and(|one| identity(other) == Ok(one))
}
