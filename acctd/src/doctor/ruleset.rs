//! The rules that are loaded, by nft and by iptables, and where a packet meets those that log to an NFLOG
//! group. Pure: what the programs print is passed in.
//!
//! `nft -j list ruleset` (libnftables-json(5)) also has what iptables-nft has loaded; the rules of the older
//! iptables come from `iptables-legacy-save`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::prefix::Family;
use crate::rules::plan::match_alike;

/// Where in its way a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// netdev, before IP has seen it.
    Ingress,
    /// All that comes in.
    Prerouting,
    /// What is for this host.
    Input,
    /// What passes through.
    Forward,
    /// What this host sends.
    Output,
    /// All that goes out.
    Postrouting,
    /// netdev, on its way to the device.
    Egress,
}

impl Hook {
    fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "ingress" => Self::Ingress,
            "prerouting" => Self::Prerouting,
            "input" => Self::Input,
            "forward" => Self::Forward,
            "output" => Self::Output,
            "postrouting" => Self::Postrouting,
            "egress" => Self::Egress,
            _ => return None,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Egress => "egress",
        }
    }

    /// Whether one packet may pass both.
    #[must_use]
    pub fn shares_a_way_with(self, other: Self) -> bool {
        use Hook::{Egress, Forward, Ingress, Input, Output, Postrouting, Prerouting};
        const WAYS: [&[Hook]; 3] = [
            &[Ingress, Prerouting, Input],
            &[Ingress, Prerouting, Forward, Postrouting, Egress],
            &[Output, Postrouting, Egress],
        ];
        WAYS.iter()
            .any(|way| way.contains(&self) && way.contains(&other))
    }
}

/// A rule that logs to a group, as packets of one base chain meet it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are facts")]
pub struct LogRule {
    /// The group.
    pub group: u16,
    /// Bytes to copy, if the rule says so.
    pub snaplen: Option<u32>,
    /// Packets in a batch, if the rule says so.
    pub threshold: Option<u32>,
    /// The hook.
    pub hook: Hook,
    /// The base chain's priority.
    pub priority: i64,
    /// In a bridge, not in IP.
    pub is_bridge: bool,
    /// In a chain of type nat, which sees the first packet of each connection alone.
    pub is_nat: bool,
    /// The families of packets that it may match.
    pub families: BTreeSet<u8>,
    /// What else it matches; more than one chain may add to it.
    pub conditions: BTreeSet<String>,
    /// It has a limit.
    pub is_limited: bool,
    /// What may keep packets from it: an earlier verdict.
    pub behind: Option<String>,
    /// And nothing comes past that.
    pub is_never_reached: bool,
    /// Where it is: `chain input of table inet acctd`.
    pub place: String,
    /// With an option that does nothing (`--nflog-range`).
    pub has_range: bool,
}

/// All that matters of what is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The rules that packets meet.
    pub log_rules: Vec<LogRule>,
    /// Groups of rules in chains to which no packet comes, with the place of each.
    pub unreachable: Vec<(u16, String)>,
    /// Something changes sources (masquerade, snat).
    pub has_source_nat: bool,
    /// Something changes destinations (dnat, redirect).
    pub has_dest_nat: bool,
    /// Flowtables that packets are given to, past all rules.
    pub flowtables: Vec<String>,
    /// Rules log by an extension that nft does not show (iptables before 1.8.8).
    pub has_hidden_rules: bool,
}

/// The devices of chains of the family netdev, by table and chain, since nft's JSON lacks them.
pub type Devices = BTreeMap<(String, String), Vec<String>>;

/// A verdict that keeps packets from what is behind it.
#[derive(Clone, Debug)]
struct Obstacle {
    verdict: String,
    families: BTreeSet<u8>,
    /// Those of the packets that it takes.
    conditions: BTreeSet<String>,
}

