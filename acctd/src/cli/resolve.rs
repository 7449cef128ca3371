//! Flags → [`Config`]. Checks what depends on several flags.

use std::time::Duration;

use acctd_common::contract;
use thiserror::Error;

use crate::cli::flags::Flags;
use crate::config::Config;
use crate::config::crosscheck::CrossCheckConfig;
use crate::model::group::{GroupConfig, NflogGroup};
use crate::model::interval::FLUSH_TIMEOUT;
use crate::model::prefix::{Family, PrefixLength, Side};
use crate::model::zone::Zone;

/// Why flags that are each valid cannot be used together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UsageError {
    /// All directions are off.
    #[error(
        "no NFLOG group given, so there is nothing to count. To count what this host receives and sends:\n\
         \n  acctd rules --apply\
         \n  acctd --ip4-dst-group=4 --ip4-src-group=5 --ip6-dst-group=6 --ip6-src-group=7\
         \n\nSee acctd rules --help for routers and bridges."
    )]
    NoGroup,
    /// A group has one socket, and acctd counts each socket for one direction.
    #[error("group {0} is used twice: --{1} and --{2} need different groups")]
    GroupTwice(NflogGroup, &'static str, &'static str),
    /// Without a cross-check there is nothing to explain.
    #[error("--explain compares what NFLOG and TC see: give --crosscheck IFACE as well")]
    ExplainAlone,
    /// Its packets would be counted twice.
    #[error("interface {0} is listed twice in --crosscheck: its packets would be counted twice")]
    InterfaceTwice(String),
}

impl Config {
    /// Makes a configuration, if the flags fit together.
    pub fn resolve(flags: Flags) -> Result<Self, UsageError> {
        let groups = resolve_groups(&flags)?;
        let crosscheck = resolve_crosscheck(&flags, &groups)?;
        let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let wanted = usize::try_from(flags.cpus).ok().filter(|&cpus| cpus > 0);
        Ok(Self {
            max_prefixes: flags.max_prefixes as usize,
            interval: flags.interval,
            checkpoint: Some(flags.checkpoint).filter(|pause| !pause.is_zero()),
            backlog: flags.backlog as usize,
            log_directory: flags.log_directory,
            zone: if flags.utc { Zone::Utc } else { Zone::Local },
            syslog: flags.syslog,
            verbose: flags.verbose || flags.debug,
            debug: flags.debug,
            listen: flags.listen,
            // One thread per group, and one for the clock: more would never run.
            n_threads: wanted.unwrap_or(available).min(groups.len() + 1),
            groups,
            priority: flags.priority,
            user: flags.user,
            cpuprofile: flags.cpuprofile,
            flush_timeout: if crosscheck.is_some() {
                CROSS_CHECK_FLUSH_TIMEOUT
            } else {
                FLUSH_TIMEOUT
            },
            crosscheck,
        })
    }
}

/// If a packet has no kernel time stamp, its time is uncertain by the time that the kernel may hold it. The
/// cross-check needs this to be short. It is part of `contract::BEFORE_END_NANOS`.
const CROSS_CHECK_FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

fn resolve_crosscheck(
    flags: &Flags,
    groups: &[GroupConfig],
) -> Result<Option<CrossCheckConfig>, UsageError> {
    for (at, watched) in flags.crosscheck.iter().enumerate() {
        if flags.crosscheck[..at]
            .iter()
            .any(|other| other.interface == watched.interface)
        {
            return Err(UsageError::InterfaceTwice(watched.interface.clone()));
        }
    }
    if flags.explain && flags.crosscheck.is_empty() {
        return Err(UsageError::ExplainAlone);
    }
    let mut accounted = 0;
    let mut prefix_lengths = Vec::new();
    for group in groups {
        let side = match group.side {
            Side::Source => contract::SIDE_SOURCE,
            Side::Dest => contract::SIDE_DEST,
        };
        accounted |= contract::accounted_bit(group.prefix_length.family().version(), side);
        if !prefix_lengths.contains(&group.prefix_length) {
            prefix_lengths.push(group.prefix_length);
        }
    }
    Ok((!flags.crosscheck.is_empty()).then(|| CrossCheckConfig {
        watched: flags.crosscheck.clone(),
        attach: flags.crosscheck_attach,
        max_prefixes: flags.crosscheck_max_prefixes,
        object: flags.crosscheck_object.clone(),
        wire: flags.crosscheck_wire,
        explain: flags.explain,
        pin: flags.crosscheck_pin.clone(),
        prefix_lengths,
        accounted,
        debug: flags.debug,
    }))
}

fn resolve_groups(flags: &Flags) -> Result<Vec<GroupConfig>, UsageError> {
    let mut groups: Vec<(GroupConfig, &'static str)> = Vec::new();
    for (flag, family, side, list) in flags.groups.directions() {
        let bits = match family {
            Family::Ip4 => flags.ip4_prefix_length,
            Family::Ip6 => flags.ip6_prefix_length,
        };
        #[expect(
            clippy::expect_used,
            reason = "clap's ranges are those of PrefixLength"
        )]
        let prefix_length = PrefixLength::new(family, bits).expect("a length that clap accepted");
        for &group in &list.0 {
            if let Some((_, other)) = groups.iter().find(|(taken, _)| taken.group == group) {
                return Err(UsageError::GroupTwice(group, other, flag));
            }
            let config = GroupConfig {
                group,
                side,
                prefix_length,
            };
            groups.push((config, flag));
        }
    }
    if groups.is_empty() {
        return Err(UsageError::NoGroup);
    }
    Ok(groups.into_iter().map(|(group, _)| group).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::commands::Cli;

    fn resolve(args: &[&str]) -> Result<Config, UsageError> {
        let args = ["acctd"].iter().chain(args).map(Into::into);
        Config::resolve(Cli::parse_args(args).unwrap().flags)
    }

    #[test]
    fn no_group_is_an_error_that_says_how_to_get_some() {
        let text = resolve(&[]).unwrap_err().to_string();
        assert!(text.contains("acctd rules --apply"), "{text}");
        assert!(resolve(&["-ip4-src-group=0"]).is_err());
    }

    #[test]
    fn one_group_for_two_directions_is_rejected() {
        assert_eq!(
            resolve(&["-ip4-src-group=4-6", "-ip6-src-group=5"]).unwrap_err(),
            UsageError::GroupTwice(NflogGroup(5), "ip4-src-group", "ip6-src-group")
        );
    }

    #[test]
    fn the_cross_check_counts_only_directions_that_have_a_group() {
        assert!(resolve(&["-ip4-src-group=4"]).unwrap().crosscheck.is_none());
        let args = ["-ip4-dst-group=4", "-ip6-src-group=6,7", "-crosscheck=eth0"];
        let config = resolve(&args).unwrap();
        assert_eq!(config.flush_timeout, Duration::from_millis(100));
        let crosscheck = config.crosscheck.unwrap();
        assert_eq!(crosscheck.accounted, 0b0110);
        assert_eq!(crosscheck.prefix_lengths.len(), 2);
        assert_eq!(
            resolve(&["-ip4-src-group=4", "-crosscheck=eth0,eth0:near"]).unwrap_err(),
            UsageError::InterfaceTwice("eth0".into())
        );
    }

    #[test]
    fn debug_implies_verbose_and_cpus_limits_the_threads() {
        let config = resolve(&["-ip4-src-group=4-9", "-debug", "-cpus=3"]).unwrap();
        assert!(config.verbose);
        assert_eq!(config.n_threads, 3);
        assert_eq!(config.groups.len(), 6);
    }
}
