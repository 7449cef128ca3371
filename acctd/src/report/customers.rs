//! Which customer an address belongs to (`--customers`).

use std::collections::HashMap;
use std::io::Read;
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;
use serde::Deserialize;

use crate::cli::report::Form;
use crate::model::prefix::Family;

/// A line of the file.
#[derive(Debug, Deserialize)]
struct Entry {
    prefix: String,
    customer: String,
    #[serde(default)]
    commit_mbit: Option<f64>,
    #[serde(default)]
    quota_gb: Option<f64>,
    #[serde(default)]
    form: Option<String>,
}

/// What is agreed with a customer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Customer {
    pub(super) name: String,
    /// Of bits per second.
    pub(super) commit_mbit: Option<f64>,
    /// In 10^9 bytes.
    pub(super) quota_gb: Option<f64>,
    /// What is billed; else what the command line says.
    pub(super) form: Option<Form>,
    /// Whether it has IPv4 prefixes, and IPv6 ones.
    pub(super) families: [bool; 2],
}

/// The customers, and their prefixes.
#[derive(Debug, Default)]
pub(super) struct Customers {
    pub(super) all: Vec<Customer>,
    prefixes: HashMap<IpNet, (usize, u64)>,
    /// The lengths in use, the longest first, for each family.
    lengths: [Vec<u8>; 2],
}

impl Customers {
    /// Reads a CSV file with the columns `prefix` and `customer`, and if wanted `commit_mbit`, `quota_gb`, `form`.
    pub(super) fn read(source: impl Read, may_nest: bool) -> Result<Self> {
        let mut csv = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .comment(Some(b'#'))
            .from_reader(source);
        let mut customers = Self::default();
        let columns = csv
            .headers()
            .context("cannot read the names of its columns")?;
        for wanted in ["prefix", "customer"] {
            ensure!(
                columns.iter().any(|column| column == wanted),
                "its first line has no column {wanted}: it must name prefix, customer, and if wanted commit_mbit, quota_gb, form"
            );
        }
        for entry in csv.deserialize() {
            let entry: Entry = entry?;
            let line = customers.prefixes.len();
            customers.add(entry, u64::try_from(line)? + 2)?;
        }
        if !may_nest {
            customers.refuse_nested()?;
        }
        Ok(customers)
    }

    fn add(&mut self, entry: Entry, line: u64) -> Result<()> {
        let prefix = entry
            .prefix
            .parse::<IpNet>()
            .or_else(|_no_length| entry.prefix.parse::<IpAddr>().map(IpNet::from));
        let Ok(prefix) = prefix else {
            bail!("line {line}: {:?} is no prefix", entry.prefix);
        };
        ensure!(
            prefix == prefix.trunc(),
            "line {line}: {prefix} has bits after its length: is {} meant?",
            prefix.trunc()
        );
        ensure!(
            !entry.customer.is_empty(),
            "line {line}: {prefix} has no customer"
        );
        let form = entry.form.filter(|text| !text.is_empty()).map(|text| {
            clap::ValueEnum::from_str(&text, false).map_err(|_unknown| {
                anyhow::anyhow!("line {line}: {text:?} is no form: in, out, max, sum or sample-max")
            })
        });
        let given = Customer {
            name: entry.customer,
            commit_mbit: positive(entry.commit_mbit, line, "commit_mbit")?,
            quota_gb: positive(entry.quota_gb, line, "quota_gb")?,
            form: form.transpose()?,
            families: [false; 2],
        };
        let index = if let Some(index) = self.all.iter().position(|it| it.name == given.name) {
            let known = &mut self.all[index];
            let name = &given.name;
            merge(
                &mut known.commit_mbit,
                given.commit_mbit,
                line,
                name,
                "commit_mbit",
            )?;
            merge(&mut known.quota_gb, given.quota_gb, line, name, "quota_gb")?;
            merge(&mut known.form, given.form, line, name, "form")?;
            index
        } else {
            self.all.push(given);
            self.all.len() - 1
        };
        let family = family_index(prefix.addr());
        self.all[index].families[family] = true;
        let lengths = &mut self.lengths[family];
        if let Err(at) = lengths.binary_search_by(|it| prefix.prefix_len().cmp(it)) {
            lengths.insert(at, prefix.prefix_len());
        }
        if let Some((_, before)) = self.prefixes.insert(prefix, (index, line)) {
            bail!("lines {before} and {line}: {prefix} is listed twice");
        }
        Ok(())
    }

    /// Two customers for one address are a mistake more often than meant.
    fn refuse_nested(&self) -> Result<()> {
        for (prefix, (customer, line)) in &self.prefixes {
            let mut outer = prefix.supernet();
            while let Some(it) = outer {
                if let Some((other, other_line)) = self.prefixes.get(&it)
                    && other != customer
                {
                    bail!(
                        "lines {} and {}: {prefix} ({}) is part of {it} ({}): correct one, or let the longer prefix win with --nested",
                        line.min(other_line),
                        line.max(other_line),
                        self.all[*customer].name,
                        self.all[*other].name
                    );
                }
                outer = it.supernet();
            }
        }
        Ok(())
    }

