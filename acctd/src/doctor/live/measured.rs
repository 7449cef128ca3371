//! The result of a measurement, as text and as JSON, with the findings that explain a difference.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::hooks::Snapshot;
use super::logged::{self, Logged};
use crate::config::Config;
use crate::config::crosscheck::{End, Watched};
use crate::doctor::finding::Finding;
use crate::doctor::live::count::Count;
use crate::model::human::{bytes, thousands};
use crate::model::prefix::{Family, Side};

/// The TC programs' count for one family and side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    pub(crate) family: Family,
    pub(crate) side: Side,
    pub(crate) packets: u64,
    /// By the lengths in the IP headers.
    pub(crate) bytes: u64,
    /// How many of `packets` are fragments, which connection tracking reassembles before rules see them.
    pub(crate) fragments: u64,
}

pub(super) struct Parts<'a> {
    pub(crate) config: &'a Config,
    pub(crate) watched: &'a [Watched],
    pub(crate) took: Duration,
    /// How long it took to read all counters once.
    pub(crate) uncertain: Duration,
    pub(crate) notes: Vec<String>,
    pub(crate) passed: Option<Vec<Passed>>,
    pub(crate) snapshots: [&'a Snapshot; 2],
    pub(crate) logged: &'a BTreeMap<u16, Logged>,
    pub(crate) found: &'a [Finding],
}

#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    seconds: f64,
    interfaces: Vec<String>,
    /// All counters are read within this time, at the beginning and at the end.
    read_within_seconds: f64,
    notes: Vec<String>,
    directions: Vec<Direction>,
}

/// The findings that explain a difference come first.
#[derive(Debug, Serialize)]
pub(crate) struct WithFindings<'a> {
    #[serde(flatten)]
    measured: &'a Measured,
    findings: Vec<Finding>,
}

/// One family by one side.
#[derive(Debug, Serialize)]
struct Direction {
    ip_version: u8,
    side: &'static str,
    passed: PassedBy,
    hooks: Vec<HookCount>,
    groups: Vec<Group>,
    /// Packets that passed and matched no rule, if that is known. If negative, more packets matched than passed.
    missing: Option<i64>,
    /// Packets that pass while the counters are read.
    uncertain: u64,
    /// Finding ids.
    explained_by: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct PassedBy {
    packets: u64,
    bytes: u64,
    fragments: u64,
    source: String,
}

#[derive(Debug, Serialize)]
struct HookCount {
    hook: &'static str,
    watched: Count,
    /// On other interfaces, such as lo.
    other: Count,
}

#[derive(Debug, Serialize)]
struct Group {
    #[serde(rename = "group")]
    number: u16,
    rules: Vec<RuleCount>,
    met: Option<u64>,
    logged: Option<u64>,
    lost: Option<u64>,
    /// The process that received them, or why that is unknown.
    logged_by: String,
}

#[derive(Debug, Serialize)]
struct RuleCount {
    place: String,
    packets: Option<u64>,
    /// The counter in use, or why there is none.
    source: &'static str,
}

impl Measured {
    pub(super) fn new(parts: Parts<'_>) -> Self {
        let mut directions = Vec::new();
        for side in [Side::Source, Side::Dest] {
            for family in [Family::Ip4, Family::Ip6] {
                directions.extend(Direction::new(&parts, family, side));
            }
        }
        let interfaces = parts.watched.iter().map(|it| it.interface.clone());
        Self {
            seconds: parts.took.as_secs_f64(),
            interfaces: interfaces.collect(),
            read_within_seconds: parts.uncertain.as_secs_f64(),
            notes: parts.notes,
            directions,
        }
    }

    /// Whether each packet that passed matched a rule and was delivered, as far as that is known.
    pub(crate) fn is_whole(&self) -> bool {
        self.directions.iter().all(Direction::is_whole)
    }

    /// Moves the findings that explain a difference to the front.
    pub(crate) fn rank(&self, found: &mut [Finding]) {
        let explains = |finding: &Finding| {
            let mut directions = self.directions.iter();
            directions.any(|it| {
                it.groups
                    .iter()
                    .any(|group| it.is_explained_by(finding, group))
            })
        };
        found.sort_by_key(|finding| !explains(finding));
    }

    pub(crate) fn with_findings(&self, found: &[Finding]) -> WithFindings<'_> {
        let mut findings = found.to_vec();
        self.rank(&mut findings);
        WithFindings {
            measured: self,
            findings,
        }
    }
}

