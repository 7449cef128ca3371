//! The rules for iptables and ip6tables: acctd's chains in the table mangle, which all packets pass before the table
//! filter, and one jump to each chain.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use anyhow::{Context as _, Result};

use super::nft;
use super::plan::{Hook, Plan, Rule};
use crate::model::group::NflogGroup;
use crate::model::prefix::{Family, Side};
use crate::rules::compare::compare;
use crate::rules::external::{self, ExternalError};
use crate::rules::names::CHAIN_PREFIX;

const TABLE: &str = "mangle";
const HOOKS: [Hook; 4] = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output];
const FAMILIES: [Family; 2] = [Family::Ip4, Family::Ip6];

/// A shell script that loads each family's chains in one transaction. A second run changes nothing.
pub(crate) fn script(plan: &Plan) -> String {
    let mut text = String::from(
        r#"set -e
# The jump goes first, where no verdict comes before it.
jump() {
    old=
    if "$1" -w -t mangle -C "$2" -j "ACCTD-$2" 2>/dev/null; then old="-D $2 -j ACCTD-$2"; fi
    printf '*mangle\n%s\n-I %s -j ACCTD-%s\nCOMMIT\n' "$old" "$2" "$2" | "$1-restore" -w --noflush
}
"#,
    );
    for family in FAMILIES {
        let program = program(family);
        let hooks: Vec<(Hook, Vec<String>)> = by_hook(plan, family).collect();
        if hooks.is_empty() {
            continue;
        }
        // Writing to a string cannot fail.
        let _always = writeln!(text, "{program}-restore -w --noflush <<'END'\n*{TABLE}");
        for (hook, rules) in &hooks {
            let _always = writeln!(text, ":{} - [0:0]\n{}", chain(hook), rules.join("\n"));
        }
        text.push_str("COMMIT\nEND\n");
        for (hook, _) in &hooks {
            let _always = writeln!(text, "jump {program} {}", parent(hook));
        }
    }
    text
}

/// Loads the rules, each family in one transaction. First removes those in the other back end: if both log a packet, it
/// is counted twice.
pub(crate) fn apply(plan: &Plan) -> Result<()> {
    for family in FAMILIES {
        for other in back_ends(family)? {
            if !other.is_default {
                other.remove()?;
            }
        }
    }
    for family in FAMILIES {
        let back_end = BackEnd::default_of(family)?;
        let loaded = back_end.loaded()?;
        let mut text = format!("*{TABLE}\n");
        for hook in HOOKS {
            let (chain, parent) = (chain(&hook), parent(&hook));
            let rules = by_hook(plan, family).find(|(other, _)| *other == hook);
            let Some((_, rules)) = rules else {
                text.push_str(&removal(&hook, &loaded));
                continue;
            };
            // If the chain exists, this empties it.
            let _always = writeln!(text, ":{chain} - [0:0]");
            for rule in rules {
                let _always = writeln!(text, "{rule}");
            }
            // First, so that no verdict comes before it.
            let n_jumps = n_jumps(&hook, &loaded);
            if n_jumps != 1 || !is_jump_first(&hook, &loaded) {
                text.push_str(&format!("-D {parent} -j {chain}\n").repeat(n_jumps));
                let _always = writeln!(text, "-I {parent} -j {chain}");
            }
        }
        back_end.restore(text).context("cannot load the rules")?;
    }
    Ok(())
}

/// Removes acctd's chains from both back ends. iptables need not be installed if there are none.
pub(crate) fn remove() -> Result<()> {
    for family in FAMILIES {
        for back_end in back_ends(family)? {
            back_end.remove()?;
        }
    }
    Ok(())
}

/// A line for each difference between the loaded rules and the needed ones.
pub(crate) fn differences(plan: &Plan) -> Result<Vec<String>> {
    let mut differences = Vec::new();
    for family in FAMILIES {
        let mut needed = Vec::new();
        for (hook, rules) in by_hook(plan, family) {
            needed.push(format!("-N {}", chain(&hook)));
            needed.extend(rules);
            needed.push(jump(&hook));
        }
        let back_end = BackEnd::default_of(family)?;
        let loaded = back_end.loaded()?;
        let mut lines = compare(&needed, &ours(&loaded));
        for (hook, _) in by_hook(plan, family) {
            if n_jumps(&hook, &loaded) > 0 && !is_jump_first(&hook, &loaded) {
                lines.push(format!("not in front: {}", jump(&hook)));
            }
        }
        let program = program(family);
        differences.extend(lines.into_iter().map(|line| format!("{program}: {line}")));
    }
    differences.extend(left_over(false)?);
    Ok(differences)
}