    /// The customer with the longest prefix that has the address.
    pub(super) fn of(&self, address: IpAddr) -> Option<usize> {
        let lengths = &self.lengths[family_index(address)];
        lengths.iter().find_map(|length| {
            let prefix = IpNet::new(address, *length).ok()?.trunc();
            Some(self.prefixes.get(&prefix)?.0)
        })
    }

    /// Rows of shorter prefixes have the traffic of several customers.
    pub(super) fn check_length(&self, family: Family, length: u8) -> Result<()> {
        let index = usize::from(family == Family::Ip6);
        let longest = self.lengths[index].first().copied().unwrap_or(0);
        if longest <= length {
            return Ok(());
        }
        let example = self
            .prefixes
            .keys()
            .find(|it| it.prefix_len() == longest && family_index(it.addr()) == index);
        let example = example.map(ToString::to_string).unwrap_or_default();
        bail!(
            "rows of IPv{} are of /{length} (--ip{}-prefix-length), so nothing is known of {example}",
            family.version(),
            family.version()
        )
    }
}

fn family_index(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

fn positive(number: Option<f64>, line: u64, column: &str) -> Result<Option<f64>> {
    if let Some(number) = number {
        ensure!(
            number.is_finite() && number > 0.0,
            "line {line}: {column} must be above 0"
        );
    }
    Ok(number)
}

/// A customer may have many lines, and its contract in one or in all of them.
fn merge<T: PartialEq + Copy>(
    known: &mut Option<T>,
    given: Option<T>,
    line: u64,
    name: &str,
    column: &str,
) -> Result<()> {
    match (&known, &given) {
        (Some(known), Some(given)) if known != given => {
            bail!("line {line}: {name} has another {column} above")
        }
        (None, Some(_)) => *known = given,
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, may_nest: bool) -> Result<Customers> {
        Customers::read(text.as_bytes(), may_nest)
    }

    #[test]
    fn the_longest_prefix_has_the_address() {
        let text = "prefix,customer,commit_mbit,quota_gb,form\n\
            10.0.0.0/8,wide,100,,\n10.1.0.0/16,inner,,500,sum\n10.1.2.3,single,,,\n2001:db8::/32,wide,100,,\n";
        let customers = read(text, true).unwrap();
        let of = |address: &str| {
            customers
                .of(address.parse().unwrap())
                .map(|it| customers.all[it].name.as_str())
        };
        assert_eq!(of("10.2.0.1"), Some("wide"));
        assert_eq!(of("10.1.2.4"), Some("inner"));
        assert_eq!(of("10.1.2.3"), Some("single"));
        assert_eq!(of("2001:db8:7::"), Some("wide"));
        assert_eq!(of("192.0.2.1"), None);
        assert_eq!(customers.all[0].families, [true, true]);
        assert_eq!(
            customers.all[1],
            Customer {
                name: "inner".into(),
                commit_mbit: None,
                quota_gb: Some(500.0),
                form: Some(Form::Sum),
                families: [true, false],
            }
        );
        assert!(customers.check_length(Family::Ip4, 32).is_ok());
        let error = customers
            .check_length(Family::Ip4, 24)
            .unwrap_err()
            .to_string();
        assert!(error.contains("10.1.2.3/32"), "{error}");
    }

    #[test]
    fn mistakes_are_named_with_their_lines() {
        for (text, part) in [
            ("net,customer\n", "no column prefix"),
            (
                "prefix,customer\n10.0.0.0/8,a\n10.0.0.0/8,b\n",
                "lines 2 and 3: 10.0.0.0/8 is listed twice",
            ),
            (
                "prefix,customer\n10.0.0.0/8,a\n10.1.0.0/16,b\n",
                "lines 2 and 3: 10.1.0.0/16 (b) is part of 10.0.0.0/8 (a)",
            ),
            (
                "prefix,customer\n10.0.0.5/24,a\n",
                "line 2: 10.0.0.5/24 has bits after its length: is 10.0.0.0/24 meant?",
            ),
            ("prefix,customer\nten,a\n", "line 2: \"ten\" is no prefix"),
            (
                "prefix,customer\n10.0.0.0/8,\n",
                "line 2: 10.0.0.0/8 has no customer",
            ),
            (
                "prefix,customer,commit_mbit\n10.0.0.0/8,a,-1\n",
                "line 2: commit_mbit must be above 0",
            ),
            (
                "prefix,customer,form\n10.0.0.0/8,a,best\n",
                "line 2: \"best\" is no form",
            ),
            (
                "prefix,customer,quota_gb\n10.0.0.0/8,a,1\n11.0.0.0/8,a,2\n",
                "line 3: a has another quota_gb above",
            ),
        ] {
            let error = format!("{:#}", read(text, false).unwrap_err());
            assert!(error.contains(part), "{text:?}: {error}");
        }
        // Its own are no mistake.
        read("prefix,customer\n10.0.0.0/8,a\n10.1.0.0/16,a\n", false).unwrap();
    }
}
