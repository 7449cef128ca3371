//! The daemon's flags. The doc comments are the text of `--help` and of the man page.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{ArgAction, Args, ValueEnum};

use crate::cli::go_flags;
use crate::config::crosscheck::{AttachMode, Watched};
use crate::config::listen_address::ListenAddress;
use crate::model::group::NflogGroup;
use crate::model::interval::Interval;
use crate::model::prefix::{Family, Side};
use crate::process::user::User;

const WHAT_IS_COUNTED: &str = "What is counted";
const FILES: &str = "Files";
const CROSS_CHECK: &str = "Cross-check with the kernel's own count (TC eBPF)";
const LOGGING: &str = "Logging";
const OBSERVATION: &str = "Observation";
const PROCESS: &str = "Process";

/// More groups than cores are of no use, and each may take 32 MiB of kernel memory.
const MAX_GROUPS_PER_FLAG: usize = 64;

/// The groups that the rules log to and that acctd reads.
#[derive(Clone, Debug, Args)]
pub struct GroupFlags {
    /// NFLOG groups of IPv4 packets whose source address is accounted.
    ///
    /// A number, a list or ranges (4,14-16); 0 is off.
    #[arg(long, env = "ACCTD_IP4_SRC_GROUP", hide_env = true, value_name = "GROUPS", default_value = "0",
          help_heading = WHAT_IS_COUNTED)]
    pub ip4_src_group: GroupList,

    /// NFLOG groups of IPv4 packets whose destination address is accounted.
    #[arg(long, env = "ACCTD_IP4_DST_GROUP", hide_env = true, value_name = "GROUPS", default_value = "0",
          help_heading = WHAT_IS_COUNTED)]
    pub ip4_dst_group: GroupList,

    /// NFLOG groups of IPv6 packets whose source address is accounted.
    #[arg(long, env = "ACCTD_IP6_SRC_GROUP", hide_env = true, value_name = "GROUPS", default_value = "0",
          help_heading = WHAT_IS_COUNTED)]
    pub ip6_src_group: GroupList,

    /// NFLOG groups of IPv6 packets whose destination address is accounted.
    #[arg(long, env = "ACCTD_IP6_DST_GROUP", hide_env = true, value_name = "GROUPS", default_value = "0",
          help_heading = WHAT_IS_COUNTED)]
    pub ip6_dst_group: GroupList,
}

impl GroupFlags {
    /// The directions, each with its flag's name, in the order in which go-nflog-acctd opens them.
    #[must_use]
    pub fn directions(&self) -> [(&'static str, Family, Side, &GroupList); 4] {
        use Family::{Ip4, Ip6};
        use Side::{Dest, Source};
        [
            ("ip4-dst-group", Ip4, Dest, &self.ip4_dst_group),
            ("ip4-src-group", Ip4, Source, &self.ip4_src_group),
            ("ip6-dst-group", Ip6, Dest, &self.ip6_dst_group),
            ("ip6-src-group", Ip6, Source, &self.ip6_src_group),
        ]
    }

    /// The lists, in the order of [`Self::directions`].
    pub fn lists_mut(&mut self) -> [&mut GroupList; 4] {
        [
            &mut self.ip4_dst_group,
            &mut self.ip4_src_group,
            &mut self.ip6_dst_group,
            &mut self.ip6_src_group,
        ]
    }
}

/// The flags of the daemon.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags")]
pub struct Flags {
    /// The groups that acctd reads.
    #[command(flatten)]
    pub groups: GroupFlags,

