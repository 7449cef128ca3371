//! What the facts mean for acctd with these flags: findings, each with its cure. Pure.
//!
//! The ids are the same in all versions. Those of rules:
//!
//! | id | |
//! |---|---|
//! | `rules-unreadable` | doctor cannot read the loaded rules |
//! | `no-rule`, `chain-not-hooked`, `dormant-table` | no rule logs to the group, or no packet reaches it |
//! | `wrong-family`, `other-family` | IPv4 instead of IPv6, or both |
//! | `matches-nothing`, `empty-set` | a condition that no packet matches |
//! | `never-reached`, `behind-verdict` | a verdict before the rule stops all packets, or some |
//! | `limited`, `some-states`, `some-protocols`, `dynamic-set`, `some-packets` | the rule itself excludes packets |
//! | `snaplen-too-small`, `no-snaplen`, `small-threshold`, `nat-chain` | settings of the rule |
//! | `wrong-hook`, `address-after-nat`, `address-before-nat` | the rule sees another address than the accounted one |
//! | `no-such-interface`, `port-of-bridge`, `port-of-bond`, `port-of-vrf` | interfaces in the rule |
//! | `logged-twice` | a packet matches two rules of one direction |
//! | `forwarded-not-counted` | the host forwards, and no rule sees these packets |
//! | `flowtable`, `hardware-offload`, `ip6-not-counted`, `group-unread` | packets that bypass the rules, families and groups that acctd does not read |

mod causes;
pub(crate) mod coverage;
mod duplicates;
mod interfaces;
mod machine;
mod place;
mod reach;
mod rules;

use super::facts::Facts;
use crate::config::Config;
use crate::doctor::finding::{Finding, Findings};

/// Worst first.
pub(crate) fn findings(config: &Config, facts: &Facts) -> Vec<Finding> {
    let mut all = Findings(Vec::new());
    machine::privileges(config, facts, &mut all);
    machine::groups(config, facts, &mut all);
    match &facts.ruleset {
        Ok(ruleset) => rules::rules(config, facts, ruleset, &mut all),
        Err(error) => all.warning(
            "rules-unreadable",
            format!("cannot read the rules: {error}"),
            rules::cure_of_unreadable(facts),
        ),
    }
    machine::crosscheck(config, facts, &mut all);
    machine::directory(config, &facts.directory, &mut all);
    machine::machine(facts, &mut all);
    all.0.extend(interfaces::findings(config, facts));
    // The sort is stable: within a severity, the order above stays.
    all.0.sort_by_key(|finding| finding.severity);
    all.0
}