/// What a chain does with packets.
#[derive(Clone, Debug, Default)]
struct Chain {
    table: String,
    name: String,
    families: BTreeSet<u8>,
    is_bridge: bool,
    is_nat: bool,
    base: Option<(Hook, i64)>,
    /// What all packets have in common that come to it.
    conditions: BTreeSet<String>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default)]
struct Rule {
    families: Option<BTreeSet<u8>>,
    conditions: BTreeSet<String>,
    is_limited: bool,
    has_range: bool,
    actions: Vec<Action>,
}

#[derive(Clone, Debug)]
enum Action {
    Log {
        group: u16,
        snaplen: Option<u32>,
        threshold: Option<u32>,
    },
    /// To a chain, for packets that meet one more condition.
    Jump(String, Option<String>),
    /// Nothing behind it in this chain and those that have jumped to it.
    Verdict(String),
    /// Nothing behind it in this chain.
    Return,
}

impl Ruleset {
    /// What `nft -j list ruleset` prints.
    #[must_use]
    pub fn of_nft(json: &Value, devices: &Devices) -> Self {
        let mut ruleset = Self::default();
        let mut chains: Vec<Chain> = Vec::new();
        let objects = || json["nftables"].as_array().into_iter().flatten();
        let maps: Vec<&Value> = objects().filter_map(|object| object.get("map")).collect();
        for object in objects() {
            if let Some(chain) = object.get("chain") {
                chains.extend(nft_chain(chain, devices));
            } else if let Some(rule) = object.get("rule") {
                let (table, name) = (table_of(rule), rule["chain"].as_str().unwrap_or_default());
                let chain = chains
                    .iter_mut()
                    .find(|chain| chain.table == table && chain.name == name);
                if let Some(chain) = chain {
                    let rule = ruleset.nft_rule(rule, &maps);
                    chain.rules.push(rule);
                }
            }
        }
        ruleset.walk(&chains);
        ruleset
    }

