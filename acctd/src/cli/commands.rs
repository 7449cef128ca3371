//! The commands and their flags. The doc comments are the text of `--help` and of the man pages.

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cli::archive::ArchiveArgs;
use crate::cli::asked::{AskedArgs, Prefix};
use crate::cli::flags::{Flags, GroupFlags};
use crate::cli::go_flags;
use crate::cli::report::ReportArgs;
use crate::cli::ship::ShipArgs;
use crate::cli::top::TopArgs;

const EXAMPLE: &str = "\
A flag has one dash or two, and '=' or a space before its value. Each flag can also be set in the
environment, in capitals: ACCTD_INTERVAL=1h for --interval=1h.

Example: account what this host sends and receives, one file per hour:

  acctd rules --apply
  acctd -interval 1h -ip4-dst-group=4 -ip4-src-group=5 -ip6-dst-group=6 -ip6-src-group=7";

/// IP accounting from NFLOG: bytes and packets per IP prefix, one CSV file per interval.
#[derive(Clone, Debug, Parser)]
#[command(name = "acctd", version, after_help = EXAMPLE, args_override_self = true,
          args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Cli {
    /// The daemon's flags. Without a command, the daemon runs.
    #[command(flatten)]
    pub flags: Flags,
    /// If present, acctd runs this command instead of the daemon.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What acctd can do instead of accounting.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print the nftables or iptables rules that fit the flags; or load, remove or check them.
    Rules(RulesArgs),
    /// Report what would keep packets from being counted, each problem with its cure.
    Doctor(Box<DoctorArgs>),
    /// Show what a running acctd is doing.
    Status(StatusArgs),
    /// Show the prefixes with the most traffic, as it is now.
    Top(TopArgs),
    /// Sample packets that a running acctd's rules miss, and say why they do.
    Explain(ExplainArgs),
    /// Add up files: totals, percentiles, customers, and what may be missing.
    Report(Box<ReportArgs>),
    /// Put the files of days that are over into one Parquet file for each day.
    Archive(ArchiveArgs),
    /// Send the files of this host to ClickHouse, or its archives to a directory or S3, each exactly once.
    Ship(Box<ShipArgs>),
}

impl Cli {
    /// Parses the arguments of the process, program name first. Accepts Go's spelling and clap's.
    pub fn parse_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = Self::command().mut_args(for_parsing);
        command = command.mut_subcommands(|subcommand| subcommand.mut_args(for_parsing));
        let args: Vec<OsString> = args.into_iter().collect();
        let subcommand = args.get(1).and_then(|word| command.find_subcommand(word));
        let active = subcommand.unwrap_or(&command).clone();
        let args = go_flags::to_clap(args, |name| takes_value(&active, name));
        let matches = command.try_get_matches_from_mut(args);
        let matches = matches.map_err(|error| explain_stray_word(&mut command, error))?;
        Self::from_arg_matches(&matches)
    }
}

/// For any word after a flag, clap says that this command cannot be used with flags. If the word is not a
/// command, that is misleading: it is an unexpected argument.
fn explain_stray_word(command: &mut clap::Command, error: clap::Error) -> clap::Error {
    match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) if command.find_subcommand(word).is_none() => {
            let message = format!("unexpected argument '{word}' found");
            command.error(ErrorKind::UnknownArgument, message)
        }
        _ => error,
    }
}

/// Settings that matter for parsing only. Help and man pages are made without them.
fn for_parsing(arg: clap::Arg) -> clap::Arg {
    // `ACCTD_X=` in an environment file means that the flag is not set.
    let is_empty = arg
        .get_env()
        .and_then(std::env::var_os)
        .is_some_and(|value| value.is_empty());
    let arg = if is_empty {
        arg.env(Resettable::Reset)
    } else {
        arg
    };
    // As in Go: if a value is missing, the next flag is taken as the value, and the error quotes it.
    if arg.get_action().takes_values() && !arg.is_positional() {
        arg.allow_hyphen_values(true)
    } else {
        arg
    }
}

fn takes_value(command: &clap::Command, name: &[u8]) -> bool {
    command
        .get_arguments()
        .find(|arg| arg.get_long().is_some_and(|long| long.as_bytes() == name))
        .is_some_and(|arg| arg.get_action().takes_values() && !arg.is_require_equals_set())
}

/// The flags of `acctd rules`.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags")]
pub struct RulesArgs {
    /// Which packets are counted.
    #[arg(value_enum, default_value_t = Scenario::Host)]
    pub scenario: Scenario,

    /// Interfaces that lead to the accounted addresses; for a bridge, its ports.
    ///
    /// A list. A name that ends in * matches all names that begin so (ppp*).
    #[arg(long, value_name = "IFACE", value_delimiter = ',')]
    pub lan: Vec<String>,

    /// Count only what the router forwards, not what it receives or sends itself.
    #[arg(long)]
    pub forwarded: bool,

