//! Imports go down: no file imports one that imports it, however far around, and no folder of acctd does. A
//! file has one subject and at most 500 lines.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A module by its path from the crate's root.
type Module = Vec<String>;
/// Each module with those that it imports.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// The crates: where their sources are, and the name by which a binary beside a library calls it.
const CRATES: [(&str, &str); 5] = [
    ("acctd/src", "acctd"),
    ("acctd-ebpf/src/bin/acctd", "crate"),
    ("xtask/src", "xtask"),
    ("xtask/testkit/src", "testkit"),
    ("xtask/bench/src", "bench"),
];
const MOST_LINES: usize = 500;
const LONGEST_CHAIN: usize = 12;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files below `directory`, by the module that each is.
fn modules(directory: &Path) -> BTreeMap<Module, PathBuf> {
    fn add(directory: &Path, above: &Module, found: &mut BTreeMap<Module, PathBuf>) {
        let has_library = above.is_empty() && directory.join("lib.rs").exists();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let mut module = above.clone();
            if path.is_dir() {
                module.push(name);
                add(&path, &module, found);
            } else if path.extension().is_some_and(|it| it == "rs") && name != "tests" {
                let is_root = name == "mod" || name == "lib" || (name == "main" && !has_library);
                module.extend((!is_root).then_some(name));
                found.insert(module, path);
            }
        }
    }
    let mut found = BTreeMap::new();
    add(directory, &Module::new(), &mut found);
    found
}

/// The paths that a file names, as they are written; those of its tests are left out.
fn paths(tokens: TokenStream, found: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                let attribute = tokens.get(at).map(ToString::to_string).unwrap_or_default();
                if attribute.contains("cfg") && attribute.contains("test") {
                    let is_end = |it: &TokenTree| match it {
                        TokenTree::Punct(punct) => [';', ','].contains(&punct.as_char()),
                        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                        _ => false,
                    };
                    let end = tokens[at..].iter().position(is_end);
                    at = end.map_or(tokens.len(), |end| at + end + 1);
                }
            }
            TokenTree::Group(group) => paths(group.stream(), found),
            TokenTree::Ident(first) => at = path(vec![first.to_string()], &tokens, at, found),
            _ => {}
        }
    }
}

/// Reads on a path that has begun; returns where it ends.
fn path(
    mut path_: Vec<String>,
    tokens: &[TokenTree],
    mut at: usize,
    found: &mut Vec<Vec<String>>,
) -> usize {
    let is_colon =
        |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(it)) if it.as_char() == ':');
    while is_colon(at) && is_colon(at + 1) {
        match tokens.get(at + 2) {
            Some(TokenTree::Ident(next)) => path_.push(next.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let list: Vec<TokenTree> = group.stream().into_iter().collect();
                let is_comma = |it: &TokenTree| it.to_string() == ",";
                for element in list.split(is_comma).filter(|it| !it.is_empty()) {
                    let mut longer = path_.clone();
                    longer.push(element[0].to_string());
                    path(longer, element, 1, found);
                }
                return at + 3;
            }
            Some(TokenTree::Punct(all)) => path_.push(all.to_string()),
            _ => break,
        }
        at += 3;
    }
    found.push(path_);
    at
}

/// Which modules each module imports: those that its paths lead into.
fn imports(modules: &BTreeMap<Module, PathBuf>, name: &str) -> Imports {
    let of = |module: &Module, path: &PathBuf| {
        let mut found = Vec::new();
        let text = fs::read_to_string(path).unwrap();
        paths(text.parse().unwrap(), &mut found);
        let targets = found.into_iter().filter_map(|path| {
            // `pub(super)` is none.
            if path.len() == 1 {
                return None;
            }
            let mut from = match path[0].as_str() {
                "crate" => Module::new(),
                first if first == name => Module::new(),
                "super" => module[..module.len().checked_sub(1)?].to_vec(),
                "self" => module.clone(),
                first => {
                    let child = [module.as_slice(), &[first.to_owned()]].concat();
                    if !modules.contains_key(&child) {
                        return None;
                    }
                    child
                }
            };
            for word in &path[1..] {
                if word == "super" {
                    from.pop();
                    continue;
                }
                from.push(word.clone());
                if !modules.keys().any(|it| it.starts_with(&from)) {
                    from.pop();
                    break;
                }
            }
            (from != *module && !from.is_empty() && modules.contains_key(&from)).then_some(from)
        });
        targets.collect()
    };
    let imports = modules.iter();
    imports
        .map(|(module, path)| (module.clone(), of(module, path)))
        .collect()
}