    /// Prefix length of IPv4 rows, 0 to 32.
    #[arg(long, env = "ACCTD_IP4_PREFIX_LENGTH", hide_env = true, value_name = "BITS", default_value_t = 32,
          value_parser = clap::value_parser!(u8).range(0..=32), help_heading = WHAT_IS_COUNTED)]
    pub ip4_prefix_length: u8,

    /// Prefix length of IPv6 rows, 0 to 128.
    #[arg(long, env = "ACCTD_IP6_PREFIX_LENGTH", hide_env = true, value_name = "BITS", default_value_t = 64,
          value_parser = clap::value_parser!(u8).range(0..=128), help_heading = WHAT_IS_COUNTED)]
    pub ip6_prefix_length: u8,

    /// The most prefixes that each group counts in an interval.
    ///
    /// Packets of further prefixes are counted in the row 0.0.0.0 or ::, so totals stay exact. A million
    /// prefixes take about 37 MB (IPv4) or 41 MB (IPv6) in each group, and up to twice that when an
    /// interval ends.
    #[arg(long, env = "ACCTD_MAX_PREFIXES", hide_env = true, value_name = "N", default_value_t = 2_000_000,
          value_parser = clap::value_parser!(u32).range(1..), help_heading = WHAT_IS_COUNTED)]
    pub max_prefixes: u32,

    /// Length of an interval: at least 1s, and a divisor of a day or whole days. One file per interval.
    #[arg(long, env = "ACCTD_INTERVAL", hide_env = true, value_name = "DURATION", default_value = "5m0s",
          value_parser = parse_interval, help_heading = FILES)]
    pub interval: Interval,

    /// Directory for the files; created with its parents if it is missing.
    #[arg(long, env = "ACCTD_LOG_DIRECTORY", hide_env = true, value_name = "DIR",
          default_value = "/var/log/accounting", help_heading = FILES)]
    pub log_directory: PathBuf,

    /// How often to save the open interval, against a crash or a power cut; 0 is never.
    ///
    /// A crash loses at most this time. The next start recovers the saved data: as the beginning of the
    /// interval, if that is still open; else as the interval's file.
    #[arg(long, env = "ACCTD_CHECKPOINT", hide_env = true, value_name = "DURATION", default_value = "30s",
          value_parser = parse_checkpoint, help_heading = FILES)]
    pub checkpoint: Duration,

    /// The most rows that wait in memory while the disk accepts no files.
    ///
    /// If there are more, acctd merges neighbouring intervals into one file, and in the end the smallest
    /// prefixes into the row 0.0.0.0 or ::, so totals stay exact. A row takes up to 32 bytes per direction.
    #[arg(long, env = "ACCTD_BACKLOG", hide_env = true, value_name = "ROWS", default_value_t = 10_000_000,
          value_parser = clap::value_parser!(u32).range(1..), help_heading = FILES)]
    pub backlog: u32,

    /// Write file names and the Time column in UTC instead of local time.
    #[arg(long, env = "ACCTD_UTC", hide_env = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          value_parser = go_flags::parse_bool, action = ArgAction::Set, help_heading = FILES)]
    pub utc: bool,

    /// Also count the packets of these interfaces with a TC program; each row gets both counts and a verdict.
    ///
    /// A list. `eth0` or `eth0:far` counts the addresses beyond the interface (sources of incoming packets,
    /// destinations of outgoing packets), `eth0:near` those on this side. The counts of several interfaces
    /// add up. Requires root or the capabilities BPF, PERFMON and `NET_ADMIN`.
    #[arg(long, env = "ACCTD_CROSSCHECK", hide_env = true, value_name = "IFACE[:far|near]", value_delimiter = ',',
          help_heading = CROSS_CHECK)]
    pub crosscheck: Vec<Watched>,

    /// How to attach the TC programs.
    #[arg(long, env = "ACCTD_CROSSCHECK_ATTACH", hide_env = true, value_name = "HOW", value_enum,
          default_value_t = AttachMode::Auto, help_heading = CROSS_CHECK)]
    pub crosscheck_attach: AttachMode,

    /// The most prefixes in the kernel's map of an interval. Source and destination count separately.
    ///
    /// Packets of further prefixes are counted as overflow, and their rows are "not checked". Each prefix in
    /// use takes 192 bytes of kernel memory, in two intervals at once (three if they are 1s long). Room for
    /// 500,000 takes 25 to 42 MB from the start. acctd logs the total at the start.
    #[arg(long, env = "ACCTD_CROSSCHECK_MAX_PREFIXES", hide_env = true, value_name = "N", default_value_t = 500_000,
          value_parser = clap::value_parser!(u32).range(1..=100_000_000), help_heading = CROSS_CHECK)]
    pub crosscheck_max_prefixes: u32,

    /// Attach the programs of this eBPF object instead of acctd's; it must keep the map contract.
    #[arg(long, env = "ACCTD_CROSSCHECK_OBJECT", hide_env = true, value_name = "FILE", help_heading = CROSS_CHECK)]
    pub crosscheck_object: Option<PathBuf>,

    /// Add columns for what the packets are on the wire. If offloads merged a packet (GRO) or will split it (GSO,
    /// TSO), each of its segments counts, with its own headers.
    #[arg(long, env = "ACCTD_CROSSCHECK_WIRE", hide_env = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          value_parser = go_flags::parse_bool, action = ArgAction::Set, help_heading = CROSS_CHECK)]
    pub crosscheck_wire: bool,

    /// Explain by itself what is uncovered or extra: after a file with such rows, sample the ten worst prefixes for
    /// 10s, each prefix once.
    ///
    /// The causes, and the commands that cure them, are in the log and in the next line of intervals.jsonl. A second
    /// process, with the rights that acctd is started with, runs nft and iptables-save to read the rules.
    #[arg(long, env = "ACCTD_EXPLAIN", hide_env = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          value_parser = go_flags::parse_bool, action = ArgAction::Set, help_heading = CROSS_CHECK)]
    pub explain: bool,

    /// Pin the cross-check's maps in this directory of bpffs, for bpftool.
    #[arg(long, env = "ACCTD_CROSSCHECK_PIN", hide_env = true, value_name = "DIR", help_heading = CROSS_CHECK)]
    pub crosscheck_pin: Option<PathBuf>,

    /// Log to syslog instead of stderr.
    #[arg(long, env = "ACCTD_SYSLOG", hide_env = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          value_parser = go_flags::parse_bool, action = ArgAction::Set, help_heading = LOGGING)]
    pub syslog: bool,

    /// Log more details.
    #[arg(long, env = "ACCTD_VERBOSE", hide_env = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          value_parser = go_flags::parse_bool, action = ArgAction::Set, help_heading = LOGGING)]
    pub verbose: bool,

    /// Log each packet; implies --verbose.
    #[arg(long, env = "ACCTD_DEBUG", hide_env = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          value_parser = go_flags::parse_bool, action = ArgAction::Set, help_heading = LOGGING)]
    pub debug: bool,

    /// Where to answer over HTTP: a page for browsers, `/metrics` for Prometheus, `/healthz`, `/status`, `/top`.
    ///
    /// A list of ADDRESS:PORT and unix:PATH. Whoever can connect can read, so use local addresses.
    /// `acctd status` and `acctd top` connect to `unix:/run/acctd/acctd.sock` by default.
    #[arg(long, env = "ACCTD_LISTEN", hide_env = true, value_name = "ADDR", value_delimiter = ',',
          action = ArgAction::Append, help_heading = OBSERVATION)]
    pub listen: Vec<ListenAddress>,

    /// CPUs to use; 0 is all.
    #[arg(long, env = "ACCTD_CPUS", hide_env = true, value_name = "N", default_value_t = 0,
          help_heading = PROCESS)]
    pub cpus: i32,

    /// Nice value of the process, -20 (first) to 19 (last).
    #[arg(long, env = "ACCTD_PRIORITY", hide_env = true, value_name = "NICE", default_value_t = -19,
          value_parser = clap::value_parser!(i32).range(-20..=19),
          help_heading = PROCESS)]
    pub priority: i32,

    /// Become this user at the start. Requires root.
    ///
    /// acctd keeps the capability `NET_ADMIN`, and BPF and PERFMON for the cross-check. If the log directory
    /// is missing, it is created for this user; if it exists, this user must be able to write to it.
    #[arg(long, env = "ACCTD_USER", hide_env = true, value_name = "NAME",
          value_parser = User::find, help_heading = PROCESS)]
    pub user: Option<User>,

    /// Write a CPU profile for pprof, from start to stop.
    #[arg(long, env = "ACCTD_CPUPROFILE", hide_env = true, value_name = "FILE", help_heading = PROCESS)]
    pub cpuprofile: Option<PathBuf>,
}

