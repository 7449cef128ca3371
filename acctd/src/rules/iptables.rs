//! The rules for iptables and ip6tables: chains of acctd's own in the table mangle, which all packets
//! pass before the filter, and one jump to each.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::plan::{Hook, Plan, Rule};
use crate::external;
use crate::nflog_socket::NflogGroup;
use crate::prefix::{Family, Side};

const TABLE: &str = "mangle";
/// What the names of chains of ours begin with.
pub const OURS: &str = "ACCTD-";
const HOOKS: [Hook; 4] = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output];
const FAMILIES: [Family; 2] = [Family::Ip4, Family::Ip6];

/// Commands for a shell, to be run once.
#[must_use]
pub fn script(plan: &Plan) -> String {
    let mut text = String::new();
    for family in FAMILIES {
        let program = program(family);
        for (hook, rules) in by_hook(plan, family) {
            let (chain, parent) = (chain(&hook), parent(&hook));
            // A string takes what is written to it.
            let _always = writeln!(text, "{program} -t {TABLE} -N {chain}");
            for rule in rules {
                let _always = writeln!(text, "{program} -t {TABLE} {rule}");
            }
            let _always = writeln!(text, "{program} -t {TABLE} -I {parent} -j {chain}");
        }
    }
    text
}

/// Loads them, each family all at once.
pub fn apply(plan: &Plan) -> Result<()> {
    for family in FAMILIES {
        let loaded = loaded(family)?;
        let mut text = format!("*{TABLE}\n");
        for hook in HOOKS {
            let (chain, parent) = (chain(&hook), parent(&hook));
            let jump = format!("-A {parent} -j {chain}");
            let rules = by_hook(plan, family).find(|(other, _)| *other == hook);
            let Some((_, rules)) = rules else {
                text.push_str(&removal(&hook, &loaded));
                continue;
            };
            // One that is there is emptied.
            let _always = writeln!(text, ":{chain} - [0:0]");
            for rule in rules {
                let _always = writeln!(text, "{rule}");
            }
            // In front, where no verdict comes before it.
            if !loaded.contains(&jump) {
                let _always = writeln!(text, "-I {parent} -j {chain}");
            }
        }
        restore(family, text).context("cannot load the rules")?;
    }
    Ok(())
}

/// Takes away all chains of ours.
pub fn remove() -> Result<()> {
    for family in FAMILIES {
        let loaded = loaded(family)?;
        let removals: String = HOOKS.iter().map(|hook| removal(hook, &loaded)).collect();
        if !removals.is_empty() {
            restore(family, format!("*{TABLE}\n{removals}")).context("cannot remove the rules")?;
        }
    }
    Ok(())
}

/// How what is loaded differs, in lines; none if it does not.
pub fn differences(plan: &Plan) -> Result<Vec<String>> {
    let mut differences = Vec::new();
    for family in FAMILIES {
        let mut needed = Vec::new();
        for (hook, rules) in by_hook(plan, family) {
            needed.push(format!("-N {}", chain(&hook)));
            needed.extend(rules);
            needed.push(format!("-A {} -j {}", parent(&hook), chain(&hook)));
        }
        let loaded = loaded(family)?;
        let ours: Vec<String> = loaded
            .into_iter()
            .filter(|line| line.contains(OURS))
            .collect();
        let program = program(family);
        let lines = super::compare(&needed, &ours);
        differences.extend(lines.into_iter().map(|line| format!("{program}: {line}")));
    }
    Ok(differences)
}

/// What takes the chain of a hook away, if it is there.
fn removal(hook: &Hook, loaded: &[String]) -> String {
    let (chain, parent) = (chain(hook), parent(hook));
    let jump = format!("-A {parent} -j {chain}");
    let mut text = String::new();
    for _ in loaded.iter().filter(|line| **line == jump) {
        let _always = writeln!(text, "-D {parent} -j {chain}");
    }
    if loaded.contains(&format!("-N {chain}")) {
        let _always = writeln!(text, "-F {chain}\n-X {chain}");
    }
    text
}

/// The lines of what is loaded, as commands.
fn loaded(family: Family) -> Result<Vec<String>> {
    let program = program(family);
    let text = external::run(program, &["-w", "-t", TABLE, "-S"], "")?;
    Ok(text
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect())
}

fn restore(family: Family, mut text: String) -> Result<()> {
    text.push_str("COMMIT\n");
    let program = format!("{}-restore", program(family));
    external::run(&program, &["-w", "--noflush"], &text)?;
    Ok(())
}

/// The hooks that have rules, each with these.
fn by_hook(plan: &Plan, family: Family) -> impl Iterator<Item = (Hook, Vec<String>)> {
    HOOKS.into_iter().filter_map(move |hook| {
        let rules = plan.rules.iter();
        let rules = rules.filter(|rule| rule.family == family && rule.hook == hook);
        let rules: Vec<String> = rules.flat_map(|rule| rules_of(plan, rule)).collect();
        (!rules.is_empty()).then_some((hook, rules))
    })
}

/// A rule as `iptables -S` prints it; if it is spread, one for each CPU.
fn rules_of(plan: &Plan, rule: &Rule) -> Vec<String> {
    if let [group] = rule.groups[..] {
        return vec![rule_text(plan, rule, group, None)];
    }
    // iptables goes through its rules without being moved to another CPU (ipt_do_table).
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
        rule.words(),
        plan.snaplen(rule),
        plan.threshold
    )
}

fn chain(hook: &Hook) -> String {
    format!("{OURS}{}", parent(hook))
}

fn parent(hook: &Hook) -> String {
    hook.name().to_uppercase()
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
    fn a_router_has_chains_of_its_own() {
        let args = [
            "router",
            "--lan=ppp*",
            "-ip4-src-group=5",
            "-ip6-dst-group=6",
        ];
        assert_eq!(
            script(&plan(&args).unwrap()),
            r#"iptables -t mangle -N ACCTD-PREROUTING
iptables -t mangle -A ACCTD-PREROUTING -i ppp+ -m comment --comment "acctd: IPv4 from ppp*, by source" -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
iptables -t mangle -I PREROUTING -j ACCTD-PREROUTING
ip6tables -t mangle -N ACCTD-FORWARD
ip6tables -t mangle -A ACCTD-FORWARD -o ppp+ -m comment --comment "acctd: IPv6 to ppp*, by destination" -j NFLOG --nflog-group 6 --nflog-size 40 --nflog-threshold 50
ip6tables -t mangle -I FORWARD -j ACCTD-FORWARD
ip6tables -t mangle -N ACCTD-OUTPUT
ip6tables -t mangle -A ACCTD-OUTPUT -o ppp+ -m comment --comment "acctd: IPv6 to ppp*, by destination" -j NFLOG --nflog-group 6 --nflog-size 40 --nflog-threshold 50
ip6tables -t mangle -I OUTPUT -j ACCTD-OUTPUT
"#
        );
    }
}
