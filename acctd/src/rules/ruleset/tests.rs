use std::collections::BTreeSet;

use super::log_rule::Ruleset;
use super::model::Hook;
use crate::model::prefix::Family;
use crate::rules::devices::Devices;
use crate::rules::nft_objects::Listing;
use crate::rules::ruleset::condition::Key;
use crate::rules::ruleset::log_rule::Reach;
use crate::rules::ruleset::reading::Reading;

fn read(objects: &str, dormant: &[&str]) -> Ruleset {
    let json = format!("{{\"nftables\":[{objects}]}}");
    let dormant = dormant.iter().map(|it| (*it).to_owned()).collect();
    let mut reading = Reading::default();
    let json: Listing = serde_json::from_str(&json).unwrap();
    reading.add_nft(&json.nftables, &Devices::new(), &dormant);
    reading.finish()
}

fn nft(objects: &str) -> Ruleset {
    read(objects, &[])
}

fn iptables(text: &str) -> Ruleset {
    let mut reading = Reading::default();
    reading.add_iptables(text, Family::Ip4);
    reading.finish()
}

const INPUT: &str = r#"{"chain":{"family":"inet","table":"t","name":"i","handle":1,"type":"filter","hook":"input","prio":-300,"policy":"accept"}}"#;
const OTHER: &str = r#",{"chain":{"family":"inet","table":"t","name":"other"}}"#;
const LOG: &str = r#"{"log":{"group":5}}"#;

fn base(name: &str, hook: &str, priority: i64, policy: &str) -> String {
    format!(
        r#",{{"chain":{{"family":"inet","table":"t","name":"{name}","type":"filter","hook":"{hook}","prio":{priority},"policy":"{policy}"}}}}"#
    )
}

fn rule(chain: &str, expressions: &str) -> String {
    format!(
        r#",{{"rule":{{"family":"inet","table":"t","chain":"{chain}","handle":7,"expr":[{expressions}]}}}}"#
    )
}

fn meta(key: &str, value: &str) -> String {
    format!(r#"{{"match":{{"op":"==","left":{{"meta":{{"key":"{key}"}}}},"right":"{value}"}}}},"#)
}

const ESTABLISHED: &str =
    r#"{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established","related"]}},"#;

/// Which packets reach the only rule that logs: `all`, or the verdict that stops all or most.
fn comes(ruleset: &Ruleset) -> String {
    let [found] = &ruleset.log_rules[..] else {
        panic!("{ruleset:#?}");
    };
    match found.reach(Family::Ip4) {
        Reach::All => "all".into(),
        Reach::AllStopped(obstacle) => format!("none: {}", obstacle.quote.text),
        Reach::NeverMatches(found) => format!("never: {}", found.text),
        Reach::SomeStopped(obstacles) => format!("some: {}", obstacles[0].quote.text),
    }
}

#[test]
fn a_log_rule_has_the_hook_of_its_chain_and_its_own_conditions() {
    let expressions = format!(
        r#"{}{}{{"counter":{{"packets":0,"bytes":0}}}},{{"log":{{"group":5,"snaplen":20,"queue-threshold":50}}}}"#,
        meta("iifname", "lan0"),
        meta("nfproto", "ipv4")
    );
    let ruleset = nft(&format!("{INPUT}{}", rule("i", &expressions)));
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
        found.quote.to_string(),
        "'iifname \"lan0\" meta nfproto ipv4 counter log group 5 snaplen 20 queue-threshold 50' (chain i of table inet t, handle 7)"
    );
    assert_eq!(
        found.quote.removal().unwrap(),
        "nft delete rule inet t i handle 7"
    );
    assert_eq!(comes(&ruleset), "all");
}