    /// Adds what `iptables-legacy-save` or `ip6tables-legacy-save` prints.
    pub fn add_iptables(&mut self, text: &str, family: Family) {
        let program = match family {
            Family::Ip4 => "iptables",
            Family::Ip6 => "ip6tables",
        };
        let mut chains: Vec<Chain> = Vec::new();
        let mut table = String::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                name.clone_into(&mut table);
            } else if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split_whitespace().next().unwrap_or_default();
                let is_built_in = name.chars().all(char::is_uppercase);
                let hook = Hook::parse(name).filter(|_| is_built_in);
                chains.push(Chain {
                    table: format!("{program} {table}"),
                    name: name.to_owned(),
                    families: BTreeSet::from([family.version()]),
                    is_nat: table == "nat",
                    base: hook.map(|hook| (hook, iptables_priority(&table, hook))),
                    ..Chain::default()
                });
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let (name, rest) = rule.split_once(' ').unwrap_or((rule, ""));
                let rule = self.iptables_rule(rest);
                let own_table = format!("{program} {table}");
                let chain = chains
                    .iter_mut()
                    .find(|chain| chain.table == own_table && chain.name == name);
                if let Some(chain) = chain {
                    chain.rules.push(rule);
                }
            }
        }
        self.walk(&chains);
    }

    fn nft_rule(&mut self, json: &Value, maps: &[&Value]) -> Rule {
        let mut rule = Rule::default();
        for expression in json["expr"].as_array().into_iter().flatten() {
            let Some((kind, value)) = expression.as_object().and_then(|it| it.iter().next()) else {
                continue;
            };
            match kind.as_str() {
                "match" => rule.add_match(value),
                "limit" => {
                    rule.is_limited = true;
                    rule.conditions.insert("limit".into());
                }
                "log" => {
                    let number = |key| value[key].as_u64().and_then(|it| u32::try_from(it).ok());
                    let group = value["group"]
                        .as_u64()
                        .and_then(|it| u16::try_from(it).ok());
                    rule.actions.extend(group.map(|group| Action::Log {
                        group,
                        snaplen: number("snaplen"),
                        threshold: number("queue-threshold"),
                    }));
                }
                "jump" | "goto" => {
                    let target = value["target"].as_str().unwrap_or_default();
                    rule.actions.push(Action::Jump(target.to_owned(), None));
                    if kind == "goto" {
                        rule.actions.push(Action::Return);
                    }
                }
                "vmap" => {
                    let name = value["data"].as_str().unwrap_or_default();
                    let named = maps.iter().find(|map| {
                        map["name"] == name.trim_start_matches('@')
                            && table_of(map) == table_of(json)
                    });
                    let elements = named.map_or(&value["data"]["set"], |map| &map["elem"]);
                    rule.add_vmap(&value["key"], elements);
                }
                "accept" | "drop" | "reject" | "queue" | "tproxy" => {
                    rule.actions.push(Action::Verdict(kind.clone()));
                }
                "return" => rule.actions.push(Action::Return),
                "masquerade" | "snat" => self.has_source_nat = true,
                "dnat" | "redirect" => self.has_dest_nat = true,
                "flow" => {
                    let name = value["flowtable"].as_str().unwrap_or_default();
                    let name = name.trim_start_matches('@').to_owned();
                    if !self.flowtables.contains(&name) {
                        self.flowtables.push(name);
                    }
                }
                "xt" => {
                    let name = value["name"].as_str().unwrap_or_default();
                    if value["type"] == "target" {
                        self.note_target(name);
                    } else {
                        rule.is_limited |= is_limit(name);
                        // What it is set to is not shown, so that no two are known to be alike.
                        rule.conditions
                            .insert(format!("{name} of rule {}", json["handle"]));
                    }
                }
                _ => {}
            }
        }
        rule
    }

    fn note_target(&mut self, name: &str) {
        self.has_source_nat |= matches!(name, "MASQUERADE" | "SNAT" | "NETMAP");
        self.has_dest_nat |= matches!(name, "DNAT" | "REDIRECT" | "NETMAP");
        self.has_hidden_rules |= name == "NFLOG";
    }

    fn iptables_rule(&mut self, text: &str) -> Rule {
        let mut rule = Rule::default();
        let words = words_of(text);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let target_at = words.iter().position(|word| matches!(*word, "-j" | "-g"));
        let (matches, target) = words.split_at(target_at.unwrap_or(words.len()));
        let after = |flag: &str| {
            let at = target.iter().position(|word| *word == flag)?;
            target.get(at + 1).copied()
        };
        // Each flag with what follows it, up to the next; a `!` is in front of its flag.
        let mut condition = String::new();
        for word in matches {
            let begins = *word == "!" || (word.starts_with('-') && condition != "!");
            if begins && !condition.is_empty() {
                rule.add_iptables_match(&condition);
                condition.clear();
            }
            if !condition.is_empty() {
                condition.push(' ');
            }
            condition.push_str(word);
        }
        if !condition.is_empty() {
            rule.add_iptables_match(&condition);
        }
        let number = |flag| after(flag).and_then(|value| value.parse().ok());
        match after("-j").or(after("-g")) {
            Some("NFLOG") => {
                let group = after("--nflog-group").and_then(|group| group.parse().ok());
                rule.has_range = target.contains(&"--nflog-range");
                rule.actions.push(Action::Log {
                    group: group.unwrap_or(0),
                    snaplen: number("--nflog-size"),
                    threshold: number("--nflog-threshold"),
                });
            }
            Some("RETURN") => rule.actions.push(Action::Return),
            Some(verdict @ ("ACCEPT" | "DROP" | "REJECT" | "QUEUE" | "NFQUEUE" | "TPROXY")) => {
                rule.actions.push(Action::Verdict(verdict.to_lowercase()));
            }
            Some(target) => {
                self.note_target(target);
                rule.actions.push(Action::Jump(target.to_owned(), None));
                if after("-g").is_some() {
                    rule.actions.push(Action::Return);
                }
            }
            None => {}
        }
        rule
    }

    /// Goes the ways of packets through chains that were read together.
    fn walk(&mut self, chains: &[Chain]) {
        let mut met = BTreeSet::new();
        for chain in chains {
            if let Some((hook, priority)) = chain.base {
                let mut walk = Walk {
                    chains,
                    hook,
                    priority,
                    is_nat: chain.is_nat,
                    found: &mut self.log_rules,
                    met: &mut met,
                };
                walk.through(chain, &chain.families, &chain.conditions, &[], 0);
            }
        }
        for chain in chains.iter().filter(|chain| !met.contains(&place(chain))) {
            let actions = chain.rules.iter().flat_map(|rule| &rule.actions);
            let groups = actions.filter_map(|action| match action {
                Action::Log { group, .. } => Some((*group, place(chain))),
                _ => None,
            });
            self.unreachable.extend(groups);
        }
    }
}

