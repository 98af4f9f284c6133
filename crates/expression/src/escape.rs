//! Property names as CEL identifiers: `__dot__`, `__dash__`, `__slash__`, reserved words.

use std::borrow::Cow;

const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
const SYMBOLS: [(&str, &str); 4] = [("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];

/// Whether CEL keeps the word for itself, so that it cannot be an identifier.
pub fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// The identifier by which a property is reached; `None` when there is no way to write it.
pub fn escape(name: &str) -> Option<Cow<'_, str>> {
    let first = *name.as_bytes().first()?;
    if first.is_ascii_digit() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-/".contains(&b)) {
        return None;
    }
    if is_reserved(name) {
        return Some(format!("__{name}__").into());
    }
    if !name.contains("__") && !name.contains(['.', '-', '/']) {
        return Some(name.into());
    }
    let mut out = String::with_capacity(name.len() + 16);
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let symbol = SYMBOLS.iter().find(|(_, plain)| rest.starts_with(plain));
        let (text, length) =
            symbol.map_or((&rest[..c.len_utf8()], c.len_utf8()), |(escaped, plain)| (*escaped, plain.len()));
        out.push_str(text);
        rest = &rest[length..];
    }
    Some(out.into())
}

/// The property an identifier stands for; `None` when the identifier is no escape of anything.
pub(crate) fn unescape(ident: &str) -> Option<Cow<'_, str>> {
    if !ident.contains("__") {
        return Some(ident.into());
    }
    if let Some(word) = ident.strip_prefix("__").and_then(|i| i.strip_suffix("__"))
        && is_reserved(word)
    {
        return Some(word.into());
    }
    let mut out = String::with_capacity(ident.len());
    let mut rest = ident;
    while let Some(c) = rest.chars().next() {
        if let Some((escaped, plain)) = SYMBOLS.iter().find(|(escaped, _)| rest.starts_with(escaped)) {
            out.push_str(plain);
            rest = &rest[escaped.len()..];
        } else if rest.starts_with("__") {
            return None;
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        #[track_caller]
        fn check(name: &str, expect: Option<&str>) {
            assert_eq!(escape(name).as_deref(), expect);
            if let Some(ident) = expect {
                assert_eq!(unescape(ident).as_deref(), Some(name));
            }
        }
        check("a", Some("a"));
        check("namespace", Some("__namespace__"));
        check("a.b-c/d", Some("a__dot__b__dash__c__slash__d"));
        check("x__y", Some("x__underscores__y"));
        check("__a", Some("__underscores__a"));
        check("a$", None);
        check("1a", None);
        check("", None);
    }
}
