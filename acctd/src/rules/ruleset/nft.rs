//! Reads the output of `nft -j list ruleset` (libnftables-json(5)).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::condition::{self, Conditions, Families, Key, Match, SetUse, Test};
use super::model::{Base, Chain, Hook, Log, Place, Quote, Rule, Step, Verdict, target};
use super::nft_text::{self, list, word};
use super::sets::{Sets, limit, limit_of_each, sets};
use crate::rules::devices::Devices;
use crate::rules::nft_objects::{self, Object};

#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) chains: Vec<Chain>,
    /// By table, the number of rules that nft does not show in full.
    pub(super) hidden: BTreeMap<String, usize>,
    /// Tables of iptables-nft with extensions that nft does not show in full.
    pub(super) with_extensions: BTreeSet<String>,
}

/// Reads the chains of all tables; no packet reaches those of `dormant` tables.
pub(super) fn read(objects: &[Object], devices: &Devices, dormant: &BTreeSet<String>) -> Read {
    let sets = sets(objects);
    let mut read = Read::default();
    let mut by_name: HashMap<(String, String), usize> = HashMap::new();
    let chains = objects.iter().filter_map(|it| it.chain.as_ref());
    for chain in chains.filter_map(|it| chain(it, devices)) {
        by_name.insert((chain.table.clone(), chain.name.clone()), read.chains.len());
        let is_dormant = dormant.contains(&chain.table);
        read.chains.push(Chain {
            is_dormant,
            ..chain
        });
    }
    for rule in objects.iter().filter_map(|it| it.rule.as_ref()) {
        let table = format!("{} {}", rule.family, rule.table);
        let Some(&at) = by_name.get(&(table.clone(), rule.chain.clone())) else {
            continue;
        };
        let mut reader = Reader {
            sets: &sets,
            table: &table,
            is_hidden: false,
            has_extension: false,
        };
        let mut steps = Vec::new();
        for statement in &rule.expr {
            reader.statement(statement, &mut steps);
        }
        if reader.has_extension {
            read.with_extensions.insert(table.clone());
        }
        if reader.is_hidden {
            *read.hidden.entry(table.clone()).or_default() += 1;
        }
        let quote = Quote {
            text: nft_text::rule(&rule.expr),
            place: Arc::clone(&read.chains[at].place),
            handle: rule.handle,
        };
        read.chains[at].rules.push(Rule {
            quote: Arc::new(quote),
            steps,
        });
    }
    read
}

fn chain(chain: &nft_objects::Chain, devices: &Devices) -> Option<Chain> {
    let families = match chain.family.as_str() {
        "ip" => Families::IP4,
        "ip6" => Families::IP6,
        "inet" | "bridge" | "netdev" => Families::BOTH,
        _ => return None,
    };
    let hook = chain.hook.as_deref().and_then(Hook::parse);
    let table = format!("{} {}", chain.family, chain.table);
    let name = chain.name.clone();
    let printed = chain.dev.iter().filter_map(Value::as_str);
    let mut names: Vec<String> = printed.map(str::to_owned).collect();
    if names.is_empty() {
        let known = devices.get(&(table.clone(), name.clone()));
        names = known.cloned().unwrap_or_default();
    }
    let key = match hook {
        Some(Hook::Ingress) => Some(Key::InInterface),
        Some(Hook::Egress) => Some(Key::OutInterface),
        _ => None,
    };
    let mut entry = Conditions::any();
    entry.families = families;
    if let Some(key) = key.filter(|_| !names.is_empty()) {
        let text = format!("device {}", names.join(","));
        let values = names.iter().map(|name| condition::Value::of(&key, name));
        let asked = Test::In(values.collect());
        entry.add(&Arc::new(Match::new(key, asked, text)));
    }
    Some(Chain {
        place: Arc::new(Place::Nft(table.clone(), name.clone())),
        table,
        name,
        is_bridge: chain.family == "bridge",
        is_nat: chain.kind.as_deref() == Some("nat"),
        is_dormant: false,
        base: hook.map(|hook| Base {
            hook,
            priority: chain.prio.unwrap_or(0),
            drops: chain.policy.as_deref() == Some("drop"),
        }),
        entry,
        rules: Vec::new(),
    })
}