#[test]
fn the_verdict_that_stops_most_comes_first() {
    let drops = |port: u16| {
        format!(
            r#"{{"match":{{"op":"==","left":{{"payload":{{"protocol":"tcp","field":"dport"}}}},"right":{port}}}}},{{"drop":null}}"#
        )
    };
    let some = format!("{INPUT}{}{}", rule("i", &drops(23)), rule("i", &drops(25)));
    let some = format!(
        "{some}{}",
        rule("i", &format!("{ESTABLISHED}{{\"accept\":null}}"))
    );
    let ruleset = nft(&format!("{some}{}", rule("i", LOG)));
    assert_eq!(comes(&ruleset), "some: ct state established,related accept");
    let ruleset = nft(&format!(
        "{some}{}{}",
        rule("i", r#"{"reject":null}"#),
        rule("i", LOG)
    ));
    assert_eq!(comes(&ruleset), "none: reject");
}

#[test]
fn limits_quotas_and_chance_are_conditions() {
    for statement in [
        r#"{"set":{"op":"update","elem":{"payload":{"protocol":"ip","field":"saddr"}},"set":"@s","stmt":[{"limit":{"rate":10,"per":"second","inv":true}}]}}"#,
        r#"{"ct count":{"val":20,"inv":true}}"#,
        r#"{"quota":{"val":1,"val_unit":"mbytes","inv":true}}"#,
        r#"{"limit":{"rate":5,"per":"second","inv":true}}"#,
        r#"{"meter":{"key":{"payload":{"protocol":"ip","field":"saddr"}},"stmt":{"limit":{"rate":5,"per":"second","inv":true}},"name":"m"}}"#,
        r#"{"match":{"op":"==","left":{"numgen":{"mode":"inc","mod":2,"offset":0}},"right":0}}"#,
        r#""add @m { ip saddr limit rate over 10/second : 0x00000002 }""#,
        r#""nobody-knows what""#,
        r#"{"nobody-knows":{"what":"it is"}}"#,
        r#"{"tproxy":{"port":80}}"#,
    ] {
        let stops = rule("i", &format!(r#"{statement},{{"drop":null}}"#));
        let ruleset = nft(&format!("{INPUT}{stops}{}", rule("i", LOG)));
        assert!(comes(&ruleset).starts_with("some: "), "{statement}");
        // The same on the rule itself.
        let some = rule("i", &format!("{statement},{LOG}"));
        let ruleset = nft(&format!("{INPUT}{some}"));
        assert_eq!(comes(&ruleset), "all");
        assert_eq!(
            ruleset.log_rules[0].conditions.matches.len(),
            1,
            "{statement}"
        );
    }
}

#[test]
fn an_unused_quota_and_a_high_limit_per_source_stop_no_usual_traffic() {
    let of_each = |limit: &str| format!(r#"{{"set":{{"op":"add","set":"@s","stmt":[{limit}]}}}}"#);
    let quota = |used: u32, unit: &str| {
        format!(
            r#"{{"quota":{{"val":2,"val_unit":"mbytes","inv":true,"used":{used},"used_unit":"{unit}"}}}}"#
        )
    };
    let high = r#"{"limit":{"rate":1000,"per":"second","inv":true}}"#;
    for (statement, is_usual) in [
        (quota(2_097_151, "bytes"), false),
        (quota(2048, "kbytes"), true),
        (r#"{"quota":"name"}"#.into(), true),
        (high.into(), true),
        (of_each(high), false),
        (of_each(&high.replace("1000", "999")), true),
        (of_each(&high.replace("second", "minute")), true),
        (
            of_each(&high.replace("1000", "1000,\"rate_unit\":\"kbytes\"")),
            true,
        ),
        (of_each(r#"{"ct count":{"val":1000,"inv":true}}"#), false),
        (of_each(r#"{"ct count":{"val":1000}}"#), true),
    ] {
        let stops = rule("i", &format!(r#"{statement},{{"drop":null}}"#));
        let ruleset = nft(&format!("{INPUT}{stops}{}", rule("i", LOG)));
        let [asked] = &ruleset.log_rules[0].obstacles[0].conditions.matches[..] else {
            panic!("{ruleset:#?}");
        };
        let usual = [Key::Excess, Key::Limit][usize::from(is_usual)].clone();
        assert_eq!(asked.key, usual, "{statement}");
    }
}

/// As nft 1.1.4 prints it, where 1.0.6 has text, lists of one and "oif".
#[test]
fn the_json_of_newer_versions_of_nft_is_understood() {
    let map = r#"{"map":{"op":"update","elem":{"payload":{"protocol":"ip","field":"saddr"}},"data":{"meta":{"key":"mark"}},"map":"@m"}}"#;
    let ruleset = nft(&format!(
        r#"{INPUT},{{"map":{{"family":"inet","table":"t","name":"m","type":"ipv4_addr","map":"mark","flags":"timeout"}}}}{}"#,
        rule("i", &format!("{map},{LOG}"))
    ));
    let found = &ruleset.log_rules[0];
    assert_eq!(found.conditions.matches, [], "{map}");
    let text = r#""update @m { ip saddr : 0x00000001 }""#;
    let as_text = nft(&format!("{INPUT}{}", rule("i", &format!("{text},{LOG}"))));
    let also_found = &as_text.log_rules[0];
    assert_eq!(also_found.conditions.matches, [], "{text}");
    assert_eq!(also_found.families, BTreeSet::from([4]), "{text}");
    assert_eq!(
        found.quote.text,
        "update @m { ip saddr : meta mark } log group 5"
    );
    let chain = r#"{"chain":{"family":"netdev","table":"t","name":"i","type":"filter","hook":"ingress","prio":0,"policy":"accept","dev":"lan0"}}"#;
    let log = rule("i", LOG).replace("inet", "netdev");
    let ruleset = nft(&format!("{chain}{log}"));
    let interfaces: Vec<_> = ruleset.log_rules[0].interfaces().map(|it| it.1).collect();
    assert_eq!(interfaces, [["lan0"]]);
    for (result, flags) in [("oif", r#"["saddr","iif"]"#), ("check", r#""saddr""#)] {
        let fib = format!(
            r#"{{"match":{{"op":"==","left":{{"fib":{{"result":"{result}","flags":{flags}}}}},"right":false}}}},{{"drop":null}}"#
        );
        let ruleset = nft(&format!("{INPUT}{}{}", rule("i", &fib), rule("i", LOG)));
        let [asked] = &ruleset.log_rules[0].obstacles[0].conditions.matches[..] else {
            panic!("{ruleset:#?}");
        };
        assert_eq!(asked.key, Key::Sanity, "{}", asked.text);
    }
}

#[test]
fn targets_of_iptables_that_stop_packets_are_verdicts() {
    for (target, is_stopped) in [
        ("REJECT", true),
        ("NFQUEUE", true),
        ("QUEUE", true),
        ("TPROXY", true),
        ("TCPMSS", false),
    ] {
        let stops = rule(
            "i",
            &format!(r#"{{"xt":{{"type":"target","name":"{target}"}}}}"#),
        );
        let ruleset = nft(&format!("{INPUT}{stops}{}", rule("i", LOG)));
        assert_eq!(comes(&ruleset) != "all", is_stopped, "{target}");
        let text = format!(
            "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j {target}\n-A INPUT -j NFLOG --nflog-group 5\n"
        );
        let ruleset = iptables(&text);
        assert_eq!(comes(&ruleset) != "all", is_stopped, "{target}");
    }
    let unknown = rule("i", r#"{"xt":null}"#);
    let ruleset = nft(&format!("{INPUT}{unknown}{}", rule("i", LOG)));
    assert_eq!(comes(&ruleset), "all");
}

#[test]
fn packets_do_not_reach_chains_without_a_hook_and_dormant_tables() {
    let unhooked = format!("{INPUT}{OTHER}{}", rule("other", LOG));
    let ruleset = nft(&unhooked);
    assert!(ruleset.log_rules.is_empty() && !ruleset.unreachable[0].is_dormant);
    let jump = rule("i", r#"{"jump":{"target":"other"}}"#);
    let ruleset = nft(&format!("{unhooked}{jump}"));
    assert_eq!((ruleset.log_rules.len(), ruleset.unreachable.len()), (1, 0));
    let ruleset = read(&format!("{unhooked}{jump}"), &["inet t"]);
    assert!(ruleset.log_rules.is_empty() && ruleset.unreachable[0].is_dormant);
}

/// As ufw does: packets that return are not dropped later in the chain.
#[test]
fn a_return_ends_only_its_chain_and_a_verdict_after_it_stops_some() {
    let some = r#"{"match":{"op":"==","left":{"fib":{"result":"type","flags":["daddr"]}},"right":"local"}},{"return":null}"#;
    let log = rule("i", LOG);
    let jump = rule("i", r#"{"jump":{"target":"other"}}"#);
    let ends = rule("other", some);
    let drops = rule("other", r#"{"drop":null}"#);
    let ruleset = nft(&format!("{INPUT}{OTHER}{ends}{drops}{jump}{log}"));
    assert_eq!(comes(&ruleset), "some: drop");
    let ruleset = nft(&format!("{INPUT}{OTHER}{ends}{jump}{log}"));
    assert_eq!(comes(&ruleset), "all");
    let ruleset = nft(&format!("{INPUT}{OTHER}{drops}{jump}{log}"));
    assert_eq!(comes(&ruleset), "none: drop");
    // After a goto, packets return to the caller of this chain, not to the rule after the goto.
    let goto = rule("i", r#"{"goto":{"target":"other"}}"#);
    let ruleset = nft(&format!("{INPUT}{OTHER}{goto}{log}"));
    assert_eq!(comes(&ruleset), "none: goto other");
}

#[test]
fn only_verdicts_for_the_same_packets_are_obstacles() {
    let log = format!(
        "{}{}{LOG}",
        meta("nfproto", "ipv4"),
        meta("iifname", "lan0")
    );
    for (key, value, comes_so_far) in [
        ("nfproto", "ipv6", "all"),
        ("iifname", "wan0", "all"),
        ("nfproto", "ipv4", "none"),
        ("iifname", "lan*", "none"),
        ("mark", "7", "some"),
    ] {
        let verdict = format!("{}{{\"accept\":null}}", meta(key, value));
        let ruleset = nft(&format!(
            "{INPUT}{}{}",
            rule("i", &verdict),
            rule("i", &log)
        ));
        assert!(comes(&ruleset).starts_with(comes_so_far), "{key} {value}");
    }
}

#[test]
fn a_drop_in_an_earlier_base_chain_is_an_obstacle_and_an_accept_is_not() {
    let drop = r#"{"drop":null}"#;
    let accept = r#"{"accept":null}"#;
    let dropped = |hook: &str, priority: i64, expressions: &str, policy: &str| {
        let chain = base("b", hook, priority, policy);
        let ruleset = nft(&format!(
            "{INPUT}{chain}{}{}",
            rule("b", expressions),
            rule("i", LOG)
        ));
        comes(&ruleset)
    };
    assert_eq!(dropped("prerouting", -300, drop, "accept"), "none: drop");
    assert_eq!(dropped("input", -310, drop, "accept"), "none: drop");
    assert_eq!(dropped("input", -290, drop, "accept"), "all");
    assert_eq!(dropped("forward", -310, drop, "accept"), "all");
    assert_eq!(dropped("prerouting", -300, accept, "accept"), "all");
    let mark = meta("mark", "7");
    assert_eq!(
        dropped("prerouting", -300, &format!("{mark}{drop}"), "accept"),
        "some: meta mark 7 drop"
    );
    assert_eq!(
        dropped("prerouting", -300, &format!("{mark}{accept}"), "drop"),
        "some: policy drop"
    );
    assert_eq!(
        dropped(
            "prerouting",
            -300,
            &format!("{mark}{{\"return\":null}}"),
            "drop"
        ),
        "none: policy drop"
    );
    // Before connection tracking, no packet is established.
    assert_eq!(
        dropped(
            "prerouting",
            -300,
            &format!("{ESTABLISHED}{drop}"),
            "accept"
        ),
        "all"
    );
    assert_eq!(
        dropped(
            "prerouting",
            -100,
            &format!("{ESTABLISHED}{drop}"),
            "accept"
        )
        .as_str(),
        "some: ct state established,related drop"
    );
}

/// A drop on one of two paths does not stop all packets.
#[test]
fn a_rule_on_two_paths_is_unreached_if_both_are_stopped() {
    let postrouting = base("p", "postrouting", 0, "accept");
    let forward = base("f", "forward", 0, "drop");
    let output = base("o", "output", 0, "drop");
    let ruleset = nft(&format!("{INPUT}{postrouting}{forward}{}", rule("p", LOG)));
    assert_eq!(comes(&ruleset), "some: policy drop");
    let ruleset = nft(&format!(
        "{INPUT}{postrouting}{forward}{output}{}",
        rule("p", LOG)
    ));
    assert_eq!(comes(&ruleset), "none: policy drop");
}

#[test]
fn conditions_that_no_packet_matches_are_found() {
    let set = r#",{"set":{"family":"inet","table":"t","name":"e","type":"ipv4_addr"}}"#;
    let empty = r#"{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@e"}},"#;
    let ruleset = nft(&format!(
        "{INPUT}{set}{}",
        rule("i", &format!("{empty}{LOG}"))
    ));
    assert_eq!(comes(&ruleset), "never: ip saddr @e");
    let out = format!("{}{LOG}", meta("oifname", "lan0"));
    let ruleset = nft(&format!("{INPUT}{}", rule("i", &out)));
    assert_eq!(comes(&ruleset), "never: oifname \"lan0\"");
    // A verdict with such a condition stops nothing.
    let stops = rule("i", &format!("{empty}{{\"drop\":null}}"));
    let ruleset = nft(&format!("{INPUT}{set}{stops}{}", rule("i", LOG)));
    assert_eq!(comes(&ruleset), "all");
}

#[test]
fn packets_reach_chains_by_named_maps() {
    let map = r#",{"map":{"family":"inet","table":"t","name":"m","elem":[["lan0",{"jump":{"target":"other"}}],["lo",{"accept":null}]]}}"#;
    let by_map = rule(
        "i",
        r#"{"vmap":{"key":{"meta":{"key":"iifname"}},"data":"@m"}}"#,
    );
    let ruleset = nft(&format!(
        "{INPUT}{OTHER}{map}{by_map}{}",
        rule("other", LOG)
    ));
    assert_eq!(ruleset.unreachable.len(), 0);
    let interfaces: Vec<_> = ruleset.log_rules[0].interfaces().collect();
    assert_eq!(interfaces[0].1, ["lan0"]);
    assert_eq!(comes(&ruleset), "all");
}

#[test]
fn iptables_legacy_is_read_from_iptables_save() {
    let ruleset = iptables(
        "*filter\n:INPUT ACCEPT [0:0]\n:mine - [0:0]\n\
         -A INPUT -m state --state ESTABLISHED -j ACCEPT\n\
         -A INPUT -i eth+ -p tcp -j mine\n\
         -A mine -m comment --comment \"x\" -m limit --limit 5/sec -j NFLOG --nflog-group 5 --nflog-range 20 --nflog-threshold 50\n\
         COMMIT\n*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o x -j MASQUERADE\nCOMMIT\n",
    );
    let [found] = &ruleset.log_rules[..] else {
        panic!("{ruleset:?}");
    };
    assert_eq!(
        (found.group, found.snaplen, found.threshold),
        (5, None, Some(50))
    );
    assert!(found.has_range);
    assert_eq!(
        found.conditions.to_string(),
        "-i eth+ -p tcp -m limit --limit 5/sec"
    );
    assert_eq!(
        comes(&ruleset),
        "some: -A INPUT -m state --state ESTABLISHED -j ACCEPT"
    );
    assert_eq!(ruleset.nats.len(), 1);
    assert_eq!(
        ruleset.nats[0].quote.removal().unwrap(),
        "iptables -t nat -D POSTROUTING -o x -j MASQUERADE"
    );
    let ruleset = iptables(
        "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -i lan0 ! -o lan0 -j NFLOG --nflog-group 5\n",
    );
    assert!(ruleset.log_rules[0].is_nat && ruleset.log_rules[0].priority == 100);
}

/// Each chain jumps to the next one twice: 16,384 paths to the last.
#[test]
fn nested_double_jumps_take_little_time() {
    use std::fmt::Write as _;
    let mut text = String::from("*filter\n:INPUT ACCEPT [0:0]\n");
    for depth in 0..14 {
        writeln!(text, ":c{depth} - [0:0]").unwrap();
    }
    text += "-A INPUT -j c0\n";
    for depth in 0..13 {
        let next = depth + 1;
        writeln!(text, "-A c{depth} -p tcp -j c{next}\n-A c{depth} -p udp -s 10.0.0.{depth} -j c{next}\n-A c{depth} -j c{next}").unwrap();
    }
    text += "-A c13 -d 10.0.0.1 -j DROP\n-A c13 -j NFLOG --nflog-group 5\n-A INPUT -j NFLOG --nflog-group 5\n";
    let began = std::time::Instant::now();
    let ruleset = iptables(&text);
    assert!(began.elapsed() < std::time::Duration::from_secs(2));
    assert!(ruleset.log_rules.len() > 1);
}