    /// Log outgoing packets on the netdev egress hook of these interfaces, where they have a time stamp.
    ///
    /// Requires Linux 5.16. Packets are counted when they are given to the interface, after all other rules
    /// and with the addresses that NAT gives them. Without this flag, outgoing packets have no time stamp,
    /// and are counted in the interval in which acctd receives them: up to a second late.
    #[arg(long, value_name = "IFACE", value_delimiter = ',')]
    pub egress_hook: Vec<String>,

    /// Spread each direction over this many groups, by CPU: its group and the numbers that follow.
    ///
    /// A direction that has a list of groups is spread over that list.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=64))]
    pub fan_out: Option<u16>,

    /// Bytes of each packet to copy to acctd; default: the IP header alone.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(20..=65_535))]
    pub snaplen: Option<u32>,

    /// How many packets the kernel collects before it sends them to acctd.
    #[arg(long, value_name = "PACKETS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub threshold: u32,

    /// The program that loads the rules.
    #[arg(long, value_enum, default_value_t = Format::Nft)]
    pub format: Format,

    /// Load the rules. They replace those that acctd loaded before, for either program.
    #[arg(long, group = "what")]
    pub apply: bool,

    /// Remove the rules that acctd loaded before.
    #[arg(long, group = "what")]
    pub remove: bool,

    /// Show how the loaded rules differ from these; exit code 1 if they differ.
    #[arg(long, group = "what")]
    pub check: bool,

    /// The groups that the rules log to. If none is given: 4 to 7, as in go-nflog-acctd's manual.
    #[command(flatten)]
    pub groups: GroupFlags,
}

/// The program that loads the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A separate table for nft.
    Nft,
    /// Separate chains for iptables and ip6tables, in the table mangle.
    Iptables,
}

/// Which packets are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// What this host receives, by source; what it sends, by destination.
    Host,
    /// What comes from --lan, by source; what goes to --lan, by destination.
    Router,
    /// As router, for the ports of a bridge.
    Bridge,
}

/// The flags of `acctd doctor`, among them those of the daemon that it checks.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// Print JSON: a list of findings, each with its severity, id, text and cure.
    #[arg(long)]
    pub json: bool,

    /// Also measure for this long: packets that pass the interfaces, match the rules, and are logged.
    ///
    /// Measures on the interfaces of --crosscheck, or on those with a default route. For this time, doctor
    /// loads counters in a separate nft table and attaches the cross-check's programs; it removes both. It
    /// reads the groups that nobody reads. For the groups that acctd reads, it asks that acctd, at the address of
    /// --listen. --json has one object per group.
    #[arg(long, value_name = "DURATION", value_parser = parse_live)]
    pub live: Option<Duration>,

    /// The daemon's flags. With --verbose, doctor also prints notes.
    #[command(flatten)]
    pub flags: Flags,
}

fn parse_live(text: &str) -> Result<Duration, String> {
    const MAX_LENGTH: Duration = Duration::from_secs(24 * 60 * 60);
    let length = go_flags::parse_duration(text).map_err(|error| error.to_string())?;
    if length.is_zero() || length > MAX_LENGTH {
        return Err("must be more than 0 and at most 24h: use for example 10s".to_owned());
    }
    Ok(length)
}

/// The flags of `acctd status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// The acctd to ask.
    #[command(flatten)]
    pub asked: AskedArgs,

    /// Print the JSON that acctd answers with.
    #[arg(long)]
    pub json: bool,
}

/// The flags of `acctd explain`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExplainArgs {
    /// Prefixes or addresses to sample; default: all.
    #[arg(value_name = "PREFIX")]
    pub prefixes: Vec<Prefix>,

    /// How long to sample, at most 30s.
    ///
    /// acctd must run with --crosscheck, and listen on a UNIX socket (--listen). Its TC programs sample at most
    /// 1,000 packets per second and hook, while nothing else changes; its readers keep NFLOG's packets of the
    /// same prefixes. Each flow that only one side saw is explained by the loaded rules, with the command that
    /// would log it. Exit code 1 if there is one.
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = parse_sample)]
    pub length: Duration,

    /// The acctd to ask.
    #[command(flatten)]
    pub asked: AskedArgs,

    /// Have nft check each command against the loaded rules, without loading it.
    #[arg(long)]
    pub check: bool,

    /// Have nft trace packets of the flows for two seconds, and show the rules that they meet (Linux 5.12).
    ///
    /// For this, acctd loads a table with a rule. When the command ends or is killed, the kernel removes the table.
    #[arg(long)]
    pub trace: bool,

    /// Print JSON: what both sides saw, by flow, and the causes.
    #[arg(long)]
    pub json: bool,
}

