//! Compares the loaded rules with the needed ones.

/// A line for each rule that is needed and not loaded, or loaded and not needed.
pub(super) fn compare(needed: &[String], loaded: &[String]) -> Vec<String> {
    let mut left = loaded.to_vec();
    let mut differences = Vec::new();
    for line in needed {
        match left.iter().position(|other| other == line) {
            Some(at) => drop(left.remove(at)),
            None => differences.push(format!("missing: {line}")),
        }
    }
    differences.extend(left.iter().map(|line| format!("not needed: {line}")));
    differences
}
