//! The documents match the program: the help text in docs/reference.md, man pages, completions, and each
//! command line shown. After a change of flags, `UPDATE=1 cargo test -p acctd --test docs`
//! rewrites the help text, man pages and completions.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use acctd::cli::commands::Cli;
use acctd::config::Config;
use clap::CommandFactory as _;
use proc_macro2::{TokenStream, TokenTree};
use syn::LitStr;

const WIDTH: usize = 100;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_default()
}

/// All that is written for people.
fn documents() -> Vec<String> {
    let names = |directory: &str| {
        let entries = fs::read_dir(root().join(directory)).unwrap();
        let files = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let texts = files.filter(|name| Path::new(name).extension().is_some_and(|it| it == "md"));
        let names = texts.map(|name| format!("{directory}/{name}"));
        names.collect::<Vec<_>>()
    };
    [".", "docs", "docs/design"]
        .into_iter()
        .flat_map(names)
        .collect()
}

/// The anchors of a document, made of its headings as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let is_kept = |it: &char| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_');
    headings
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|title| title.chars().filter(is_kept).collect::<String>())
        .map(|title| title.replace(' ', "-"))
        .collect()
}

/// The Rust files below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let files = entries.map(|entry| entry.unwrap().path()).flat_map(|path| {
        if path.is_dir() {
            sources(&path)
        } else {
            vec![path]
        }
    });
    files
        .filter(|path| path.extension().is_some_and(|it| it == "rs"))
        .collect()
}

/// The tokens of a Rust file, without what groups them.
fn tokens(path: &Path) -> Vec<TokenTree> {
    fn flatten(stream: TokenStream, tokens: &mut Vec<TokenTree>) {
        for tree in stream {
            match tree {
                TokenTree::Group(group) => flatten(group.stream(), tokens),
                token => tokens.push(token),
            }
        }
    }
    let text = fs::read_to_string(path).unwrap();
    let mut tokens = Vec::new();
    flatten(text.parse().unwrap(), &mut tokens);
    tokens
}

/// The value of a string literal.
fn text(token: &TokenTree) -> Option<String> {
    let literal: LitStr = syn::parse2(token.clone().into()).ok()?;
    Some(literal.value())
}

/// All texts in a Rust file.
fn texts(path: &Path) -> Vec<String> {
    tokens(path).iter().filter_map(text).collect()
}

#[test]
fn each_link_in_the_documents_leads_somewhere() {
    let mut n_links = 0;
    for name in documents() {
        let path = root().join(&name);
        let text = fs::read_to_string(&path).unwrap();
        for (_, rest) in text
            .match_indices("](")
            .map(|(at, _)| text.split_at(at + 2))
        {
            let link = rest.split(')').next().unwrap();
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            if file.contains("://") {
                continue;
            }
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{name}: {link}");
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(target).unwrap());
                assert!(anchors.iter().any(|it| it == anchor), "{name}: {link}");
            }
            n_links += 1;
        }
    }
    assert!(n_links >= 10, "{n_links} links");
}

#[test]
fn each_page_says_who_should_read_it_and_the_first_two_stay_short() {
    for (name, limit) in [("README.md", 150), ("ARCHITECTURE.md", 250)] {
        let n_lines = read(name).lines().count();
        assert!(n_lines <= limit, "{name}: {n_lines} lines");
    }
    for name in documents().iter().filter(|name| name.starts_with("docs/")) {
        let text = read(name);
        let first = text.lines().filter(|line| !line.is_empty()).nth(1);
        assert!(
            first.is_some_and(|line| line.starts_with("For ")),
            "{name}: {first:?}"
        );
    }
}

/// The texts between backticks in a line.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn each_file_that_developers_are_sent_to_exists() {
    let exists = |path: &str| {
        let places = ["", "acctd/", "acctd/src/"].map(|place| root().join(place).join(path));
        places.iter().any(|it| it.exists())
    };
    let mut n_paths = 0;
    let is_for_developers = |name: &String| {
        let of_root = ["./ARCHITECTURE.md", "./CONTRIBUTING.md"];
        of_root.contains(&name.as_str()) || name.starts_with("docs/design/")
    };
    for name in documents().into_iter().filter(is_for_developers) {
        let text = read(&name);
        let is_path = |it: &&str| {
            let is_plain = |it: char| it.is_ascii_alphanumeric() || "/_.-".contains(it);
            let is_file = Path::new(it).extension().is_some_and(|it| it == "rs");
            it.contains('/') && it.chars().all(is_plain) && (is_file || it.ends_with('/'))
        };
        for path in text.lines().flat_map(code_spans).filter(is_path) {
            assert!(exists(path), "{name}: {path}");
            n_paths += 1;
        }
    }
    // The map: a folder, what it is about, what is in it.
    for row in read("ARCHITECTURE.md")
        .lines()
        .filter(|line| line.starts_with("| `"))
    {
        let cells: Vec<&str> = row.split(" | ").collect();
        let Some(folder) = code_spans(cells[0]).next().filter(|it| it.ends_with('/')) else {
            continue;
        };
        for file in code_spans(cells[2]) {
            let is_there =
                exists(&format!("{folder}{file}")) || exists(&format!("{folder}{file}.rs"));
            assert!(is_there, "ARCHITECTURE.md: {folder}{file}");
            n_paths += 1;
        }
    }
    assert!(n_paths >= 60, "{n_paths} paths");
}

