//! What the facts mean for acctd with these flags: findings, each with its cure. Pure.
//!
//! Their ids are the same in all versions. Of rules:
//!
//! | id | |
//! |---|---|
//! | `rules-unreadable` | rules are loaded, but doctor cannot read them |
//! | `no-rule`, `chain-not-hooked`, `dormant-table` | nothing logs to the group, or where no packet comes |
//! | `wrong-family`, `other-family` | of IPv4 and IPv6 |
//! | `matches-nothing`, `empty-set` | a condition that no packet meets |
//! | `never-reached`, `behind-verdict` | a verdict before the rule: all packets, some |
//! | `limited`, `some-states`, `some-protocols`, `dynamic-set`, `some-packets` | what the rule itself leaves out |
//! | `snaplen-too-small`, `no-snaplen`, `small-threshold`, `nat-chain` | how the rule is set |
//! | `wrong-hook`, `address-after-nat`, `address-before-nat` | whose address it sees |
//! | `no-such-interface`, `port-of-bridge` | its interfaces |
//! | `logged-twice` | a packet meets two rules of one direction |
//! | `forwarded-not-counted` | the host forwards, and no rule sees it |
//! | `flowtable`, `hardware-offload`, `ip6-not-counted`, `group-unread` | beside the rules |

mod causes;
pub mod coverage;
mod duplicates;
mod interfaces;
mod machine;
mod place;
mod reach;
mod rules;

use super::facts::Facts;
use crate::config::Config;
use crate::doctor::finding::{Finding, Findings};

/// All that is wrong, worst first.
#[must_use]
pub fn findings(config: &Config, facts: &Facts) -> Vec<Finding> {
    let mut all = Findings(Vec::new());
    machine::privileges(config, facts, &mut all);
    machine::groups(config, facts, &mut all);
    match &facts.ruleset {
        Ok(ruleset) => rules::rules(config, facts, ruleset, &mut all),
        Err(error) => all.warning(
            "rules-unreadable",
            format!("the rules cannot be read: {error}"),
            rules::cure_of_unreadable(facts),
        ),
    }
    machine::crosscheck(config, facts, &mut all);
    machine::directory(config, &facts.directory, &mut all);
    machine::machine(facts, &mut all);
    all.0.extend(interfaces::findings(config, facts));
    // Those that were found first stay first.
    all.0.sort_by_key(|finding| finding.severity);
    all.0
}
