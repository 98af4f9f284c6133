//! `$(VAR)` references in commands, arguments, environment values and subPathExpr.

use std::collections::BTreeSet;

/// Replaces `$(name)` by what `lookup` gives (or leaves it as written) and `$$` by `$`.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// As [`expand`], but names the references that nothing defines.
pub fn expand_strict(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, BTreeSet<String>> {
    let missing = std::cell::RefCell::new(BTreeSet::new());
    let out = expand(text, |name| {
        let value = lookup(name);
        if value.is_none() {
            missing.borrow_mut().insert(name.to_owned());
        }
        value
    });
    let missing = missing.into_inner();
    if missing.is_empty() { Ok(out) } else { Err(missing) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_and_escape() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        let table = [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("$$$(A)", "$1"),
            ("", ""),
        ];
        for (text, want) in table {
            assert_eq!(expand(text, lookup), want, "{text}");
        }
        assert_eq!(expand_strict("$(A)/$(B)", lookup), Err(BTreeSet::from(["B".to_owned()])));
    }
}