/// One way through the chains.
struct Walk<'a> {
    chains: &'a [Chain],
    hook: Hook,
    priority: i64,
    is_nat: bool,
    found: &'a mut Vec<LogRule>,
    met: &'a mut BTreeSet<String>,
}

impl Walk<'_> {
    /// `before` is what packets have passed on their way here. Returns what keeps them from what is behind the
    /// jump to this chain.
    fn through(
        &mut self,
        chain: &Chain,
        families: &BTreeSet<u8>,
        conditions: &BTreeSet<String>,
        before: &[Obstacle],
        depth: usize,
    ) -> Vec<Obstacle> {
        /// `NFT_JUMP_STACK_SIZE`.
        const DEEPEST: usize = 16;
        self.met.insert(place(chain));
        let mut verdicts: Vec<Obstacle> = Vec::new();
        // They end this chain alone.
        let mut returns: Vec<Obstacle> = Vec::new();
        for rule in &chain.rules {
            let families: BTreeSet<u8> = match &rule.families {
                Some(own) => families.intersection(own).copied().collect(),
                None => families.clone(),
            };
            let conditions: BTreeSet<String> =
                conditions.union(&rule.conditions).cloned().collect();
            for action in &rule.actions {
                let passed = || [before, &verdicts, &returns].concat();
                match action {
                    Action::Log {
                        group,
                        snaplen,
                        threshold,
                    } => {
                        let passed = passed();
                        let mut in_the_way = passed
                            .iter()
                            .filter(|obstacle| obstacle.may_take(&families, &conditions));
                        let behind = in_the_way.clone().next();
                        let stops = in_the_way.find(|it| it.takes_all(&families, &conditions));
                        self.found.push(LogRule {
                            group: *group,
                            snaplen: *snaplen,
                            threshold: *threshold,
                            hook: self.hook,
                            priority: self.priority,
                            is_bridge: chain.is_bridge,
                            is_nat: self.is_nat,
                            is_limited: rule.is_limited,
                            is_never_reached: stops.is_some(),
                            behind: stops.or(behind).map(|it| it.verdict.clone()),
                            place: place(chain),
                            has_range: rule.has_range,
                            families: families.clone(),
                            conditions: conditions.clone(),
                        });
                    }
                    Action::Jump(target, condition) if depth < DEEPEST => {
                        let target = self
                            .chains
                            .iter()
                            .find(|other| other.table == chain.table && other.name == *target);
                        let Some(target) = target else {
                            continue;
                        };
                        let mut conditions = conditions.clone();
                        conditions.extend(condition.clone());
                        let passed = passed();
                        let met = self.through(target, &families, &conditions, &passed, depth + 1);
                        verdicts.extend(met.into_iter().map(|it| it.unless_returned(&returns)));
                    }
                    Action::Jump(..) => {}
                    Action::Verdict(_) | Action::Return if is_about_loopback(&rule.conditions) => {}
                    Action::Verdict(verdict) => {
                        let obstacle = Obstacle {
                            verdict: format!("{verdict} in {}", place(chain)),
                            families: families.clone(),
                            conditions: conditions.clone(),
                        };
                        verdicts.push(obstacle.unless_returned(&returns));
                    }
                    Action::Return => returns.push(Obstacle {
                        verdict: format!("return in {}", place(chain)),
                        families: families.clone(),
                        conditions: conditions.clone(),
                    }),
                }
            }
        }
        verdicts
    }
}

