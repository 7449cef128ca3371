//! Follows packets through the chains: which rules that log they reach, and which verdicts may stop them before.
//!
//! The verdicts of a chain are computed once, not for each path to it, and a chain with rules that log is visited a few
//! times at most, because nested jumps have too many paths.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use super::condition::{Conditions, Key, Match, Test, Value};
use super::earlier::{drops, is_before_ip, order, over_a_bridge};
use super::model::{Base, Chain, Hook, Log, Paths, Rule, Step, Verdict};
use crate::model::prefix::Family;
use crate::rules::ruleset::log_rule::{LogRule, Nat, Obstacle, Ruleset, Unreachable};
use crate::rules::ruleset::model::is_never_on;

/// `NFT_JUMP_STACK_SIZE`.
const MAX_DEPTH: usize = 16;
/// Visits of a chain with rules that log, per base chain.
const MAX_VISITS: usize = 8;
/// Verdicts of a chain that its callers see: those that stop most.
const MAX_CHAIN_VERDICTS: usize = 512;
/// Verdicts of a base chain; those without a condition are always kept.
const MAX_VERDICTS: usize = 65_536;
/// Obstacles of a rule: those that stop most.
const MAX_OBSTACLES: usize = 256;
/// `NF_IP_PRI_CONNTRACK` of `linux/netfilter_ipv4.h`.
const CONNTRACK: i64 = -200;

/// Adds the rules that log, the NAT rules and the flowtables to `ruleset`.
pub(super) fn walk(chains: &[Chain], ruleset: &mut Ruleset) {
    let mut graph = Graph::new(chains);
    let mut bases: Vec<(usize, Base)> = Vec::new();
    for (at, chain) in chains.iter().enumerate() {
        if let Some(base) = chain.base.filter(|_| !chain.is_dormant) {
            bases.push((at, base));
        }
    }
    // In the order of their hooks. At the same priority, the hook that was registered last comes first
    // (nf_hook_entries_grow of net/netfilter/core.c).
    bases.sort_by_key(|(at, base)| {
        let is_bridge = chains[*at].is_bridge;
        (
            order(base.hook, is_bridge),
            base.priority,
            std::cmp::Reverse(*at),
        )
    });
    let mut earlier: Vec<(usize, Base, Vec<Obstacle>)> = Vec::new();
    for (at, base) in bases {
        let chain = &chains[at];
        let n_found = graph.found.len();
        let passed = graph.through_base(at, base);
        for rule in &mut graph.found[n_found..] {
            for (other, other_base, drops) in &earlier {
                let is_of_one_kind = chains[*other].is_bridge == chain.is_bridge
                    || matches!(other_base.hook, Hook::Ingress | Hook::Egress);
                if !other_base.hook.shares_path_with(base.hook) {
                    continue;
                }
                if is_of_one_kind {
                    rule.add_obstacles(drops);
                } else if is_before_ip(*other_base) && chains[*other].is_bridge {
                    rule.add_obstacles(&over_a_bridge(drops));
                }
            }
            rule.keep_worst();
        }
        let drops = drops(chain, base, &passed);
        earlier.push((at, base, drops));
    }
    ruleset.log_rules.append(&mut graph.found);
    ruleset.nats.append(&mut graph.nats);
    for (at, chain) in chains.iter().enumerate() {
        let steps = chain.rules.iter().flat_map(|rule| {
            let steps = rule.steps.iter();
            steps.map(move |step| (rule, step))
        });
        for (rule, step) in steps {
            match step {
                Step::Log(log) if !graph.met.contains(&at) => {
                    ruleset.unreachable.push(Unreachable {
                        group: log.group,
                        quote: Arc::clone(&rule.quote),
                        is_dormant: chain.is_dormant,
                    });
                }
                Step::Flow(name) if !ruleset.flowtables.contains(name) => {
                    ruleset.flowtables.push(name.clone());
                }
                _ => {}
            }
        }
    }
}

