//! acctd's table for nft, as text.

use std::fmt;

pub(super) const TABLE: &str = "acctd";

#[derive(Debug)]
pub(super) struct Table {
    pub(super) family: &'static str,
    pub(super) chains: Vec<Chain>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: String,
    /// `None` for a chain that others jump to.
    pub(super) base: Option<Base>,
    pub(super) rules: Vec<String>,
}

/// The hook of a base chain.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) hook: String,
    pub(super) device: Option<String>,
    pub(super) priority: i64,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {TABLE} {{", self.family)?;
        for chain in &self.chains {
            writeln!(f, "    chain {} {{", chain.name)?;
            if let Some(base) = &chain.base {
                writeln!(f, "        {base};")?;
            }
            for rule in &chain.rules {
                writeln!(f, "        {rule}")?;
            }
            writeln!(f, "    }}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type filter hook {}", self.hook)?;
        if let Some(device) = &self.device {
            write!(f, " device \"{device}\"")?;
        }
        write!(f, " priority {}", self.priority)
    }
}

/// A line for each chain and each rule.
pub(super) fn lines(tables: &[Table]) -> Vec<String> {
    let mut lines = Vec::new();
    for Table { family, chains } in tables {
        for Chain { name, base, rules } in chains {
            lines.push(chain_line(family, name, base.as_ref()));
            for rule in rules {
                lines.push(format!("rule {family} {TABLE} {name} {rule}"));
            }
        }
    }
    lines
}

pub(super) fn chain_line(family: &str, name: &str, base: Option<&Base>) -> String {
    let base = base.map(|base| format!(" {{ {base}; }}"));
    format!("chain {family} {TABLE} {name}{}", base.unwrap_or_default())
}