/// If nft has no JSON for a statement, it prints text. nft 1.0.6 does so for `update @m { ip saddr : 0x1 }`.
fn as_text(text: &str, steps: &mut Vec<Step>) {
    for (header, families) in [(" ip ", Families::IP4), (" ip6 ", Families::IP6)] {
        if text.contains(header) {
            steps.push(Step::Restrict(families));
        }
    }
    let is_added = text.starts_with("add @") || text.starts_with("update @");
    let is_limited = ["limit", "quota", "ct count"].map(|kind| text.contains(kind));
    let key = match is_limited.contains(&true) {
        true => Key::Limit,
        false if is_added || text.is_empty() => return,
        false => Key::Other("text".into()),
    };
    let found = Match::opaque(key, text.to_owned());
    steps.push(Step::Match(Arc::new(found)));
}

/// iptables extensions that limit packets: of identical packets, some match and others do not.
pub(super) fn is_limit_extension(name: &str) -> bool {
    matches!(
        name,
        "limit" | "hashlimit" | "quota" | "statistic" | "connlimit" | "recent" | "nth" | "random"
    )
}

struct Reader<'a> {
    sets: &'a Sets<'a>,
    table: &'a str,
    is_hidden: bool,
    has_extension: bool,
}

impl Reader<'_> {
    fn statement(&mut self, json: &Value, steps: &mut Vec<Step>) {
        let Some((kind, value)) = json.as_object().and_then(|it| it.iter().next()) else {
            as_text(word(json), steps);
            return;
        };
        let of = |key, json: &Value| {
            let text = nft_text::statement(json);
            Step::Match(Arc::new(Match::opaque(key, text)))
        };
        match kind.as_str() {
            "match" => self.matched(json, value, steps),
            "meter" => {
                let key = limit_of_each(&value["stmt"]).unwrap_or(Key::Limit);
                steps.push(of(key, json));
            }
            "set" | "map" => self.fed(json, &value[kind], value, steps),
            "log" => {
                let number = |key| value[key].as_u64().and_then(|it| u32::try_from(it).ok());
                let group = value["group"].as_u64();
                let group = group.and_then(|group| u16::try_from(group).ok());
                steps.extend(group.map(|group| {
                    Step::Log(Log {
                        group,
                        snaplen: number("snaplen"),
                        threshold: number("queue-threshold"),
                        has_range: false,
                    })
                }));
            }
            "jump" => steps.push(Step::Jump(word(&value["target"]).to_owned())),
            "goto" => steps.push(Step::Goto(word(&value["target"]).to_owned())),
            "vmap" => self.verdict_map(value, steps),
            "accept" => steps.push(Step::Verdict(Verdict::Accept)),
            "drop" | "fwd" | "synproxy" => steps.push(Step::Verdict(Verdict::Drop)),
            "reject" => steps.push(Step::Verdict(Verdict::Reject)),
            "queue" => steps.push(Step::Verdict(Verdict::Queue)),
            "return" => steps.push(Step::Verdict(Verdict::Return)),
            "masquerade" | "snat" | "dnat" | "redirect" => {
                let is_source = matches!(kind.as_str(), "masquerade" | "snat");
                steps.push(Step::Nat { is_source });
                steps.push(Step::Verdict(Verdict::Accept));
            }
            "flow" => {
                let name = word(&value["flowtable"]).trim_start_matches('@');
                steps.push(Step::Flow(name.to_owned()));
            }
            "xt" => self.extension(value, steps),
            // These change or record something, and the packet continues.
            "counter" | "mangle" | "notrack" | "comment" | "last" | "dup" | "continue"
            | "ct helper" | "ct timeout" | "ct expectation" | "secmark" | "reset" => {}
            // Includes tproxy: packets without a socket continue with the next rule.
            _ => {
                let key = limit(json).unwrap_or_else(|| Key::Other(kind.clone()));
                steps.push(of(key, json));
            }
        }
    }

    /// Adding to a set is not a condition, but a limit in the same statement is.
    fn fed(&self, json: &Value, name: &Value, value: &Value, steps: &mut Vec<Step>) {
        let name = word(name).trim_start_matches('@');
        let set = self.sets.get(&(self.table.to_owned(), name));
        let limit = list(&value["stmt"]).iter().find_map(limit_of_each);
        families_of(&value["elem"], steps);
        let key = match limit.or_else(|| set?.limit.clone()) {
            Some(limit) => limit,
            None if matches!(word(&value["op"]), "add" | "update") => return,
            None => Key::Other("set".into()),
        };
        let text = nft_text::statement(json);
        steps.push(Step::Match(Arc::new(Match::opaque(key, text))));
    }

    fn extension(&mut self, value: &Value, steps: &mut Vec<Step>) {
        self.has_extension = true;
        let name = word(&value["name"]);
        let text = nft_text::statement(&serde_json::json!({ "xt": value }));
        let is_target = value["type"] == "target";
        if is_target {
            self.is_hidden |= name == "NFLOG";
            steps.extend(target(name).unwrap_or_else(|| vec![Step::Verdict(Verdict::Unknown)]));
            return;
        }
        if value["type"] == "match" {
            let key = match name {
                "comment" => return,
                "rpfilter" => Key::Sanity,
                name if is_limit_extension(name) => Key::Limit,
                name => Key::Other(name.to_owned()),
            };
            steps.push(Step::Match(Arc::new(Match::opaque(key, text))));
            return;
        }
        // nft before 1.0.6 prints null, both for a match and for a target.
        self.is_hidden = true;
        let key = Key::Other("xt".into());
        steps.push(Step::Match(Arc::new(Match::opaque(key, text))));
    }

    fn matched(&self, json: &Value, value: &Value, steps: &mut Vec<Step>) {
        let text = nft_text::statement(json);
        let operator = word(&value["op"]);
        self.condition(&value["left"], operator, &value["right"], text, steps);
    }

    fn verdict_map(&mut self, value: &Value, steps: &mut Vec<Step>) {
        let data = &value["data"];
        let elements = match data.as_str() {
            Some(name) => {
                let key = (self.table.to_owned(), name.trim_start_matches('@'));
                self.sets.get(&key).map_or(&[][..], |set| set.elements)
            }
            None => list(&data["set"]),
        };
        let left = &value["key"];
        let mut branches = Vec::new();
        for element in elements {
            let mut branch = Vec::new();
            let right = match &element[0] {
                right if right.get("elem").is_some() => &right["elem"]["val"],
                right => right,
            };
            if right != "*" {
                let left_text = nft_text::expression(left);
                let text = format!("{left_text} {}", nft_text::expression(right));
                // All elements share one random number, so only one of them matches a packet.
                if left.get("numgen").is_some() {
                    let key = Key::Spread;
                    let asked = Test::In(vec![condition::Value::of(&key, &right.to_string())]);
                    branch.push(Step::Match(Arc::new(Match::new(key, asked, text))));
                } else {
                    self.condition(left, "==", right, text, &mut branch);
                }
            }
            self.statement(&element[1], &mut branch);
            branches.push(branch);
        }
        if !branches.is_empty() {
            steps.push(Step::Branches(branches));
        }
    }

    /// Adds `left operator right` as steps; messages quote `text`.
    fn condition(
        &self,
        left: &Value,
        operator: &str,
        right: &Value,
        text: String,
        steps: &mut Vec<Step>,
    ) {
        let is_equal = matches!(operator, "==" | "in");
        let key = match key_of(left, steps) {
            Left::Families => {
                let words = list(right.get("set").unwrap_or(right)).iter();
                let mentioned = words.map(|it| Families::parse(&nft_text::expression(it)));
                let mentioned = mentioned.fold(Families::NONE, Families::or);
                steps.push(Step::Restrict(if is_equal {
                    mentioned
                } else {
                    Families::BOTH.without(mentioned)
                }));
                return;
            }
            Left::Key(key) => key,
        };
        // For flags, `in` means that any of them is set; a packet may also have others.
        let is_flags = operator == "in" && key != Key::State;
        let (values, set) = self.values(&key, right);
        let asked = match (operator, values) {
            (_, Some(values)) if values.is_empty() && is_equal => Test::In(values),
            (_, None) => Test::Opaque,
            _ if is_flags || key == Key::Sanity || key == Key::Limit => Test::Opaque,
            ("==" | "in", Some(values)) => Test::In(values),
            ("!=", Some(values)) => Test::NotIn(values),
            _ => Test::Opaque,
        };
        let mut found = Match::new(key, asked, text);
        found.set = set;
        steps.push(Step::Match(Arc::new(found)));
    }

    /// The values on the right side; `None` if acctd does not understand them.
    fn values(&self, key: &Key, right: &Value) -> (Option<Vec<condition::Value>>, Option<SetUse>) {
        /// Larger sets would make comparisons slow.
        const MANY: usize = 256;
        let mut used = None;
        let elements = match right.as_str().and_then(|it| it.strip_prefix('@')) {
            Some(name) => {
                let Some(set) = self.sets.get(&(self.table.to_owned(), name)) else {
                    return (None, None);
                };
                used = Some(SetUse {
                    name: name.to_owned(),
                    is_empty: set.elements.is_empty(),
                    is_dynamic: set.is_dynamic,
                });
                if set.is_dynamic || set.elements.len() > MANY {
                    return (None, used);
                }
                set.elements
            }
            None => list(right.get("set").unwrap_or(right)),
        };
        if elements.len() > MANY {
            return (None, used);
        }
        let values = elements.iter().map(|element| value(key, element));
        (Some(values.collect()), used)
    }
}

