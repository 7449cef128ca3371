//! Where figures go: tables to the terminal and to a Markdown file, all of them to a JSON file.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::machine::{self, Machine};
use testkit::{print, table};

/// The files that are asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// Write all figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the tables to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// A table with a line above it.
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// Everything, as it is written to a file.
#[derive(Serialize)]
struct Json<'a, R> {
    machine: &'a Machine,
    results: &'a R,
}

impl Output {
    pub(crate) fn publish(
        &self,
        results: &impl Serialize,
        tables: &[Table],
        explanation: &str,
    ) -> Result<()> {
        let machine = machine::describe();
        print::line(text(&machine, tables) + "\n" + explanation)?;
        if let Some(file) = &self.json {
            let machine = &machine;
            let json = serde_json::to_string_pretty(&Json { machine, results })?;
            write(file, &json)?;
        }
        if let Some(file) = &self.markdown {
            write(
                file,
                &(markdown(&machine, tables) + "\n" + explanation + "\n"),
            )?;
        }
        Ok(())
    }
}

fn text(machine: &Machine, tables: &[Table]) -> String {
    let mut text = format!("\n{machine}\n");
    for table in tables {
        let columns: Vec<&str> = table.columns.iter().map(String::as_str).collect();
        let lines = table::format(&columns, &table.rows);
        // Writing to a String cannot fail.
        let _infallible = write!(text, "\n{}\n{lines}", table.title);
    }
    text
}

fn markdown(machine: &Machine, tables: &[Table]) -> String {
    let mut text = format!("{machine}.\n");
    for table in tables {
        let _infallible = write!(
            text,
            "\n**{}**:\n\n| {} |\n|{}\n",
            table.title,
            table.columns.join(" | "),
            "---|".repeat(table.columns.len())
        );
        for row in &table.rows {
            let _infallible = writeln!(text, "| {} |", row.join(" | "));
        }
    }
    text
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
