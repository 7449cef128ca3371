//! Logs warnings, with their cure, when counters show a problem, at most every ten seconds per group. It reads
//! the counters that the readers publish, so no reader formats a line.

use std::time::{Duration, Instant};

use log::warn;

use crate::model::counts::Counts;
use crate::model::group::GroupConfig;
use crate::model::prefix::Family;
use crate::nflog::socket::copy_range;

/// The least time between two warnings about the same group.
const PAUSE: Duration = Duration::from_secs(10);

/// Checks the counters of one group.
#[derive(Debug)]
pub(crate) struct Monitor {
    config: GroupConfig,
    /// The counters when the last warning was written.
    reported: Counts,
    quiet_until: Option<Instant>,
}

impl Monitor {
    /// Assumes that all counters are zero.
    pub(crate) fn new(config: GroupConfig) -> Self {
        Self {
            config,
            reported: Counts::default(),
            quiet_until: None,
        }
    }

    /// Warns if `counts`, the group's counters since the start, show something new.
    pub(crate) fn check(&mut self, counts: &Counts, now: Instant) {
        if self.quiet_until.is_some_and(|until| now < until) {
            return;
        }
        self.report(counts, now);
    }

    /// As [`Self::check`], however recent the last warning is.
    pub(crate) fn report(&mut self, counts: &Counts, now: Instant) {
        let warnings = warnings(&self.config, &counts.since(&self.reported), counts);
        if warnings.is_empty() {
            return;
        }
        for warning in warnings {
            warn!("group {}: {warning}", self.config.group);
        }
        self.reported = *counts;
        self.quiet_until = Some(now + PAUSE);
    }
}

fn warnings(config: &GroupConfig, new: &Counts, total: &Counts) -> Vec<String> {
    let family = config.prefix_length.family();
    let mut warnings = Vec::new();
    if new.lost > 0 {
        let batch = total.packets.checked_div(total.datagrams).unwrap_or(0);
        warnings.push(format!(
            "{} packets lost ({} since the start, {} overruns of the socket): the socket was full. \
             Raise the rule's queue-threshold (--nflog-threshold; now about {batch} packets a \
             datagram), spread the direction over several groups, or give acctd more CPU",
            new.lost, total.lost, total.overruns
        ));
    }
    if new.overruns_without_gap > 0 {
        warnings.push(
            "the socket has overflowed and no packet arrived afterwards: the number of lost packets is not known"
                .into(),
        );
    } else if new.lost == 0 && new.overruns > 0 {
        warnings.push(format!(
            "the socket has overflowed {} times; the next packet shows how many are lost",
            new.overruns
        ));
    }
    if new.truncated > 0 {
        warnings.push(format!(
            "{} packets not counted, their IP header is cut off: give the rule 'snaplen {}' \
             (--nflog-size; {} on the netdev egress hook) or none",
            new.truncated,
            family.header_length(),
            copy_range(family)
        ));
    }
    if new.other_family > 0 {
        let (here, there) = match family {
            Family::Ip4 => ("IPv4", "IPv6"),
            Family::Ip6 => ("IPv6", "IPv4"),
        };
        warnings.push(format!(
            "{} {there} packets not counted, the group is read for {here}: give the rule \
             'meta nfproto {}' and {there} another group",
            new.other_family,
            here.to_lowercase()
        ));
    }
    if new.not_ip > 0 {
        warnings.push(format!(
            "{} packets not counted that are not IP: match 'meta protocol {{ ip, ip6 }}' in the rule",
            new.not_ip
        ));
    }
    if new.malformed > 0 {
        warnings.push(format!(
            "{} netlink messages not counted that do not parse",
            new.malformed
        ));
    }
    if new.overflow > 0 {
        warnings.push(format!(
            "{} packets counted in the row of the zero address, the ledger is full: raise \
             --max-prefixes or account to shorter prefixes",
            new.overflow
        ));
    }
    if new.without_length > 0 {
        warnings.push(format!(
            "{} packets counted with 0 bytes, their header has no length (BIG TCP): the bytes are too low. \
             Limit them to 64 KiB: 'ip link set DEV gso_max_size 65535 gro_max_size 65535'; acctd doctor \
             names the interfaces",
            new.without_length
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::group::NflogGroup;
    use crate::model::prefix::{PrefixLength, Side};

    fn config() -> GroupConfig {
        GroupConfig {
            group: NflogGroup(5),
            side: Side::Source,
            prefix_length: PrefixLength::new(Family::Ip4, 32).unwrap(),
        }
    }

    #[test]
    fn each_counter_that_means_a_problem_has_its_cure() {
        let counts = Counts {
            packets: 1_000,
            datagrams: 20,
            lost: 7,
            truncated: 1,
            not_ip: 2,
            other_family: 3,
            malformed: 4,
            overflow: 5,
            without_length: 6,
            ..Counts::default()
        };
        let text = warnings(&config(), &counts, &counts).join("\n");
        for cure in [
            "7 packets lost",
            "now about 50 packets",
            "snaplen 20",
            "meta nfproto ipv4",
            "meta protocol",
            "4 netlink messages",
            "--max-prefixes",
            "6 packets counted with 0 bytes",
            "gso_max_size 65535 gro_max_size 65535",
        ] {
            assert!(text.contains(cure), "{cure} is not in:\n{text}");
        }
        let healthy = Counts {
            packets: 5,
            bytes: 500,
            datagrams: 1,
            late: 1,
            ..Counts::default()
        };
        assert_eq!(warnings(&config(), &healthy, &healthy), [""; 0]);
    }

    #[test]
    fn warnings_are_rate_limited_but_nothing_is_left_out() {
        let mut monitor = Monitor::new(config());
        let lost = |lost| Counts {
            lost,
            ..Counts::default()
        };
        let start = Instant::now();
        monitor.check(&lost(3), start);
        assert_eq!(monitor.reported.lost, 3);
        monitor.check(&lost(5), start + Duration::from_secs(9));
        assert_eq!(monitor.reported.lost, 3, "too early");
        monitor.check(&lost(6), start + Duration::from_secs(10));
        assert_eq!(monitor.reported.lost, 6);
        monitor.report(&lost(8), start + Duration::from_secs(11));
        assert_eq!(monitor.reported.lost, 8, "a report is never delayed");
    }
}