impl Obstacle {
    /// Packets that have left the chain before do not meet it.
    fn unless_returned(mut self, returns: &[Self]) -> Self {
        if !returns.is_empty() {
            self.conditions.insert("not returned before".into());
        }
        self
    }

    /// Whether there may be packets of those that it takes.
    fn may_take(&self, families: &BTreeSet<u8>, conditions: &BTreeSet<String>) -> bool {
        let own = self.conditions.iter().filter_map(|it| interface_of(it));
        let is_elsewhere = own.into_iter().any(|(key, name)| {
            let others = conditions.iter().filter_map(|it| interface_of(it));
            others
                .into_iter()
                .any(|(other_key, other)| key == other_key && !match_alike(name, other))
        });
        !self.families.is_disjoint(families) && !is_elsewhere
    }

    /// Whether it takes all of them.
    fn takes_all(&self, families: &BTreeSet<u8>, conditions: &BTreeSet<String>) -> bool {
        families.is_subset(&self.families) && self.conditions.is_subset(conditions)
    }
}

/// `iifname` or `oifname`, and the name or pattern.
#[must_use]
pub fn interface_of(condition: &str) -> Option<(&str, &str)> {
    let (key, name) = condition.split_once(' ')?;
    matches!(key, "iifname" | "oifname").then_some((key, name))
}

/// Nobody bills what a host says to itself.
fn is_about_loopback(conditions: &BTreeSet<String>) -> bool {
    conditions.contains("iifname lo") || conditions.contains("oifname lo")
}

fn place(chain: &Chain) -> String {
    format!("chain {} of table {}", chain.name, chain.table)
}

fn table_of(json: &Value) -> String {
    format!("{} {}", word(json, "family"), word(json, "table"))
}

fn word<'v>(json: &'v Value, key: &str) -> &'v str {
    json[key].as_str().unwrap_or_default()
}

fn nft_chain(json: &Value, devices: &Devices) -> Option<Chain> {
    let family = json["family"].as_str()?;
    let families = match family {
        "ip" => BTreeSet::from([4]),
        "ip6" => BTreeSet::from([6]),
        "inet" | "bridge" | "netdev" => BTreeSet::from([4, 6]),
        _ => return None,
    };
    let hook = json["hook"].as_str().and_then(Hook::parse);
    let (table, name) = (table_of(json), json["name"].as_str()?.to_owned());
    let devices = devices.get(&(table.clone(), name.clone()));
    let conditions = match (hook, devices.map(Vec::as_slice)) {
        (Some(Hook::Ingress), Some([device])) => BTreeSet::from([format!("iifname {device}")]),
        (Some(Hook::Egress), Some([device])) => BTreeSet::from([format!("oifname {device}")]),
        (_, Some(several)) => BTreeSet::from([format!("devices {}", several.join(","))]),
        _ => BTreeSet::new(),
    };
    Some(Chain {
        table,
        name,
        families,
        is_bridge: family == "bridge",
        is_nat: json["type"] == "nat",
        base: hook.map(|hook| (hook, json["prio"].as_i64().unwrap_or(0))),
        conditions,
        rules: Vec::new(),
    })
}

