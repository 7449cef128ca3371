//! Writes rules in nft's language, from their JSON (libnftables-json(5)), to quote them in messages. What is not known
//! here is quoted as JSON.

use serde_json::Value;

pub(super) fn rule(statements: &[Value]) -> String {
    let words: Vec<String> = statements.iter().map(statement).collect();
    words.join(" ")
}

pub(super) fn statement(json: &Value) -> String {
    let Some((kind, value)) = json.as_object().and_then(|it| it.iter().next()) else {
        return expression(json);
    };
    let known = match kind.as_str() {
        "match" => Some(matched(value)),
        "log" => Some(log(value)),
        "limit" => limit(value),
        "quota" => Some(quota(value)),
        "counter" => Some("counter".into()),
        "ct count" => Some(format!("ct count {}{}", over(value), value["val"])),
        "jump" | "goto" => Some(format!("{kind} {}", word(&value["target"]))),
        "vmap" => Some(format!(
            "{} vmap {}",
            expression(&value["key"]),
            expression(&value["data"])
        )),
        "mangle" => Some(format!(
            "{} set {}",
            expression(&value["key"]),
            expression(&value["value"])
        )),
        "set" | "map" => Some(set(value)),
        "meter" => Some(format!(
            "meter {} {{ {} {} }}",
            word(&value["name"]),
            expression(&value["key"]),
            statement(&value["stmt"])
        )),
        "queue" => Some(match value.get("num") {
            Some(number) => format!("queue num {}", expression(number)),
            None => "queue".into(),
        }),
        "reject" => Some(match value["type"].as_str() {
            Some(kind) => format!("reject with {kind}"),
            None => "reject".into(),
        }),
        "flow" => Some(format!("flow add {}", word(&value["flowtable"]))),
        "xt" if value.is_null() => Some("xt".into()),
        "xt" => Some(format!(
            "xt {} {}",
            word(&value["type"]),
            word(&value["name"])
        )),
        "masquerade" | "redirect" | "notrack" | "accept" | "drop" | "return" | "continue" => {
            Some(kind.clone())
        }
        "snat" | "dnat" if value["addr"].is_string() => {
            Some(format!("{kind} to {}", word(&value["addr"])))
        }
        _ => None,
    };
    known.unwrap_or_else(|| json.to_string())
}

fn matched(json: &Value) -> String {
    let left = expression(&json["left"]);
    let right = match &json["right"] {
        Value::Bool(true) => "exists".to_owned(),
        Value::Bool(false) => "missing".to_owned(),
        // nft quotes interface names.
        Value::String(name) if left.ends_with("ifname") && !name.starts_with('@') => {
            format!("\"{name}\"")
        }
        right => expression(right),
    };
    match json["op"].as_str() {
        None | Some("==" | "in") => format!("{left} {right}"),
        Some(operator) => format!("{left} {operator} {right}"),
    }
}

pub(super) fn expression(json: &Value) -> String {
    match json {
        Value::String(text) => return text.clone(),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(expression).collect();
            return values.join(",");
        }
        _ => {}
    }
    let Some((kind, value)) = json.as_object().and_then(|it| it.iter().next()) else {
        return json.to_string();
    };
    let known = match kind.as_str() {
        // nft omits `meta` here.
        "meta" => value["key"].as_str().map(|key| match key {
            "iifname" | "oifname" | "iif" | "oif" | "iifgroup" | "oifgroup" => key.to_owned(),
            key => format!("meta {key}"),
        }),
        "ct" => value["key"]
            .as_str()
            .map(|key| match value["dir"].as_str() {
                Some(direction) => format!("ct {direction} {key}"),
                None => format!("ct {key}"),
            }),
        "payload" => match (value["protocol"].as_str(), value["field"].as_str()) {
            (Some(protocol), Some(field)) => Some(format!("{protocol} {field}")),
            _ => None,
        },
        "fib" => Some(format!(
            "fib {} {}",
            joined(&value["flags"], " . "),
            word(&value["result"])
        )),
        "numgen" => Some(format!(
            "numgen {} mod {}",
            word(&value["mode"]),
            value["mod"]
        )),
        "socket" => Some(format!("socket {}", word(&value["key"]))),
        "exthdr" => Some(format!("exthdr {}", word(&value["name"]))),
        "prefix" => Some(format!("{}/{}", expression(&value["addr"]), value["len"])),
        "range" => Some(format!(
            "{}-{}",
            expression(&value[0]),
            expression(&value[1])
        )),
        "set" => Some(elements(value)),
        "elem" => Some(expression(&value["val"])),
        "concat" => Some(joined(value, " . ")),
        operator @ ("&" | "|" | "^") => Some(joined(value, &format!(" {operator} "))),
        "accept" | "drop" | "return" | "continue" | "jump" | "goto" => Some(statement(json)),
        _ => None,
    };
    known.unwrap_or_else(|| json.to_string())
}

fn elements(json: &Value) -> String {
    const SHOWN: usize = 6;
    let all = list(json);
    let shown = all.iter().take(SHOWN).map(|element| match element {
        Value::Array(pair) if pair.len() == 2 => {
            format!("{} : {}", expression(&pair[0]), expression(&pair[1]))
        }
        element => expression(element),
    });
    let shown: Vec<String> = shown.collect();
    let rest = if all.len() > SHOWN { ", …" } else { "" };
    format!("{{ {}{rest} }}", shown.join(", "))
}

/// A statement that adds to a set or map.
fn set(json: &Value) -> String {
    let data = match &json["data"] {
        Value::Null => String::new(),
        data => format!(" : {}", expression(data)),
    };
    let name = word(json.get("map").unwrap_or(&json["set"]));
    let statements = list(&json["stmt"])
        .iter()
        .map(|it| format!(" {}", statement(it)));
    format!(
        "{} {name} {{ {}{}{data} }}",
        word(&json["op"]),
        expression(&json["elem"]),
        statements.collect::<String>()
    )
}

fn log(json: &Value) -> String {
    let mut words = vec!["log".to_owned()];
    if let Some(prefix) = json["prefix"].as_str() {
        words.push(format!("prefix \"{prefix}\""));
    }
    for key in ["group", "snaplen", "queue-threshold"] {
        if let Some(number) = json[key].as_u64() {
            words.push(format!("{key} {number}"));
        }
    }
    words.join(" ")
}

fn limit(json: &Value) -> Option<String> {
    let unit = json["rate_unit"].as_str().filter(|unit| *unit != "packets");
    let unit = unit.map(|unit| format!(" {unit}")).unwrap_or_default();
    Some(format!(
        "limit rate {}{}{unit}/{}",
        over(json),
        json["rate"].as_u64()?,
        json["per"].as_str()?
    ))
}

fn quota(json: &Value) -> String {
    let over = if json["inv"] == true {
        "over "
    } else {
        "until "
    };
    format!("quota {over}{} {}", json["val"], word(&json["val_unit"]))
}

fn over(json: &Value) -> &'static str {
    if json["inv"] == true { "over " } else { "" }
}

fn joined(json: &Value, between: &str) -> String {
    let words: Vec<String> = list(json).iter().map(expression).collect();
    words.join(between)
}

/// nft prints a list of one element as the element.
pub(super) fn list(json: &Value) -> &[Value] {
    match json {
        Value::Null => &[],
        Value::Array(values) => values,
        one => std::slice::from_ref(one),
    }
}

pub(super) fn word(json: &Value) -> &str {
    json.as_str().unwrap_or_default()
}