impl Direction {
    /// `None` if no group has this family and side.
    fn new(parts: &Parts<'_>, family: Family, side: Side) -> Option<Self> {
        let [first, last] = parts.snapshots;
        let is_of = |it: &&crate::model::group::GroupConfig| {
            it.side == side && it.prefix_length.family() == family
        };
        let numbers = parts.config.groups.iter().filter(is_of);
        let groups = numbers
            .map(|it| Group::new(it.group.0, parts))
            .collect::<Vec<_>>();
        if groups.is_empty() {
            return None;
        }
        let is_far = parts.watched.first().is_none_or(|it| it.end == End::Far);
        let comes_in = is_far == (side == Side::Source);
        let (names, key): (&[&'static str], _) = if comes_in {
            (&["prerouting", "input", "forward"], "iifname")
        } else {
            (&["output", "forward", "postrouting"], "oifname")
        };
        let hooks = names.iter().map(|hook| {
            let [watched, other] = last.passed_since(first, hook, key, family.version());
            HookCount {
                hook,
                watched,
                other,
            }
        });
        let hooks: Vec<HookCount> = hooks.collect();
        let programs = parts.passed.as_ref().and_then(|passed| {
            let mut passed = passed.iter();
            passed.find(|it| it.family == family && it.side == side)
        });
        let passed = if let Some(passed) = programs {
            let hooks: Vec<String> = parts.watched.iter().map(|it| it.hook_of(side)).collect();
            PassedBy {
                packets: passed.packets,
                bytes: passed.bytes,
                fragments: passed.fragments,
                source: format!("TC, {}", hooks.join(", ")),
            }
        } else {
            // Incoming packets pass prerouting first, outgoing packets postrouting last.
            let hook = if comes_in {
                hooks.first()
            } else {
                hooks.last()
            };
            let count = hook.map_or(Count::default(), |it| it.watched);
            PassedBy {
                packets: count.packets,
                bytes: count.bytes,
                fragments: 0,
                source: format!(
                    "nft, {}",
                    if comes_in {
                        "prerouting"
                    } else {
                        "postrouting"
                    }
                ),
            }
        };
        let sum = |of: fn(&Group) -> Option<u64>| groups.iter().map(of).sum::<Option<u64>>();
        let met = sum(|it| it.met).or_else(|| sum(|it| Some(it.logged? + it.lost?)));
        let missing = met.map(|met| missing(&passed, &hooks, met, &groups, parts));
        let nanos = parts.took.as_nanos().max(1);
        let uncertain = u128::from(passed.packets) * parts.uncertain.as_nanos() / nanos;
        let mut direction = Self {
            ip_version: family.version(),
            side: match side {
                Side::Source => "source",
                Side::Dest => "destination",
            },
            passed,
            hooks,
            groups,
            missing,
            uncertain: u64::try_from(uncertain).unwrap_or(u64::MAX),
            explained_by: Vec::new(),
        };
        let explain = parts.found.iter().filter(|finding| {
            let mut groups = direction.groups.iter();
            groups.any(|group| direction.is_explained_by(finding, group))
        });
        let mut ids: Vec<&'static str> = explain.map(|finding| finding.id).collect();
        ids.dedup();
        direction.explained_by = ids;
        Some(direction)
    }

    fn is_whole(&self) -> bool {
        let uncertain = i64::try_from(self.uncertain).unwrap_or(i64::MAX);
        // Surplus packets may be from another interface.
        let is_all = self.missing.is_none_or(|missing| missing <= uncertain);
        is_all && self.groups.iter().all(|group| group.lost.unwrap_or(0) == 0)
    }

    fn is_explained_by(&self, finding: &Finding, group: &Group) -> bool {
        self.missing != Some(0) && names_group(&finding.what, group.number)
    }
}

/// How many of the packets that passed matched no rule. If no rule matches an interface, the rules also see packets of
/// other interfaces, so these are added.
fn missing(
    passed: &PassedBy,
    hooks: &[HookCount],
    met: u64,
    groups: &[Group],
    parts: &Parts<'_>,
) -> i64 {
    let difference = |of: u64| {
        i64::try_from(of)
            .unwrap_or(i64::MAX)
            .saturating_sub_unsigned(met)
    };
    let at_interface = difference(passed.packets);
    let rules = || {
        let [_, last] = parts.snapshots;
        let is_of = |number: u16| groups.iter().any(|group| group.number == number);
        last.rules.iter().filter(move |rule| is_of(rule.group))
    };
    if rules().any(|rule| rule.has_interface || rule.hook.is_none()) {
        return at_interface;
    }
    let is_hooked = |it: &&HookCount| rules().any(|rule| rule.hook.as_deref() == Some(it.hook));
    let hooks: Vec<&HookCount> = hooks.iter().filter(is_hooked).collect();
    let of_others: u64 = hooks.iter().map(|it| it.other.packets).sum();
    at_interface.saturating_add_unsigned(of_others)
}

impl Group {
    fn new(group: u16, parts: &Parts<'_>) -> Self {
        let [first, last] = parts.snapshots;
        let rules = last.rules.iter().filter(|rule| rule.group == group);
        let rules = rules.map(|rule| {
            let earlier = first.rules.iter().find(|it| it.key == rule.key);
            let counted = earlier.and_then(|it| rule.count?.since(it.count?));
            RuleCount {
                place: rule.place.clone(),
                packets: counted.map(|it| it.packets),
                source: match (earlier, rule.count) {
                    (None, _) => "loaded during the measurement",
                    (_, None) => "no counter at its log statement",
                    _ if counted.is_none() => "its counter was reset during the measurement",
                    _ if rule.is_added => "an added counter with the same matches",
                    _ => "its own counter",
                },
            }
        });
        let rules: Vec<RuleCount> = rules.collect();
        let (packets, dropped, logged_by) = match parts.logged.get(&group) {
            Some(Logged::Known { packets, lost, by }) => (Some(*packets), Some(*lost), by.clone()),
            Some(Logged::Unknown(why)) => (None, None, why.clone()),
            None => (None, None, "no process reads it".to_owned()),
        };
        Self {
            number: group,
            met: logged::met(group, first, last),
            rules,
            logged: packets,
            lost: dropped,
            logged_by,
        }
    }
}

/// Whether a text names this group, as in `group 5` or `groups 4-7, 9 and 12`.
fn names_group(text: &str, group: u16) -> bool {
    let mut is_in_list = false;
    for word in text.split_whitespace() {
        if matches!(word, "group" | "groups") {
            is_in_list = true;
        } else if is_in_list && word != "and" {
            let range = word.trim_end_matches([',', ':', ';', '.']);
            let (low, high) = range.split_once('-').unwrap_or((range, range));
            let (Ok(low), Ok(high)) = (low.parse::<u16>(), high.parse::<u16>()) else {
                is_in_list = false;
                continue;
            };
            if (low..=high).contains(&group) {
                return true;
            }
            is_in_list = !word.ends_with([':', ';', '.']);
        }
    }
    false
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "measured for {:.1} s on {}; counters are read within {:.0} ms of each other",
            self.seconds,
            self.interfaces.join(", "),
            self.read_within_seconds * 1e3
        )?;
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        for direction in &self.directions {
            write!(f, "{direction}")?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = &self.passed;
        writeln!(f, "\nIPv{} by {}", self.ip_version, self.side)?;
        write!(
            f,
            "  passed   {:>12} packets, {} ({})",
            thousands(passed.packets),
            bytes(passed.bytes),
            passed.source
        )?;
        if passed.fragments > 0 {
            write!(f, ", {} of them fragments", thousands(passed.fragments))?;
        }
        writeln!(f)?;
        for HookCount {
            hook,
            watched,
            other,
        } in &self.hooks
        {
            write!(f, "    {hook:<11} {:>8}", thousands(watched.packets))?;
            if other.packets > 0 {
                write!(f, ", and {} of other interfaces", thousands(other.packets))?;
            }
            writeln!(f)?;
        }
        for group in &self.groups {
            let number = |it: Option<u64>| it.map_or("unknown".to_owned(), thousands);
            for rule in &group.rules {
                writeln!(
                    f,
                    "  met      {:>12} the rule of group {}, {} ({})",
                    number(rule.packets),
                    group.number,
                    rule.place,
                    rule.source
                )?;
            }
            if group.rules.is_empty() {
                writeln!(f, "  met      {:>12} group {} has no rule", 0, group.number)?;
            }
            write!(
                f,
                "  logged   {:>12} to group {} ({})",
                number(group.logged),
                group.number,
                group.logged_by
            )?;
            match group.lost {
                Some(lost) if lost > 0 => writeln!(f, ", {} lost", thousands(lost))?,
                _ => writeln!(f)?,
            }
        }
        match self.missing {
            None => writeln!(f, "  missing       unknown")?,
            Some(missing) if missing < 0 => writeln!(
                f,
                "  too many {:>12} packets: logged twice, or from another interface",
                thousands(missing.unsigned_abs())
            )?,
            Some(missing) => {
                let missing = missing.unsigned_abs();
                write!(f, "  missing  {:>12} packets", thousands(missing))?;
                if missing > 0 && missing <= self.uncertain {
                    write!(f, ", no more than pass while the counters are read")?;
                }
                writeln!(f)?;
            }
        }
        if self.passed.packets == 0 {
            writeln!(
                f,
                "  no packet passed, so this says nothing about the rules"
            )?;
        } else if self.missing.is_some_and(|it| it != 0) {
            match &self.explained_by[..] {
                [] => writeln!(
                    f,
                    "  no finding names these groups: compare what the rules match with the numbers of the hooks"
                )?,
                ids => writeln!(f, "  see [{}]", ids.join("], ["))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_named_by_its_number_or_in_a_range() {
        for (text, is_named) in [
            ("no rule logs to group 5", true),
            ("no rule logs to group 55", false),
            ("groups 4-7 see what this host receives", true),
            ("no rule logs to groups 4, 5 and 6", true),
            ("no rule logs to groups 4 and 5", true),
            ("no rule logs to groups 6-8: 5 of them", false),
            (
                "chain input of table inet t copies 5 bytes to group 7",
                false,
            ),
            ("group 4 and group 5", true),
            ("groups 4-7", true),
        ] {
            assert_eq!(names_group(text, 5), is_named, "{text}");
        }
    }
}