impl LogRule {
    /// Adds those that may stop some of its packets.
    fn add_obstacles(&mut self, obstacles: &[Obstacle]) {
        let own = &self.conditions;
        let met = obstacles.iter().filter(|it| it.conditions.overlap(own));
        self.obstacles.extend(met.cloned());
    }

    fn keep_worst(&mut self) {
        if self.obstacles.len() > MAX_OBSTACLES {
            let own = self.conditions.clone();
            self.obstacles.sort_by_key(|it| it.rarity(&own));
            self.obstacles.truncate(MAX_OBSTACLES);
        }
    }
}

struct Graph<'a> {
    chains: &'a [Chain],
    by_name: HashMap<(&'a str, &'a str), usize>,
    /// The verdicts of each chain, as its callers see them; see [`Graph::seen_by_callers`].
    seen_by_callers: Vec<Option<Rc<Vec<Obstacle>>>>,
    /// Whether a chain, or one that it jumps to, has log or NAT rules.
    leads_to_log: Vec<Option<bool>>,
    found: Vec<LogRule>,
    nats: Vec<Nat>,
    met: BTreeSet<usize>,
    /// Visits of each chain from the current base chain.
    visits: Vec<usize>,
}

/// The base chain where the path begins.
#[derive(Clone, Copy)]
struct Origin {
    at: usize,
    base: Base,
}

/// A place in a chain.
struct Position<'r> {
    chain: usize,
    rule: &'r Rule,
    from: Option<Origin>,
    depth: usize,
}

impl<'a> Graph<'a> {
    fn new(chains: &'a [Chain]) -> Self {
        let by_name = chains.iter().enumerate();
        let by_name = by_name.map(|(at, it)| ((it.table.as_str(), it.name.as_str()), at));
        Self {
            chains,
            by_name: by_name.collect(),
            seen_by_callers: vec![None; chains.len()],
            leads_to_log: vec![None; chains.len()],
            found: Vec::new(),
            nats: Vec::new(),
            met: BTreeSet::new(),
            visits: vec![0; chains.len()],
        }
    }

    fn through_base(&mut self, at: usize, base: Base) -> Vec<Obstacle> {
        let chain = &self.chains[at];
        let mut entry = chain.entry.clone();
        let is_untracked = !chain.is_bridge
            && (base.hook == Hook::Ingress
                || (matches!(base.hook, Hook::Prerouting | Hook::Output)
                    && base.priority < CONNTRACK));
        // Without connection tracking, nft_ct_get_eval of net/netfilter/nft_ct.c says invalid.
        let invalid = Test::In(vec![Value::Word("invalid".into())]);
        let untracked = Arc::new(Match::new(Key::State, invalid, String::new()));
        if is_untracked {
            entry.add(&untracked);
        }
        self.visits.fill(0);
        let n_found = self.found.len();
        let mut passed = Vec::new();
        self.pass(at, &entry, Some(Origin { at, base }), 0, &mut passed);
        if is_untracked {
            // This marker must not take part in comparisons with other chains.
            let rules = self.found[n_found..].iter_mut();
            let of_rules = rules.flat_map(|rule| {
                let own = std::iter::once(&mut rule.conditions);
                own.chain(rule.obstacles.iter_mut().map(|it| &mut it.conditions))
            });
            for conditions in of_rules.chain(passed.iter_mut().map(|it| &mut it.conditions)) {
                if conditions.impossible_match().is_none() {
                    conditions.matches.retain(|it| !Arc::ptr_eq(it, &untracked));
                }
            }
        }
        passed
    }

    /// Follows packets through one chain. Adds the verdicts that they reach, including returns, to `passed`.
    fn pass(
        &mut self,
        at: usize,
        entry: &Conditions,
        from: Option<Origin>,
        depth: usize,
        passed: &mut Vec<Obstacle>,
    ) {
        if from.is_some() {
            self.met.insert(at);
        }
        let chains = self.chains;
        for rule in &chains[at].rules {
            let here = Position {
                chain: at,
                rule,
                from,
                depth,
            };
            self.steps(&rule.steps, entry.clone(), &here, passed);
        }
    }