fn value(key: &Key, json: &Value) -> condition::Value {
    match json {
        Value::String(text) if text.starts_with('@') => condition::Value::Opaque(text.clone()),
        Value::String(text) if *key == Key::Protocol => {
            condition::Value::Word(protocol(text).to_owned())
        }
        Value::String(text) => condition::Value::of(key, text),
        Value::Number(number) if *key == Key::Protocol => {
            condition::Value::Word(protocol(&number.to_string()).to_owned())
        }
        Value::Number(number) => condition::Value::of(key, &number.to_string()),
        json if json.get("elem").is_some() => value(key, &json["elem"]["val"]),
        json if json.get("prefix").is_some() => {
            condition::Value::of(key, &nft_text::expression(json))
        }
        json => condition::Value::Opaque(nft_text::expression(json)),
    }
}

/// Gives each transport protocol one name.
pub(super) fn protocol(name: &str) -> &str {
    match name {
        "1" => "icmp",
        "6" => "tcp",
        "17" => "udp",
        "58" | "icmpv6" | "icmp6" => "ipv6-icmp",
        "132" => "sctp",
        name => name,
    }
}

enum Left {
    Families,
    Key(Key),
}

/// The key of the left side. Adds the conditions that it implies to `steps`.
fn key_of(left: &Value, steps: &mut Vec<Step>) -> Left {
    let other = || Key::Other(nft_text::expression(left));
    families_of(left, steps);
    let key = match left.as_object().and_then(|it| it.iter().next()) {
        Some((kind, value)) => match (kind.as_str(), word(&value["key"])) {
            ("meta", "nfproto" | "protocol") => return Left::Families,
            ("meta", "iifname" | "iif") => Key::InInterface,
            ("meta", "oifname" | "oif") => Key::OutInterface,
            ("meta", "l4proto") => Key::Protocol,
            ("meta", "cpu") | ("jhash" | "symhash", _) => Key::Spread,
            ("meta", "random") | ("numgen", _) => Key::Limit,
            ("ct", "state") => Key::State,
            // nft 1.1.4 and later print "check" if only the existence of a route matters.
            ("fib", _) if matches!(word(&value["result"]), "oif" | "oifname" | "check") => {
                Key::Sanity
            }
            ("payload", _) => match (word(&value["protocol"]), word(&value["field"])) {
                ("ether", "type") => return Left::Families,
                ("ip", "protocol") | ("ip6", "nexthdr") => Key::Protocol,
                ("ip" | "ip6", "saddr") => Key::Source,
                ("ip" | "ip6", "daddr") => Key::Dest,
                ("tcp", "flags") | ("ip", "frag-off") => Key::Sanity,
                _ => other(),
            },
            ("&" | "|" | "^", _) => {
                let inner = &list(value).first().cloned().unwrap_or_default();
                match key_of(inner, &mut Vec::new()) {
                    Left::Key(key @ (Key::Sanity | Key::Limit)) => key,
                    _ => other(),
                }
            }
            _ => other(),
        },
        None => other(),
    };
    Left::Key(key)
}