impl Rule {
    fn add_match(&mut self, json: &Value) {
        let meta = json["left"]["meta"]["key"].as_str();
        let payload = json["left"]["payload"]["protocol"].as_str();
        let field = json["left"]["payload"]["field"].as_str();
        let is_equal = json["op"] == "==" || json["op"] == "in";
        let right = json["right"].as_str();
        match (meta, payload) {
            (Some("nfproto" | "protocol"), _) if is_equal => {
                if let Some(version) = right.and_then(version) {
                    self.restrict(version);
                    return;
                }
            }
            (Some(key @ ("iifname" | "oifname" | "iif" | "oif")), _) if is_equal => {
                if let Some(name) = right {
                    let key = if key.starts_with('i') {
                        "iifname"
                    } else {
                        "oifname"
                    };
                    self.conditions.insert(format!("{key} {name}"));
                    return;
                }
            }
            (_, Some("ether")) if field == Some("type") && is_equal => {
                if let Some(version) = right.and_then(version) {
                    self.restrict(version);
                    return;
                }
            }
            (_, Some("ip" | "icmp")) => self.restrict(4),
            (_, Some("ip6" | "icmpv6")) => self.restrict(6),
            _ => {}
        }
        self.conditions.insert(json.to_string());
    }

    fn restrict(&mut self, version: u8) {
        let all = || BTreeSet::from([4, 6]);
        let families = self.families.get_or_insert_with(all);
        families.retain(|other| *other == version);
    }

    /// Each element is a condition for where it leads.
    fn add_vmap(&mut self, key: &Value, elements: &Value) {
        let meta = key["meta"]["key"].as_str();
        for element in elements.as_array().into_iter().flatten() {
            let condition = match (meta, element[0].as_str()) {
                (Some(key @ ("iifname" | "oifname")), Some(name)) => format!("{key} {name}"),
                _ => format!("{key} {}", element[0]),
            };
            let Some((verdict, value)) = element[1].as_object().and_then(|it| it.iter().next())
            else {
                continue;
            };
            match (verdict.as_str(), value["target"].as_str()) {
                (_, Some(target)) => self
                    .actions
                    .push(Action::Jump(target.to_owned(), Some(condition))),
                _ if is_about_loopback(&BTreeSet::from([condition])) => {}
                (verdict, None) => {
                    // For some packets, whichever.
                    self.conditions.insert(key.to_string());
                    self.actions.push(Action::Verdict(verdict.to_owned()));
                }
            }
        }
    }

    fn add_iptables_match(&mut self, condition: &str) {
        if condition == "-m comment" || condition.starts_with("--comment") {
            return;
        }
        if let Some(name) = condition.strip_prefix("-i ") {
            self.conditions
                .insert(format!("iifname {}", name.replace('+', "*")));
        } else if let Some(name) = condition.strip_prefix("-o ") {
            self.conditions
                .insert(format!("oifname {}", name.replace('+', "*")));
        } else {
            self.is_limited |= condition.strip_prefix("-m ").is_some_and(is_limit);
            self.conditions.insert(condition.to_owned());
        }
    }
}

/// Extensions by which a rule matches some packets only, of those that are alike.
fn is_limit(extension: &str) -> bool {
    matches!(extension, "limit" | "hashlimit" | "quota")
}