/// A line for each of acctd's loaded rules in the back end that `iptables` does not use, or with `in_default` in both.
pub(crate) fn left_over(in_default: bool) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for family in FAMILIES {
        for back_end in back_ends(family)? {
            if back_end.is_default && !in_default {
                continue;
            }
            let program = &back_end.program;
            let ours = ours(&back_end.loaded()?);
            lines.extend(
                ours.iter()
                    .map(|line| format!("{program}: not needed: {line}")),
            );
        }
    }
    Ok(lines)
}

/// iptables-legacy and iptables-nft have separate rules in the kernel, and a packet passes both.
#[derive(Debug)]
struct BackEnd {
    family: Family,
    program: String,
    is_legacy: bool,
    /// `iptables` is this one.
    is_default: bool,
}

impl BackEnd {
    fn default_of(family: Family) -> Result<Self> {
        let program = program(family).to_owned();
        // Before 1.8, there is only legacy, and the version does not name it.
        let version = external::run(&program, &["-V"], "")?;
        Ok(Self {
            family,
            is_legacy: !version.contains("nf_tables"),
            is_default: true,
            program,
        })
    }

    /// The loaded rules, as `iptables -S` prints them.
    fn loaded(&self) -> Result<Vec<String>> {
        // Listing a table makes the kernel create it.
        if self.is_legacy && !has_legacy_table(self.family)? {
            return Ok(Vec::new());
        }
        let text = external::run(&self.program, &["-w", "-t", TABLE, "-S"], "")?;
        let lines = text.lines().map(|line| line.trim_end().to_owned());
        Ok(lines.collect())
    }

    fn restore(&self, mut text: String) -> Result<()> {
        text.push_str("COMMIT\n");
        let program = format!("{}-restore", self.program);
        external::run(&program, &["-w", "--noflush"], &text)?;
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        let loaded = self.loaded()?;
        let removals: String = HOOKS.iter().map(|hook| removal(hook, &loaded)).collect();
        if removals.is_empty() {
            return Ok(());
        }
        self.restore(format!("*{TABLE}\n{removals}"))
            .context("cannot remove the rules")?;
        if !self.is_legacy {
            nft::remove_if_empty(nft_family(self.family), TABLE)?;
        }
        Ok(())
    }
}

/// All back ends that may have rules of acctd. Fails if there are rules that no installed program can read.
fn back_ends(family: Family) -> Result<Vec<BackEnd>> {
    let default = match BackEnd::default_of(family) {
        Ok(default) => Some(default),
        Err(error) if is_missing(&error) => None,
        Err(error) => return Err(error),
    };
    let mut back_ends = Vec::new();
    for is_legacy in [true, false] {
        if default.as_ref().is_some_and(|it| it.is_legacy == is_legacy) {
            continue;
        }
        let has_rules = if is_legacy {
            has_legacy_table(family)?
        } else {
            nft::has_chains_of_iptables(nft_family(family))?
        };
        if !has_rules {
            continue;
        }
        let end = if is_legacy { "legacy" } else { "nft" };
        let program = format!("{}-{end}", program(family));
        external::run(&program, &["-V"], "").with_context(|| {
            format!(
                "rules of {program} are loaded and cannot be read, so acctd's may be among them"
            )
        })?;
        back_ends.push(BackEnd {
            family,
            program,
            is_legacy,
            is_default: false,
        });
    }
    back_ends.extend(default);
    Ok(back_ends)
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ExternalError::Missing { .. }))
}