#[test]
fn each_message_of_the_faq_is_one_of_acctds_and_each_finding_of_doctor_is_there() {
    let faq = read("docs/faq.md");
    let sources = sources(&root().join("acctd/src"));
    let texts_of_acctd: Vec<String> = sources.iter().flat_map(|path| texts(path)).collect();
    let messages = faq.lines().filter_map(|line| line.strip_prefix("### `"));
    let mut n_messages = 0;
    for message in messages {
        let message = message.strip_suffix('`').unwrap();
        let is_there = texts_of_acctd.iter().any(|text| text.contains(message));
        assert!(is_there, "no such message: {message}");
        n_messages += 1;
    }
    assert!(n_messages >= 20, "{n_messages} messages");
    let is_of_findings = |path: &&PathBuf| path.parent().is_some_and(|it| it.ends_with("findings"));
    let of_findings = sources.iter().filter(is_of_findings);
    // No other text there is written so.
    let is_id = |text: &String| {
        let is_letter = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
        text.contains('-') && !text.starts_with('-') && text.chars().all(is_letter)
    };
    let mut n_ids = 0;
    for id in of_findings.flat_map(|path| texts(path)).filter(is_id) {
        assert!(
            faq.contains(&format!("| `{id}` |")),
            "docs/faq.md has no {id}"
        );
        n_ids += 1;
    }
    assert!(n_ids >= 25, "{n_ids} findings");
}

#[test]
fn each_metric_is_in_the_documents() {
    let monitoring = read("docs/monitoring.md");
    let metrics = texts(&root().join("acctd/src/observe/metrics.rs"));
    let names = metrics.iter().filter(|text| text.starts_with("acctd_"));
    let mut n_metrics = 0;
    for name in names {
        assert!(
            monitoring.contains(&format!("`{name}")),
            "docs/monitoring.md has no {name}"
        );
        n_metrics += 1;
    }
    assert!(n_metrics >= 25, "{n_metrics} metrics");
}

/// Compares, or writes where `UPDATE` is set.
fn is_current(name: &str, expected: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join(name), expected).unwrap();
    }
    assert!(
        read(name) == expected,
        "{name} is stale: run UPDATE=1 cargo test -p acctd --test docs"
    );
}

/// With the commands' names and usage as they are typed.
fn command() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}

#[test]
fn the_man_pages_are_current() {
    let command = command();
    let commands = command
        .get_subcommands()
        .map(|it| (format!("acctd-{}", it.get_name()), it));
    for (name, command) in std::iter::once(("acctd".to_owned(), &command)).chain(commands) {
        // The section of system administration commands.
        let man = clap_mangen::Man::new(command.clone()).section("8");
        let mut page = Vec::new();
        man.render(&mut page).unwrap();
        is_current(&format!("dist/{name}.8"), &String::from_utf8(page).unwrap());
    }
}

#[test]
fn the_completions_are_current() {
    use clap_complete::Shell::{Bash, Fish, Zsh};
    for (shell, name) in [(Bash, "acctd.bash"), (Zsh, "_acctd"), (Fish, "acctd.fish")] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command(), "acctd", &mut script);
        let name = format!("dist/completions/{name}");
        is_current(&name, &String::from_utf8(script).unwrap());
    }
}

