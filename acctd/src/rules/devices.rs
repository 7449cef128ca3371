//! Patterns of interface names, and the devices of nft's netdev chains.

use std::collections::BTreeMap;

/// By table (`netdev NAME`) and chain.
pub(crate) type Devices = BTreeMap<(String, String), Vec<String>>;

/// Reads the devices from nft's text, because the JSON of nft 1.0.6 lacks them.
pub(crate) fn devices(text: &str) -> Devices {
    let mut devices = Devices::new();
    let (mut table, mut chain) = (String::new(), String::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["table", family, name, "{"] => table = format!("{family} {name}"),
            ["chain", name, "{"] => name.clone_into(&mut chain),
            ["type", "filter", "hook", _, "device", device, ..] => {
                let names = vec![device.trim_matches('"').to_owned()];
                devices.insert((table.clone(), chain.clone()), names);
            }
            // devices = { lan0, lan1 }
            ["type", "filter", "hook", _, "devices", "=", "{", ..] => {
                let list = line.split(['{', '}']).nth(1).unwrap_or_default();
                let names = list
                    .split(',')
                    .map(|name| name.trim().trim_matches('"').to_owned());
                devices.insert((table.clone(), chain.clone()), names.collect());
            }
            _ => {}
        }
    }
    devices
}

/// Whether both names or patterns can match the same interface.
pub(crate) fn patterns_overlap(one: &str, other: &str) -> bool {
    match (one.strip_suffix('*'), other.strip_suffix('*')) {
        (None, None) => one == other,
        (Some(stem), None) => other.starts_with(stem),
        (None, Some(stem)) => one.starts_with(stem),
        (Some(one), Some(other)) => one.starts_with(other) || other.starts_with(one),
    }
}