fn parse_sample(text: &str) -> Result<Duration, String> {
    let length = go_flags::parse_duration(text).map_err(|error| error.to_string())?;
    if length < Duration::from_secs(1) || length > Duration::from_secs(30) {
        return Err("must be at least 1s and at most 30s".to_owned());
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::GroupList;
    use crate::model::group::NflogGroup;

    fn list(text: &str) -> Result<Vec<u16>, String> {
        text.parse::<GroupList>()
            .map(|list| list.0.iter().map(|group| group.0).collect())
    }

    fn parse(args: &[&str]) -> Result<Flags, clap::Error> {
        Cli::parse_args(["acctd"].iter().chain(args).map(OsString::from)).map(|cli| cli.flags)
    }

    #[test]
    fn clap_accepts_the_definition() {
        Cli::command().debug_assert();
    }

    #[test]
    fn groups_are_a_number_a_list_or_ranges() {
        assert_eq!(list("0"), Ok(vec![]));
        assert_eq!(list("5"), Ok(vec![5]));
        assert_eq!(list("4,14-16"), Ok(vec![4, 14, 15, 16]));
        assert_eq!(list("65535"), Ok(vec![65_535]));
        for bad in [
            "", "x", "-1", "65536", "0,4", "4,0", "4,4", "3-5,4", "5-3", "1-65535", "4,", "0-3",
        ] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_of_go_nflog_acctd_is_accepted() {
        let flags = parse(&[
            "-interval",
            "1h",
            "-ip4-dst-group=4",
            "-ip4-src-group",
            "5",
            "--ip6-dst-group=6",
            "-ip6-src-group=7",
            "-priority",
            "-5",
            "-syslog=false",
            "-verbose",
            "-cpus=-1",
        ])
        .unwrap();
        assert_eq!(flags.interval.length(), Duration::from_secs(3_600));
        assert_eq!(flags.groups.ip4_dst_group.0, [NflogGroup(4)]);
        assert_eq!(flags.groups.ip6_src_group.0, [NflogGroup(7)]);
        assert_eq!((flags.priority, flags.cpus), (-5, -1));
        assert_eq!(
            (flags.syslog, flags.verbose, flags.debug),
            (false, true, false)
        );
    }

    #[test]
    fn the_daemons_flags_follow_the_name_of_the_command() {
        let cli = Cli::parse_args(["acctd", "doctor", "-ip4-src-group", "5"].map(OsString::from));
        let Some(Command::Doctor(args)) = cli.unwrap().command else {
            panic!("not the doctor");
        };
        assert_eq!(args.flags.groups.ip4_src_group.0, [NflogGroup(5)]);
        let before = ["acctd", "-ip4-src-group=5", "doctor"].map(OsString::from);
        assert!(Cli::parse_args(before).is_err());
    }

    #[test]
    fn flags_may_follow_the_prefixes_to_explain() {
        let words = [
            "acctd",
            "explain",
            "10.9.0.2",
            "2001:db8::1/64",
            "-for",
            "2s",
        ];
        let Some(Command::Explain(args)) =
            Cli::parse_args(words.map(OsString::from)).unwrap().command
        else {
            panic!("not explain");
        };
        let prefixes: Vec<String> = args.prefixes.iter().map(|it| it.0.to_string()).collect();
        assert_eq!(prefixes, ["10.9.0.2/32", "2001:db8::/64"]);
        assert_eq!(args.length, Duration::from_secs(2));
        for bad in ["-for=31s", "-for=0", "here", "10.0.0.0/33"] {
            assert!(
                Cli::parse_args(["acctd", "explain", bad].map(OsString::from)).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn interfaces_are_a_list_each_with_its_end() {
        let flags = parse(&["-crosscheck", "eth0,wg0:near,eth1:far"]).unwrap();
        let shown: Vec<String> = flags.crosscheck.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["eth0:far", "wg0:near", "eth1:far"]);
        for bad in [
            "",
            "eth0:",
            "eth0:middle",
            ":far",
            "a-name-that-is-too-long",
            "a/b",
        ] {
            assert!(parse(&["-crosscheck", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn if_a_flag_is_given_twice_the_last_one_counts() {
        let flags = parse(&[
            "-ip4-src-group=5",
            "-syslog",
            "-ip4-src-group=6",
            "-syslog=f",
        ])
        .unwrap();
        assert_eq!(flags.groups.ip4_src_group.0, [NflogGroup(6)]);
        assert!(!flags.syslog);
    }

    #[test]
    fn invalid_values_are_rejected() {
        for bad in [
            "-interval=999ms",
            "-interval=7s",
            "-interval=25h",
            "-interval=300",
            "-interval=-5m",
            "-ip4-prefix-length=33",
            "-ip6-prefix-length=129",
            "-ip4-prefix-length=-1",
            "-ip4-src-group=65536",
            "-ip4-src-group=five",
            "-priority=20",
            "-max-prefixes=0",
            "-backlog=0",
            "-checkpoint=99ms",
            "-checkpoint=-30s",
            "-syslog=maybe",
            "-no-such-flag",
            "stray",
        ] {
            let error = parse(&[bad]).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad}");
        }
    }
}