fn parse_interval(text: &str) -> Result<Interval, String> {
    let length = go_flags::parse_duration(text).map_err(|error| error.to_string())?;
    Interval::new(length).map_err(|error| error.to_string())
}

fn parse_checkpoint(text: &str) -> Result<Duration, String> {
    /// With a shorter pause, the disk would do little else.
    const SHORTEST: Duration = Duration::from_millis(100);
    let pause = go_flags::parse_duration(text).map_err(|error| error.to_string())?;
    if pause.is_zero() || pause >= SHORTEST {
        Ok(pause)
    } else {
        Err("is less than 100 ms: use 1s or more, or 0 for never".to_owned())
    }
}

/// The groups of one direction. If it is empty, the direction is off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupList(pub Vec<NflogGroup>);

impl FromStr for GroupList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "0" {
            return Ok(Self::default());
        }
        let mut groups = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) if !first.is_empty() => (first, last),
                _ => (part, part),
            };
            let (first, last) = (parse_group(first)?, parse_group(last)?);
            if first > last {
                return Err(format!(
                    "the range {part} is backwards: write the lower group first"
                ));
            }
            for group in first.0..=last.0 {
                if groups.contains(&NflogGroup(group)) {
                    return Err(format!("group {group} is listed twice"));
                }
                if groups.len() == MAX_GROUPS_PER_FLAG {
                    return Err(format!("more than {MAX_GROUPS_PER_FLAG} groups"));
                }
                groups.push(NflogGroup(group));
            }
        }
        Ok(Self(groups))
    }
}

fn parse_group(text: &str) -> Result<NflogGroup, String> {
    match text.trim().parse() {
        Ok(0) => Err("group 0 means \"off\" and cannot be in a list".into()),
        Ok(group) => Ok(NflogGroup(group)),
        Err(_) => Err(format!(
            "{text:?} is not an NFLOG group: use a number from 1 to 65535, a list or ranges (4,14-16), or 0 for off"
        )),
    }
}

impl ValueEnum for AttachMode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Tcx, Self::Clsact]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Auto => PossibleValue::new("auto").help("TCX if the kernel has it, else clsact"),
            Self::Tcx => PossibleValue::new("tcx")
                .help("TCX links (Linux 6.6), before all others; they end with the process"),
            Self::Clsact => PossibleValue::new("clsact").help("Filters of the clsact qdisc"),
        })
    }
}