/// A field of a header only exists in packets that have this header: adds that condition to `steps`.
fn families_of(json: &Value, steps: &mut Vec<Step>) {
    let (kind, value) = match json.as_object().and_then(|it| it.iter().next()) {
        Some((kind, value)) => (kind.as_str(), value),
        None => return,
    };
    match kind {
        "payload" => {}
        "concat" | "&" | "|" | "^" => {
            for part in list(value) {
                families_of(part, steps);
            }
            return;
        }
        "elem" => return families_of(&value["val"], steps),
        _ => return,
    }
    let transport = |name: &str| {
        let key = Key::Protocol;
        let asked = Test::In(vec![condition::Value::of(&key, name)]);
        Step::Match(Arc::new(Match::new(
            key,
            asked,
            format!("meta l4proto {name}"),
        )))
    };
    match word(&value["protocol"]) {
        "ip" => steps.push(Step::Restrict(Families::IP4)),
        "ip6" => steps.push(Step::Restrict(Families::IP6)),
        "arp" => steps.push(Step::Restrict(Families::NONE)),
        "icmp" => steps.extend([Step::Restrict(Families::IP4), transport("icmp")]),
        "icmpv6" => steps.extend([Step::Restrict(Families::IP6), transport("ipv6-icmp")]),
        name @ ("tcp" | "udp" | "sctp" | "dccp") => steps.push(transport(name)),
        _ => {}
    }
}