/// The unit for a network namespace is `acctd.service` with these changes.
#[test]
fn the_unit_for_a_network_namespace_is_current() {
    let mut unit = read("dist/acctd.service");
    for (line, instead) in [
        (
            "Description=IP accounting from NFLOG\n",
            "Description=IP accounting from NFLOG in network namespace %i\n",
        ),
        (
            "# After the rules, if they are loaded at boot: what they log before acctd starts is not counted anyway.\n\
             After=nftables.service network-pre.target\n",
            "# Whatever creates the namespace (ip netns add %i) must run first.\n\
             After=network-pre.target\n",
        ),
        (
            "EnvironmentFile=-/etc/default/acctd\n",
            "EnvironmentFile=-/etc/default/acctd-%i\n\
             # Its own files and socket; the file above takes precedence.\n\
             Environment=ACCTD_LOG_DIRECTORY=/var/log/accounting/%i ACCTD_LISTEN=unix:/run/acctd-%i/acctd.sock\n\
             # If the namespace is created again, acctd exits, and systemd starts it in the new one.\n\
             NetworkNamespacePath=/run/netns/%i\n",
        ),
        (
            "LogsDirectory=accounting\n",
            "LogsDirectory=accounting accounting/%i\n",
        ),
        ("RuntimeDirectory=acctd\n", "RuntimeDirectory=acctd-%i\n"),
    ] {
        assert!(unit.contains(line), "no {line}");
        unit = unit.replacen(line, instead, 1);
    }
    is_current("dist/acctd@.service", &unit);
}

#[test]
fn the_help_text_in_the_reference_is_current() {
    const BEGIN: &str = "<!-- acctd -h -->\n```text\n";
    const END: &str = "```\n<!-- end -->";
    let help = Cli::command().term_width(WIDTH).render_help().to_string();
    // The reference says the rest in its own words.
    let (flags, _example) = help.split_once("A flag has one dash").unwrap();
    let reference = read("docs/reference.md");
    let (before, rest) = reference.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    is_current(
        "docs/reference.md",
        &format!("{before}{BEGIN}{}\n{END}{after}", flags.trim_end()),
    );
}

/// The lines of code blocks that run `program`, `\` at the end of a line joined.
fn command_lines(text: &str, program: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let mut in_block = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            continue;
        }
        let line = line.trim_start().trim_start_matches("sudo ");
        if in_block && line.split_whitespace().next() == Some(program) {
            let words = line
                .split_whitespace()
                .take_while(|word| !word.starts_with(['#', '>']));
            let words: Vec<String> = words.map(str::to_owned).collect();
            // Not the usage, in the help text.
            if !words.contains(&"<COMMAND>".to_owned()) {
                found.push(words);
            }
        }
    }
    found
}

#[test]
fn each_command_line_of_acctd_in_the_documents_is_accepted() {
    let mut n_checked = 0;
    for name in documents() {
        for words in command_lines(&read(&name), "acctd") {
            let args = words.iter().map(OsString::from);
            let cli = Cli::parse_args(args).unwrap_or_else(|error| panic!("{name}: {error}"));
            if cli.command.is_none() {
                Config::resolve(cli.flags)
                    .unwrap_or_else(|error| panic!("{name}: {words:?}: {error}"));
            }
            n_checked += 1;
        }
    }
    assert!(n_checked >= 12, "{n_checked} command lines found");
    let example = Cli::command().render_long_help().to_string();
    let last = example
        .lines()
        .rfind(|line| line.contains("acctd -interval"));
    let args = last.unwrap().split_whitespace().map(OsString::from);
    Config::resolve(Cli::parse_args(args).unwrap().flags).unwrap();
}

#[test]
fn each_flag_has_its_environment_variable() {
    for arg in Cli::command().get_arguments() {
        let Some(long) = arg
            .get_long()
            .filter(|long| !matches!(*long, "help" | "version"))
        else {
            continue;
        };
        let expected = format!("ACCTD_{}", long.to_uppercase().replace('-', "_"));
        let variable = arg.get_env().and_then(|name| name.to_str());
        assert_eq!(variable, Some(expected.as_str()));
    }
}

/// A kernel's list says which tests it cannot run (`cargo xtask test --kernels`).
#[test]
fn the_table_of_kernels_is_what_the_tests_skip() {
    let readme = read("README.md");
    let rows = readme.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let is_version = cells[0].starts_with(|first: char| first.is_ascii_digit());
        (cells.len() == 5 && is_version).then_some(cells)
    });
    let mut n_rows = 0;
    for row in rows {
        let skipped = read(&format!("acctd/tests/kernels/{}", row[0]));
        assert!(!skipped.is_empty(), "no list of Linux {}", row[0]);
        let runs = |test: &str| !skipped.lines().any(|line| line.starts_with(test));
        let word = |word, is_so| if is_so { word } else { "-" };
        let expected = [
            word("exact", runs("a_direction_spread_over_groups_is_one_count")),
            word("exact", runs("crosscheck_by_clsact_counts_exactly")),
            word("exact", runs("crosscheck_by_tcx_counts_exactly")),
            word("yes", runs("rules_of_a_host_with_an_egress_hook")),
        ];
        assert_eq!(row[1..], expected, "Linux {}", row[0]);
        n_rows += 1;
    }
    assert!(n_rows >= 4, "{n_rows} kernels");
}
