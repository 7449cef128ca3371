//! Why NFLOG saw packets that TC did not see, or saw them twice. Pure.

use super::cure::{self, Cause, Cure};
use super::situation::Situation;
use crate::model::prefix::Side;
use crate::rules::ruleset::log_rule::LogRule;
use crate::sampling::report::LoggedOnly;

/// `watched` are the interfaces with a TC program.
pub(super) fn cause(logged: &LoggedOnly, watched: &[String], situation: &Situation) -> Cause {
    let family = logged.flow.family();
    let rules = situation.ruleset.log_rules.iter();
    let rules: Vec<&LogRule> = rules
        .filter(|it| it.group == logged.group && it.families.contains(&family.version()))
        .filter(|it| it.impossible_condition().is_none())
        .collect();
    if logged.by_nflog_twice > 0 {
        let quotes: Vec<String> = rules.iter().map(|it| it.quote.to_string()).collect();
        return match &rules[..] {
            [] | [_] => Cause {
                id: "passes-twice",
                why: format!(
                    "they pass {} twice: by a tunnel, a VRF, a bridge or a loop",
                    quotes.first().map_or("a rule", |it| it)
                ),
                cure: Cure::Text("name the interface in the rule: iifname or oifname".into()),
            },
            [.., last] => Cause {
                id: "twice",
                why: format!(
                    "more than one rule logs them to group {}: {}",
                    logged.group,
                    quotes.join(", ")
                ),
                cure: cure::removal(last),
            },
        };
    }
    let interface = match logged.side {
        Side::Source => &logged.in_interface,
        Side::Dest => &logged.out_interface,
    };
    let is_watched = watched.contains(interface);
    Cause {
        id: "other-interface",
        why: if interface.is_empty() || is_watched {
            format!(
                "group {} logged them, and no TC program saw them",
                logged.group
            )
        } else {
            format!(
                "group {} logged them on {interface}, which is not in --crosscheck",
                logged.group
            )
        },
        cure: Cure::Text(
            "name the interface in --crosscheck, or exclude it in the rule (iifname, oifname)"
                .into(),
        ),
    }
}
