//! Throwaway network namespaces.
//!
//! A namespace is held open by one child process that reads from a pipe and
//! nothing else. When the owner drops it, or dies in whatever way, the pipe
//! closes, the holder ends, and the kernel takes the namespace down with all
//! its devices and rules. No name is left anywhere.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{BufRead as _, BufReader, Read as _},
    path::{self, Path},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::process::{self, Process};

/// What the holder does before it waits for the end of its input.
///
/// - A fresh sysfs makes `/sys/class/net` show this namespace's devices. A
///   container may forbid it; nothing here depends on it.
/// - The IPv6 settings keep the kernel's own packets away (duplicate address
///   detection, router solicitations, link-local addresses), so that a test
///   counts its own packets alone. A kernel without IPv6 has no such files.
const HOLDER: &str = r"
set -e
mount -t sysfs sysfs /sys 2>/dev/null || true
for scope in all default; do
    conf=/proc/sys/net/ipv6/conf/$scope
    [ -d $conf ] || continue
    echo 0 >$conf/accept_dad
    echo 0 >$conf/accept_ra
    echo 0 >$conf/router_solicitations
    [ $scope = all ] || echo 1 >$conf/addr_gen_mode
done
ip link set lo up
echo ready
exec cat
";

/// The programs that this module, `veth` and `nft` start.
const PROGRAMS: [&str; 5] = ["unshare", "nsenter", "setpriv", "ip", "nft"];

/// By whose right a namespace is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// As root, in the user namespace that the caller is in.
    Root,
    /// As the current user, in a user namespace of its own.
    UserNamespace,
    /// From root, as this user in a user namespace of its own: what an
    /// ordinary user sees. Programs run in it, and the directories they write
    /// to, must be accessible to that user.
    UserNamespaceAs(u32),
}

impl Privilege {
    /// What the current user can do: root if it is root, else a user
    /// namespace.
    pub fn of_this_process() -> Self {
        if rustix::process::geteuid().is_root() {
            Self::Root
        } else {
            Self::UserNamespace
        }
    }

    /// Whether namespaces can be made by this right here; if not, why not and
    /// what would help.
    pub fn available(self) -> Result<(), String> {
        if self != Self::UserNamespace && !rustix::process::geteuid().is_root() {
            return Err("not root".to_owned());
        }
        for program in PROGRAMS {
            if find_program(program).is_none() {
                return Err(format!(
                    "`{program}` is not installed; run `cargo xtask setup`"
                ));
            }
        }
        process::output(self.unshare().arg("true"))
            .map(drop)
            .map_err(|error| format!("the kernel refuses a network namespace: {error:#}"))
    }

    /// The start of a command line that makes the namespaces.
    fn unshare(self) -> Command {
        let mut argv = self.identity();
        if self.has_user_namespace() {
            // The user namespace comes first, by itself. Were it made in one
            // step with the network namespace, its ids would not be mapped
            // yet when the kernel creates the files of /proc/net/netfilter,
            // and these would belong to nobody who could read them.
            argv.extend(["unshare", "-U", "-r", "--"].map(OsString::from));
        }
        argv.extend(["unshare", "-n", "-m", "--propagation", "private", "--"].map(OsString::from));
        command(argv)
    }

    /// The start of a command line that enters the namespaces of a process.
    fn enter(self, pid: u32) -> Vec<OsString> {
        let mut argv = self.identity();
        argv.extend(["nsenter".into(), "-t".into(), pid.to_string().into()]);
        if self.has_user_namespace() {
            argv.extend(["-U", "--preserve-credentials"].map(OsString::from));
        }
        argv.extend(["-m", "-n", "--"].map(OsString::from));
        argv
    }

    /// The change of user, if any. It comes before a user namespace is
    /// entered: there, only the user who made it keeps its capabilities when
    /// it starts a program.
    fn identity(self) -> Vec<OsString> {
        let Self::UserNamespaceAs(uid) = self else {
            return Vec::new();
        };
        let uid = uid.to_string();
        [
            "setpriv",
            "--reuid",
            &uid,
            "--regid",
            &uid,
            "--clear-groups",
            "--",
        ]
        .map(OsString::from)
        .into()
    }

    fn has_user_namespace(self) -> bool {
        self != Self::Root
    }
}

/// A network namespace with a mount namespace of its own and `lo` up, gone
/// when dropped. Processes still running in it keep it alive; end them first.
#[derive(Debug)]
pub struct Namespace {
    privilege: Privilege,
    holder: Process,
}

impl Namespace {
    pub fn new(privilege: Privilege) -> Result<Self> {
        let holder = hold(privilege.unshare()).context("cannot make a network namespace")?;
        Ok(Self { privilege, holder })
    }

    /// Makes another network namespace in the same user namespace, so that a
    /// device can have one end in each.
    pub fn peer(&self) -> Result<Self> {
        let mut unshare = self.command("unshare");
        unshare.args(["-n", "-m", "--propagation", "private", "--"]);
        let holder = hold(unshare).context("cannot make a second network namespace")?;
        Ok(Self {
            privilege: self.privilege,
            holder,
        })
    }

    /// A command that runs `program` in this namespace. The child's process
    /// id is the program's own, and its working directory is `/`; a relative
    /// path to the program itself is resolved here.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let program = program.as_ref();
        let mut argv = self.privilege.enter(self.pid());
        argv.push(match path::absolute(program) {
            Ok(absolute) if Path::new(program).components().count() > 1 => absolute.into(),
            _ => program.to_owned(),
        });
        command(argv)
    }

    /// Runs a command line in this namespace to completion and returns its
    /// output. The error holds the command line and its standard error.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let [program, args @ ..] = words else {
            bail!("an empty command line");
        };
        process::output(self.command(program).args(args))
    }

    /// The process id of the holder, by which `ip link … netns` knows this
    /// namespace.
    pub fn pid(&self) -> u32 {
        self.holder.pid()
    }
}

/// Starts the process that holds a namespace and waits until it is ready.
fn hold(mut unshare: Command) -> Result<Process> {
    use std::os::unix::process::CommandExt as _;
    unshare
        .args(["sh", "-c", HOLDER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C in a terminal goes to the whole process group. The holder is
        // to end with its owner, after whatever its owner still does.
        .process_group(0);
    let mut holder = Process::spawn(&mut unshare)?;

    let mut line = String::new();
    if let Some(stdout) = holder.child().stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    if line != "ready\n" {
        let mut complaint = String::new();
        if let Some(mut stderr) = holder.child().stderr.take() {
            stderr.read_to_string(&mut complaint)?;
        }
        bail!("{}", complaint.trim());
    }
    Ok(holder)
}

/// A command from its words, with the system's directories on its `PATH`:
/// Debian's ordinary users do not have those of `ip` and `nft` on theirs.
fn command(argv: Vec<OsString>) -> Command {
    let mut argv = argv.into_iter();
    let mut command = Command::new(argv.next().unwrap_or_default());
    command.args(argv).env("PATH", search_path());
    command
}

/// Where a program is, on `PATH` or in the system's directories.
pub fn find_program(name: &str) -> Option<path::PathBuf> {
    env::split_paths(&search_path())
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push("/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin");
    path
}
