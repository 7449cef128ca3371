//! The base chains that packets pass before a base chain, in their order, including those of a bridge.

use std::sync::Arc;

use super::condition::{Conditions, Key, Match};
use super::model::{Base, Chain, Hook, Quote, Verdict};
use crate::rules::ruleset::log_rule::Obstacle;

/// Packets for IP pass a bridge's prerouting and input first.
pub(super) fn order(hook: Hook, is_bridge: bool) -> (u8, Hook) {
    let rank = match hook {
        Hook::Ingress => 0,
        Hook::Prerouting | Hook::Input if is_bridge => 1,
        _ => 2,
    };
    (rank, hook)
}

pub(super) fn is_before_ip(base: Base) -> bool {
    matches!(base.hook, Hook::Prerouting | Hook::Input)
}

/// A bridge's verdicts as IP sees them: they concern only some packets, and their ports are not interfaces of IP.
pub(super) fn over_a_bridge(drops: &[Obstacle]) -> Vec<Obstacle> {
    let marker = Arc::new(Match::opaque(
        Key::Other("bridge".into()),
        "over a bridge".into(),
    ));
    let over = |obstacle: &Obstacle| {
        let mut obstacle = obstacle.clone();
        let matches = &mut obstacle.conditions.matches;
        matches.retain(|it| !matches!(it.key, Key::InInterface | Key::OutInterface));
        obstacle.conditions.add(&marker);
        obstacle
    };
    drops.iter().map(over).collect()
}

/// The verdicts of this base chain that keep packets from later base chains. Accept does not.
pub(super) fn drops(chain: &Chain, base: Base, passed: &[Obstacle]) -> Vec<Obstacle> {
    /// Above this number, each packet is assumed to be accepted, possibly.
    const MANY: usize = 64;
    let marker = Arc::new(Match::opaque(
        Key::Other("accepted".into()),
        "not accepted before".into(),
    ));
    let mut accepts: Vec<&Conditions> = Vec::new();
    let mut has_accept = false;
    let mut drops = Vec::new();
    let drop_of = |quote: &Arc<Quote>, conditions: Conditions| Obstacle {
        quote: Arc::clone(quote),
        verdict: Verdict::Drop,
        conditions,
        paths: base.hook.paths(),
        earlier_base: Some((base.hook, base.priority)),
    };
    for obstacle in passed {
        if obstacle.verdict.ends_all() {
            let mut conditions = obstacle.conditions.clone();
            let may_be_accepted =
                accepts.len() >= MANY || accepts.iter().any(|it| it.overlap(&conditions));
            if may_be_accepted {
                conditions.add(&marker);
            }
            drops.push(Obstacle {
                verdict: obstacle.verdict.clone(),
                ..drop_of(&obstacle.quote, conditions)
            });
        } else {
            has_accept |= obstacle.verdict != Verdict::Return;
            if accepts.len() < MANY {
                accepts.push(&obstacle.conditions);
            }
        }
    }
    if base.drops {
        let mut conditions = chain.entry.clone();
        if has_accept {
            conditions.add(&marker);
        }
        let quote = Arc::new(Quote {
            text: "policy drop".into(),
            place: Arc::clone(&chain.place),
            handle: None,
        });
        drops.push(drop_of(&quote, conditions));
    }
    drops
}