/// Whether the kernel has the table of iptables-legacy, even if it is empty.
fn has_legacy_table(family: Family) -> Result<bool> {
    let name = match family {
        Family::Ip4 => "ip_tables_names",
        Family::Ip6 => "ip6_tables_names",
    };
    let path = Path::new("/proc/thread-self/net").join(name);
    match fs::read_to_string(&path) {
        Ok(names) => Ok(names.lines().any(|line| line == TABLE)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn ours(loaded: &[String]) -> Vec<String> {
    let ours = loaded.iter().filter(|line| line.contains(CHAIN_PREFIX));
    ours.cloned().collect()
}

fn jump(hook: &Hook) -> String {
    format!("-A {} -j {}", parent(hook), chain(hook))
}

fn n_jumps(hook: &Hook, loaded: &[String]) -> usize {
    let jump = jump(hook);
    loaded.iter().filter(|line| **line == jump).count()
}

fn is_jump_first(hook: &Hook, loaded: &[String]) -> bool {
    let rules = format!("-A {} ", parent(hook));
    loaded.iter().find(|line| line.starts_with(&rules)) == Some(&jump(hook))
}

/// The commands that remove the chain of a hook, if it exists.
fn removal(hook: &Hook, loaded: &[String]) -> String {
    let (chain, parent) = (chain(hook), parent(hook));
    let mut text = format!("-D {parent} -j {chain}\n").repeat(n_jumps(hook, loaded));
    if loaded.contains(&format!("-N {chain}")) {
        let _always = writeln!(text, "-F {chain}\n-X {chain}");
    }
    text
}

/// The hooks that have rules, with their rules.
fn by_hook(plan: &Plan, family: Family) -> impl Iterator<Item = (Hook, Vec<String>)> {
    HOOKS.into_iter().filter_map(move |hook| {
        let rules = plan.rules.iter();
        let rules = rules.filter(|rule| rule.family == family && rule.hook == hook);
        let rules: Vec<String> = rules.flat_map(|rule| rules_of(plan, rule)).collect();
        (!rules.is_empty()).then_some((hook, rules))
    })
}

/// A rule as `iptables -S` prints it; with several groups, one for each CPU.
fn rules_of(plan: &Plan, rule: &Rule) -> Vec<String> {
    if let [group] = rule.groups[..] {
        return vec![rule_text(plan, rule, group, None)];
    }
    // The packet stays on one CPU while it passes the rules of a table (ipt_do_table).
    let spread = plan.by_cpu(&rule.groups);
    spread
        .map(|(cpu, group)| rule_text(plan, rule, group, Some(cpu)))
        .collect()
}

fn rule_text(plan: &Plan, rule: &Rule, group: NflogGroup, cpu: Option<usize>) -> String {
    let interface = rule.interface.as_ref().map(|name| {
        let flag = match rule.side {
            Side::Source => "-i",
            Side::Dest => "-o",
        };
        format!(" {flag} {}", name.replace('*', "+"))
    });
    let cpu = cpu.map(|cpu| format!(" -m cpu --cpu {cpu}"));
    format!(
        "-A {}{}{} -m comment --comment \"{}\" -j NFLOG --nflog-group {group} --nflog-size {} --nflog-threshold {}",
        chain(&rule.hook),
        interface.unwrap_or_default(),
        cpu.unwrap_or_default(),
        rule.description(),
        plan.snaplen(rule),
        plan.threshold
    )
}

fn chain(hook: &Hook) -> String {
    format!("{CHAIN_PREFIX}{}", parent(hook))
}

fn parent(hook: &Hook) -> String {
    hook.name().to_uppercase()
}

fn nft_family(family: Family) -> &'static str {
    match family {
        Family::Ip4 => "ip",
        Family::Ip6 => "ip6",
    }
}

fn program(family: Family) -> &'static str {
    match family {
        Family::Ip4 => "iptables",
        Family::Ip6 => "ip6tables",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::plan::tests::plan;

    #[test]
    fn a_router_has_its_own_chains() {
        let args = [
            "router",
            "--lan=ppp*",
            "-ip4-src-group=5",
            "-ip6-dst-group=6",
        ];
        assert_eq!(
            script(&plan(&args).unwrap()),
            r#"set -e
# The jump goes first, where no verdict comes before it.
jump() {
    old=
    if "$1" -w -t mangle -C "$2" -j "ACCTD-$2" 2>/dev/null; then old="-D $2 -j ACCTD-$2"; fi
    printf '*mangle\n%s\n-I %s -j ACCTD-%s\nCOMMIT\n' "$old" "$2" "$2" | "$1-restore" -w --noflush
}
iptables-restore -w --noflush <<'END'
*mangle
:ACCTD-PREROUTING - [0:0]
-A ACCTD-PREROUTING -i ppp+ -m comment --comment "acctd: IPv4 from ppp*, by source" -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
COMMIT
END
jump iptables PREROUTING
ip6tables-restore -w --noflush <<'END'
*mangle
:ACCTD-FORWARD - [0:0]
-A ACCTD-FORWARD -o ppp+ -m comment --comment "acctd: IPv6 to ppp*, by destination" -j NFLOG --nflog-group 6 --nflog-size 40 --nflog-threshold 50
:ACCTD-OUTPUT - [0:0]
-A ACCTD-OUTPUT -o ppp+ -m comment --comment "acctd: IPv6 to ppp*, by destination" -j NFLOG --nflog-group 6 --nflog-size 40 --nflog-threshold 50
COMMIT
END
jump ip6tables FORWARD
jump ip6tables OUTPUT
"#
        );
    }
}
