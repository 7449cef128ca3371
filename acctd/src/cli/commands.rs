//! The commands and their flags, as typed. The doc comments are the text of `--help` and of the man pages.

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cli::flags::{Flags, GroupFlags};
use crate::cli::go_flags;
use crate::config::listen_address::ListenAddress;

const EXAMPLE: &str = "\
Flags may be written with one dash or two, and with '=' or a blank before the value. Each can
also be set in the environment, in capitals: ACCTD_INTERVAL=1h for --interval=1h.

Example: account what this host sends and receives, one file an hour.

  acctd rules --apply
  acctd -interval 1h -ip4-dst-group=4 -ip4-src-group=5 -ip6-dst-group=6 -ip6-src-group=7";

/// IP accounting from NFLOG: bytes and packets per IP prefix, one CSV file per interval.
#[derive(Clone, Debug, Parser)]
#[command(name = "acctd", version, after_help = EXAMPLE, args_override_self = true,
          args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Cli {
    /// Those of the daemon, which runs where there is no command.
    #[command(flatten)]
    pub flags: Flags,
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What acctd does besides accounting.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print the nftables or iptables rules that fit the flags given, load, remove or check them.
    Rules(RulesArgs),
    /// Look for what would keep packets from being counted, each finding with its cure.
    Doctor(Box<DoctorArgs>),
    /// Say what a running acctd is doing.
    Status(StatusArgs),
}

impl Cli {
    /// Parses the arguments of the process, program name first, in Go's spelling or clap's.
    pub fn parse_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = Self::command().mut_args(as_typed);
        command = command.mut_subcommands(|subcommand| subcommand.mut_args(as_typed));
        let args: Vec<OsString> = args.into_iter().collect();
        let asked_for = args.get(1).and_then(|word| command.find_subcommand(word));
        let flags_of = asked_for.unwrap_or(&command).clone();
        let args = go_flags::to_clap(args, |name| takes_value(&flags_of, name));
        let matches = command.try_get_matches_from_mut(args);
        let matches = matches.map_err(|error| stray(&mut command, error))?;
        Self::from_arg_matches(&matches)
    }
}

/// A word that is no flag is no command that does not go with the flags either.
fn stray(command: &mut clap::Command, error: clap::Error) -> clap::Error {
    match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) if command.find_subcommand(word).is_none() => {
            let message = format!("unexpected argument '{word}' found");
            command.error(ErrorKind::UnknownArgument, message)
        }
        _ => error,
    }
}

/// What only matters where arguments are parsed, not where they are described.
fn as_typed(arg: clap::Arg) -> clap::Arg {
    // An empty line in an environment file says nothing.
    let is_empty = arg
        .get_env()
        .and_then(std::env::var_os)
        .is_some_and(|value| value.is_empty());
    let arg = if is_empty {
        arg.env(Resettable::Reset)
    } else {
        arg
    };
    // A flag whose value was forgotten takes the next flag for it, and says so.
    if arg.get_action().takes_values() {
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
    /// Whose packets are counted.
    #[arg(value_enum, default_value_t = Scenario::Host)]
    pub scenario: Scenario,

    /// Interfaces behind which the accounted addresses are; ports, for a bridge.
    ///
    /// A list. A name may end in * for all that begin so (ppp*).
    #[arg(long, value_name = "IFACE", value_delimiter = ',')]
    pub lan: Vec<String>,

    /// Only what passes from one interface to another, not what the router itself receives or sends.
    #[arg(long)]
    pub forwarded: bool,

    /// Log what goes out on the netdev egress hook of these interfaces, where packets carry a time stamp.
    ///
    /// It takes Linux 5.16. Packets are counted when they are given to the interface, behind all other
    /// rules and with the addresses that NAT gives them. Without it they are counted in the interval in which
    /// they are received: up to a second late.
    #[arg(long, value_name = "IFACE", value_delimiter = ',')]
    pub egress_hook: Vec<String>,

    /// Spread each direction over this many groups, by CPU: the one given and those behind it.
    ///
    /// A direction whose flag has a list is spread over that.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=64))]
    pub fan_out: Option<u16>,

    /// Bytes to copy of each packet; without it, the IP header and no more.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(20..=65_535))]
    pub snaplen: Option<u32>,

    /// Packets that the kernel collects before it hands them over.
    #[arg(long, value_name = "PACKETS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub threshold: u32,

    /// What to write them for.
    #[arg(long, value_enum, default_value_t = Format::Nft)]
    pub format: Format,

    /// Load them, in the place of those that were loaded before, be it for the other program.
    #[arg(long, group = "what")]
    pub apply: bool,

    /// Take away those that were loaded before.
    #[arg(long, group = "what")]
    pub remove: bool,

    /// Say how what is loaded differs from them; exit code 1 if it does.
    #[arg(long, group = "what")]
    pub check: bool,

    /// The groups that the rules log to; without any, 4 to 7 as in go-nflog-acctd's manual.
    #[command(flatten)]
    pub groups: GroupFlags,
}

/// The program that loads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table of its own for nft.
    Nft,
    /// Chains of their own for iptables and ip6tables, in the table mangle.
    Iptables,
}

/// Whose packets are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// What this host receives, by source, and what it sends, by destination.
    Host,
    /// What comes from --lan, by source, and what goes there, by destination.
    Router,
    /// The same for the ports of a bridge.
    Bridge,
}

/// The flags of `acctd doctor`: those of the acctd that it looks at.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// As JSON: a list of what is found, with the severity, an id, what it is and the cure.
    #[arg(long)]
    pub json: bool,

    /// Measure for so long instead of judging alone: what passes the interfaces, meets the rules, and is logged.
    ///
    /// On the interfaces of --crosscheck, or those with a default route. It sets counters in a table of its own
    /// and attaches the cross-check's programs, and takes both away again. Groups that nobody reads it reads itself;
    /// of those that acctd reads, it asks the one behind --listen. --json has a group's numbers in one object.
    #[arg(long, value_name = "DURATION", value_parser = parse_live)]
    pub live: Option<Duration>,

    /// Those of the daemon. With --verbose it says what is good to know besides.
    #[command(flatten)]
    pub flags: Flags,
}

fn parse_live(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    let length = go_flags::parse_duration(text).map_err(|error| error.to_string())?;
    if length.is_zero() || length > LONGEST {
        return Err("is no time to measure for: use 10s, at most 24h".to_owned());
    }
    Ok(length)
}

/// The flags of `acctd status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Where acctd listens, as it was given to it with --listen; of several the first counts.
    #[arg(
        long,
        env = "ACCTD_LISTEN",
        hide_env = true,
        value_name = "ADDR",
        value_delimiter = ',',
        default_value = "unix:/run/acctd/acctd.sock"
    )]
    pub listen: Vec<ListenAddress>,

    /// As JSON, as acctd gives it.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::commands::Cli;
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
    fn the_definition_is_sound() {
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
    fn the_seeds_command_line_is_understood() {
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
    fn a_command_takes_the_daemons_flags_behind_its_name() {
        let cli = Cli::parse_args(["acctd", "doctor", "-ip4-src-group", "5"].map(OsString::from));
        let Some(Command::Doctor(args)) = cli.unwrap().command else {
            panic!("not the doctor");
        };
        assert_eq!(args.flags.groups.ip4_src_group.0, [NflogGroup(5)]);
        let before = ["acctd", "-ip4-src-group=5", "doctor"].map(OsString::from);
        assert!(Cli::parse_args(before).is_err());
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
    fn a_flag_given_twice_counts_the_last_time() {
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
    fn impossible_values_are_refused() {
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