    fn steps(
        &mut self,
        steps: &[Step],
        mut conditions: Conditions,
        here: &Position<'_>,
        passed: &mut Vec<Obstacle>,
    ) {
        for step in steps {
            match step {
                Step::Restrict(families) => {
                    conditions.families = conditions.families.and(*families);
                }
                Step::Match(more) => conditions.add(more),
                Step::Log(log) => {
                    if let Some(from) = here.from {
                        self.log(log, &conditions, here, from, passed);
                    }
                }
                Step::Nat { is_source } => {
                    let nat = Nat {
                        is_source: *is_source,
                        conditions: conditions.interfaces(),
                        quote: Arc::clone(&here.rule.quote),
                    };
                    let is_known =
                        |it: &Nat| it.is_source == nat.is_source && it.conditions == nat.conditions;
                    if here.from.is_some() && !self.nats.iter().any(is_known) {
                        self.nats.push(nat);
                    }
                }
                Step::Flow(_) => {}
                Step::Branches(branches) => {
                    for branch in branches {
                        self.steps(branch, conditions.clone(), here, passed);
                    }
                }
                Step::Verdict(verdict) => {
                    add(passed, here, verdict.clone(), conditions.clone());
                    if *verdict != Verdict::Unknown {
                        return;
                    }
                }
                Step::Jump(name) => self.jump(name, &conditions, here, passed),
                Step::Goto(name) => {
                    self.jump(name, &conditions, here, passed);
                    add(passed, here, Verdict::Return, conditions);
                    return;
                }
            }
        }
    }

    fn jump(
        &mut self,
        name: &str,
        conditions: &Conditions,
        here: &Position<'_>,
        passed: &mut Vec<Obstacle>,
    ) {
        let chains = self.chains;
        let table = chains[here.chain].table.as_str();
        let Some(&target) = self.by_name.get(&(table, name)) else {
            add(passed, here, Verdict::Unknown, conditions.clone());
            return;
        };
        if here.depth >= MAX_DEPTH {
            return;
        }
        if here.from.is_some()
            && self.leads_to_log(target, here.depth)
            && self.visits[target] < MAX_VISITS
        {
            self.visits[target] += 1;
            let n_passed = passed.len();
            self.pass(target, conditions, here.from, here.depth + 1, passed);
            // After the jump, only the verdicts that callers see remain.
            passed.truncate(n_passed);
        }
        for obstacle in self.seen_by_callers(target, here.depth).iter() {
            let both = conditions.and(&obstacle.conditions);
            if is_kept(passed, &both, here.from) {
                passed.push(Obstacle {
                    conditions: both,
                    ..obstacle.clone()
                });
            }
        }
    }

    /// The verdicts of a chain as its callers see them: without its returns. A verdict after a return only stops
    /// packets that have not returned.
    fn seen_by_callers(&mut self, at: usize, depth: usize) -> Rc<Vec<Obstacle>> {
        if let Some(known) = &self.seen_by_callers[at] {
            return Rc::clone(known);
        }
        // Ends the recursion if chains jump to each other, which the kernel rejects but the input may have.
        self.seen_by_callers[at] = Some(Rc::default());
        let mut all = Vec::new();
        self.pass(at, &Conditions::any(), None, depth + 1, &mut all);
        let marker = Arc::new(Match::opaque(
            Key::Other("returned".into()),
            "not returned before".into(),
        ));
        let mut returns: Vec<Conditions> = Vec::new();
        let mut seen_by_callers: Vec<Obstacle> = Vec::new();
        for mut obstacle in all {
            if obstacle.verdict == Verdict::Return {
                returns.push(obstacle.conditions);
                continue;
            }
            if returns.iter().any(|it| it.overlap(&obstacle.conditions)) {
                obstacle.conditions.add(&marker);
            }
            let is_there = |it: &Obstacle| {
                Arc::ptr_eq(&it.quote, &obstacle.quote) && it.conditions == obstacle.conditions
            };
            if !seen_by_callers.iter().rev().take(MAX_VISITS).any(is_there) {
                seen_by_callers.push(obstacle);
            }
        }
        if seen_by_callers.len() > MAX_CHAIN_VERDICTS {
            let any = Conditions::any();
            seen_by_callers.sort_by_key(|it| it.rarity(&any));
            seen_by_callers.truncate(MAX_CHAIN_VERDICTS);
        }
        let seen_by_callers = Rc::new(seen_by_callers);
        self.seen_by_callers[at] = Some(Rc::clone(&seen_by_callers));
        seen_by_callers
    }