/// As a shell splits them: what is in double quotes is one word.
fn words_of(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => words
                .last_mut()
                .into_iter()
                .for_each(|word| word.extend(letters.next())),
            ' ' if !is_quoted => words.push(String::new()),
            letter => words
                .last_mut()
                .into_iter()
                .for_each(|word| word.push(letter)),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn version(word: &str) -> Option<u8> {
    match word {
        "ipv4" | "ip" => Some(4),
        "ipv6" | "ip6" => Some(6),
        _ => None,
    }
}

/// `NF_IP_PRI_*` of `linux/netfilter_ipv4.h`.
fn iptables_priority(table: &str, hook: Hook) -> i64 {
    match (table, hook) {
        ("raw", _) => -300,
        ("mangle", _) => -150,
        ("nat", Hook::Input | Hook::Postrouting) => 100,
        ("nat", _) => -100,
        ("security", _) => 50,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nft(objects: &str) -> Ruleset {
        let json = format!("{{\"nftables\":[{objects}]}}");
        Ruleset::of_nft(&serde_json::from_str(&json).unwrap(), &Devices::new())
    }

    const INPUT: &str = r#"{"chain":{"family":"inet","table":"t","name":"i","type":"filter","hook":"input","prio":-300,"policy":"accept"}}"#;

    fn rule(chain: &str, expressions: &str) -> String {
        format!(
            r#",{{"rule":{{"family":"inet","table":"t","chain":"{chain}","expr":[{expressions}]}}}}"#
        )
    }

    #[test]
    fn a_rule_is_met_on_its_hook_with_what_it_matches() {
        let expressions = r#"{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"lan0"}},
            {"match":{"op":"==","left":{"meta":{"key":"nfproto"}},"right":"ipv4"}},
            {"counter":{"packets":0,"bytes":0}},{"log":{"group":5,"snaplen":20,"queue-threshold":50}}"#;
        let ruleset = nft(&format!("{INPUT}{}", rule("i", expressions)));
        let [found] = &ruleset.log_rules[..] else {
            panic!("{ruleset:?}");
        };
        assert_eq!(
            (found.group, found.snaplen, found.threshold),
            (5, Some(20), Some(50))
        );
        assert_eq!((found.hook, found.priority), (Hook::Input, -300));
        assert_eq!(found.families, BTreeSet::from([4]));
        assert_eq!(
            found.conditions,
            BTreeSet::from(["iifname lan0".to_owned()])
        );
        assert_eq!(
            (found.behind.as_deref(), found.is_never_reached),
            (None, false)
        );
    }

    #[test]
    fn verdicts_before_a_rule_are_obstacles_and_chains_without_a_hook_are_not_reached() {
        let log = r#"{"log":{"group":5}}"#;
        let some = r#"{"match":{"op":"==","left":{"ct":{"key":"state"}},"right":"established"}},{"accept":null}"#;
        let ruleset = nft(&format!("{INPUT}{}{}", rule("i", some), rule("i", log)));
        assert!(!ruleset.log_rules[0].is_never_reached);
        assert_eq!(
            ruleset.log_rules[0].behind.as_deref(),
            Some("accept in chain i of table inet t")
        );
        let ruleset = nft(&format!(
            "{INPUT}{}{}",
            rule("i", r#"{"drop":null}"#),
            rule("i", log)
        ));
        assert!(ruleset.log_rules[0].is_never_reached);
        let other = r#",{"chain":{"family":"inet","table":"t","name":"other"}}"#;
        let unhooked = format!("{INPUT}{other}{}", rule("other", log));
        let ruleset = nft(&unhooked);
        assert_eq!(ruleset.log_rules, []);
        assert_eq!(ruleset.unreachable[0].0, 5);
        let jump = rule("i", r#"{"jump":{"target":"other"}}"#);
        let ruleset = nft(&format!("{unhooked}{jump}"));
        assert_eq!((ruleset.log_rules.len(), ruleset.unreachable.len()), (1, 0));
    }

    /// As ufw has it: what returns is not dropped behind it.
    #[test]
    fn a_verdict_behind_a_return_takes_some_and_a_return_ends_its_own_chain_alone() {
        let other = r#",{"chain":{"family":"inet","table":"t","name":"other"}}"#;
        let some = r#"{"match":{"op":"==","left":{"fib":{}},"right":"local"}},{"return":null}"#;
        let log = rule("i", r#"{"log":{"group":5}}"#);
        let jump = rule("i", r#"{"jump":{"target":"other"}}"#);
        let ends = rule("other", some);
        let drops = rule("other", r#"{"drop":null}"#);
        let ruleset = nft(&format!("{INPUT}{other}{ends}{drops}{jump}{log}"));
        let found = &ruleset.log_rules[0];
        assert!(!found.is_never_reached);
        assert_eq!(
            found.behind.as_deref(),
            Some("drop in chain other of table inet t")
        );
        let ruleset = nft(&format!("{INPUT}{other}{ends}{jump}{log}"));
        assert_eq!(ruleset.log_rules[0].behind, None);
    }

    #[test]
    fn verdicts_for_others_are_no_obstacles_and_those_for_the_same_are() {
        let matched = |left: &str, right: &str| {
            format!(
                r#"{{"match":{{"op":"==","left":{{"meta":{{"key":"{left}"}}}},"right":"{right}"}}}}"#
            )
        };
        let log = format!(
            r#"{},{},{{"log":{{"group":5}}}}"#,
            matched("nfproto", "ipv4"),
            matched("iifname", "lan0")
        );
        for (key, value, is_in_the_way, takes_all) in [
            ("nfproto", "ipv6", false, false),
            ("iifname", "wan0", false, false),
            ("nfproto", "ipv4", true, true),
            ("iifname", "lan0", true, true),
            ("mark", "7", true, false),
        ] {
            let verdict = format!(r#"{},{{"accept":null}}"#, matched(key, value));
            let ruleset = nft(&format!(
                "{INPUT}{}{}",
                rule("i", &verdict),
                rule("i", &log)
            ));
            let found = &ruleset.log_rules[0];
            assert_eq!(found.behind.is_some(), is_in_the_way, "{key} {value}");
            assert_eq!(found.is_never_reached, takes_all, "{key} {value}");
        }
    }

    #[test]
    fn chains_are_reached_by_named_maps_and_negations_stay_with_their_flag() {
        let other = r#",{"chain":{"family":"inet","table":"t","name":"other"}}"#;
        let map = r#",{"map":{"family":"inet","table":"t","name":"m","elem":[["lan0",{"jump":{"target":"other"}}]]}}"#;
        let by_map = rule(
            "i",
            r#"{"vmap":{"key":{"meta":{"key":"iifname"}},"data":"@m"}}"#,
        );
        let log = rule("other", r#"{"log":{"group":5}}"#);
        let ruleset = nft(&format!("{INPUT}{other}{map}{by_map}{log}"));
        assert_eq!(ruleset.unreachable, []);
        assert!(ruleset.log_rules[0].conditions.contains("iifname lan0"));
        let mut ruleset = Ruleset::default();
        ruleset.add_iptables(
            "*nat\n:POSTROUTING ACCEPT [0:0]\n\
             -A POSTROUTING -m set ! --match-set x src -m comment --comment \"a -j b\" -j ACCEPT\n\
             -A POSTROUTING -i lan0 ! -o lan0 -j NFLOG --nflog-group 5\n",
            Family::Ip4,
        );
        let found = &ruleset.log_rules[0];
        assert!(found.is_nat && found.priority == 100 && !found.is_never_reached);
        assert!(
            found.conditions.contains("iifname lan0") && found.conditions.contains("! -o lan0")
        );
    }

    #[test]
    fn the_older_iptables_is_read_from_what_it_saves() {
        let mut ruleset = Ruleset::default();
        ruleset.add_iptables(
            "*filter\n:INPUT ACCEPT [0:0]\n:mine - [0:0]\n\
             -A INPUT -m state --state ESTABLISHED -j ACCEPT\n\
             -A INPUT -i eth+ -p tcp -j mine\n\
             -A mine -m comment --comment \"x\" -m limit --limit 5/sec -j NFLOG --nflog-group 5 --nflog-range 20 --nflog-threshold 50\n\
             COMMIT\n*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o x -j MASQUERADE\nCOMMIT\n",
            Family::Ip4,
        );
        let [found] = &ruleset.log_rules[..] else {
            panic!("{ruleset:?}");
        };
        assert_eq!(
            (found.group, found.snaplen, found.threshold),
            (5, None, Some(50))
        );
        assert!(found.has_range && found.is_limited && !found.is_never_reached);
        assert!(found.conditions.contains("iifname eth*") && found.conditions.contains("-p tcp"));
        assert!(found.behind.is_some() && ruleset.has_source_nat);
    }
}