/// The longest chain of imports from each module on; fails on a circle.
fn chains(imports: &Imports) -> Result<BTreeMap<&Module, Vec<&Module>>, String> {
    fn visit<'i>(
        module: &'i Module,
        imports: &'i Imports,
        above: &mut Vec<&'i Module>,
        known: &mut BTreeMap<&'i Module, Vec<&'i Module>>,
    ) -> Result<Vec<&'i Module>, String> {
        if let Some(at) = above.iter().position(|it| *it == module) {
            let circle = above[at..].iter().chain([&module]);
            let names: Vec<String> = circle.map(|it| it.join("/")).collect();
            return Err(format!("a circle of imports: {}", names.join(" -> ")));
        }
        if let Some(chain) = known.get(module) {
            return Ok(chain.clone());
        }
        above.push(module);
        let mut longest = Vec::new();
        for next in imports.get(module).into_iter().flatten() {
            let chain = visit(next, imports, above, known)?;
            if chain.len() > longest.len() {
                longest = chain;
            }
        }
        above.pop();
        longest.insert(0, module);
        known.insert(module, longest.clone());
        Ok(longest)
    }
    let mut known = BTreeMap::new();
    for module in imports.keys() {
        visit(module, imports, &mut Vec::new(), &mut known)?;
    }
    Ok(known)
}

#[test]
fn imports_go_down() {
    for (directory, name) in CRATES {
        let modules = modules(&root().join(directory));
        let imports = imports(&modules, name);
        let n_imports: usize = imports.values().map(BTreeSet::len).sum();
        assert!(n_imports >= 4, "{directory}: {n_imports} imports");
        let chains = chains(&imports).unwrap_or_else(|circle| panic!("{directory}: {circle}"));
        let longest = chains.values().max_by_key(|chain| chain.len()).unwrap();
        let names: Vec<String> = longest.iter().map(|it| it.join("/")).collect();
        assert!(
            names.len() <= LONGEST_CHAIN,
            "{directory}: a chain of {} imports: {}",
            names.len(),
            names.join(" -> ")
        );
    }
}

/// The map in ARCHITECTURE.md has the folders in order.
#[test]
fn folders_of_acctd_import_only_those_below_them_on_the_map() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = map.lines().filter_map(|line| line.strip_prefix("| `"));
    let folders: Vec<&str> = rows
        .filter_map(|row| row.split_once("/`"))
        .map(|it| it.0)
        .collect();
    let place = |module: &Module| folders.iter().position(|it| *it == module[0]);
    let modules = modules(&root().join("acctd/src"));
    for (module, imported) in imports(&modules, "acctd") {
        let is_folder = module
            .first()
            .is_some_and(|it| root().join("acctd/src").join(it).is_dir());
        if !is_folder {
            continue;
        }
        let own = place(&module);
        assert!(own.is_some(), "{} is not on the map", module.join("/"));
        for other in imported.iter().filter(|it| it[0] != module[0]) {
            // A file beside the folders is for all.
            let is_below = place(other).is_none_or(|other| Some(other) > own);
            assert!(is_below, "{} imports {}", module.join("/"), other.join("/"));
        }
    }
}

#[test]
fn a_circle_is_found() {
    let sources = [
        ("a", "use crate::b::{self, c::{D, E}};"),
        (
            "b",
            "#[cfg(test)] mod tests { use crate::a::X; } fn f() { super::d::g(); }",
        ),
        ("b/c", "use std::fmt;"),
        ("d", "fn g() { assert!(crate::a::h()); }"),
    ];
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("b")).unwrap();
    for (name, text) in sources {
        fs::write(directory.path().join(name).with_extension("rs"), text).unwrap();
    }
    let found = imports(&modules(directory.path()), "crate");
    let error = chains(&found).unwrap_err();
    assert_eq!(error, "a circle of imports: a -> b -> d -> a");
    fs::write(directory.path().join("d.rs"), "fn g() {}").unwrap();
    let found = imports(&modules(directory.path()), "crate");
    let chains = chains(&found).unwrap();
    assert_eq!(chains[&vec!["a".to_owned()]].len(), 3);
}

#[test]
fn files_are_short() {
    let mut lengths = Vec::new();
    for (directory, _) in CRATES {
        for path in modules(&root().join(directory)).into_values() {
            let n_lines = fs::read_to_string(&path).unwrap().lines().count();
            assert!(n_lines <= MOST_LINES, "{}: {n_lines} lines", path.display());
            lengths.push(n_lines);
        }
    }
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median <= 200, "half of the files have over {median} lines");
}