    fn leads_to_log(&mut self, at: usize, depth: usize) -> bool {
        if let Some(known) = self.leads_to_log[at] {
            return known;
        }
        self.leads_to_log[at] = Some(false);
        let chains = self.chains;
        let steps = chains[at].rules.iter().flat_map(|rule| &rule.steps);
        let leads_to_log = depth < MAX_DEPTH
            && steps
                .into_iter()
                .any(|step| self.step_leads_to_log(step, &chains[at].table, depth));
        self.leads_to_log[at] = Some(leads_to_log);
        leads_to_log
    }

    fn step_leads_to_log(&mut self, step: &Step, table: &str, depth: usize) -> bool {
        match step {
            Step::Log(_) | Step::Nat { .. } => true,
            Step::Branches(branches) => branches
                .iter()
                .flatten()
                .any(|step| self.step_leads_to_log(step, table, depth)),
            Step::Jump(name) | Step::Goto(name) => {
                let target = self.by_name.get(&(table, name.as_str())).copied();
                target.is_some_and(|target| self.leads_to_log(target, depth + 1))
            }
            _ => false,
        }
    }

    fn log(
        &mut self,
        log: &Log,
        conditions: &Conditions,
        here: &Position<'_>,
        from: Origin,
        passed: &[Obstacle],
    ) {
        let quote = &here.rule.quote;
        let has = |family: &Family| conditions.families.contains(*family);
        let families = [Family::Ip4, Family::Ip6].into_iter().filter(has);
        let mut rule = LogRule {
            group: log.group,
            snaplen: log.snaplen,
            threshold: log.threshold,
            has_range: log.has_range,
            hook: from.base.hook,
            priority: from.base.priority,
            is_bridge: self.chains[from.at].is_bridge,
            is_nat: self.chains[from.at].is_nat,
            families: families.map(Family::version).collect(),
            conditions: conditions.clone(),
            obstacles: Vec::new(),
            quote: Arc::clone(quote),
        };
        rule.add_obstacles(passed);
        self.found.push(rule);
    }
}

/// Verdicts that no packet reaches are dropped, and those for packets of the host to itself.
fn is_kept(passed: &[Obstacle], conditions: &Conditions, from: Option<Origin>) -> bool {
    let is_of_hook = |from: Origin| {
        let matches = conditions.matches.iter();
        matches
            .into_iter()
            .all(|it| !is_never_on(from.base.hook, it))
    };
    (passed.len() < MAX_VERDICTS || conditions.matches.is_empty())
        && !conditions.are_impossible()
        && !conditions.are_of_loopback()
        && from.is_none_or(is_of_hook)
}

fn add(passed: &mut Vec<Obstacle>, here: &Position<'_>, verdict: Verdict, conditions: Conditions) {
    if is_kept(passed, &conditions, here.from) {
        let paths = here.from.map(|from| from.base.hook.paths());
        passed.push(Obstacle {
            quote: Arc::clone(&here.rule.quote),
            verdict,
            conditions,
            // Without a base chain, the caller decides.
            paths: paths.unwrap_or(Paths::ALL),
            earlier_base: None,
        });
    }
}
