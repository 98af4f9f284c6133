//! Regular expressions of schemas, with Go's words for what is wrong with them.

use super::super::compile;

/// Whether Go would compile a pattern; the error is `error parsing regexp: ...`.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    if let Some(why) = beyond_go(pattern) {
        return Err(format!("error parsing regexp: {why}"));
    }
    compile(pattern).map(drop).map_err(|error| format!("error parsing regexp: {}", go_words(pattern, &error)))
}

/// What this crate's engine and Go's understand differently: Go has no `(?x)`, and repeats at most 1000 times.
fn beyond_go(pattern: &str) -> Option<String> {
    let at = pattern
        .find("(?=")
        .or_else(|| pattern.find("(?!"))
        .or_else(|| pattern.find("(?<!"))
        .or_else(|| pattern.find("(?<="));
    if let Some(at) = at {
        let end = if pattern[at..].starts_with("(?<") { at + 4 } else { at + 3 };
        return Some(format!("invalid or unsupported Perl syntax: `{}`", &pattern[at..end.min(pattern.len())]));
    }
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        let Some(close) = rest[open..].find('}') else { return None };
        let inside = &rest[open + 1..open + close];
        let numbers = inside.split(',').filter(|n| !n.is_empty());
        if numbers.clone().all(|n| n.bytes().all(|b| b.is_ascii_digit()))
            && numbers.clone().any(|n| n.parse::<u32>().map_or(true, |n| n > 1000))
            && numbers.count() > 0
        {
            return Some(format!("invalid repeat count: `{{{inside}}}`"));
        }
        rest = &rest[open + close..];
    }
    None
}

/// The error of the engine in Go's words, where it is one of the frequent ones.
fn go_words(pattern: &str, error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or("").trim().trim_start_matches("error: ").to_owned();
    if text.contains("unclosed character class") {
        let from = pattern.rfind('[').unwrap_or(0);
        return format!("missing closing ]: `{}`", &pattern[from..]);
    }
    if text.contains("unclosed group") {
        return format!("missing closing ): `{pattern}`");
    }
    if text.contains("unopened group") {
        return format!("unexpected ): `{pattern}`");
    }
    if text.contains("repetition operator missing expression") {
        let at = pattern.find(['*', '+', '?']).unwrap_or(0);
        return format!("missing argument to repetition operator: `{}`", &pattern[at..=at]);
    }
    if text.contains("backreferences are not supported") || text.contains("unrecognized escape sequence") {
        let escape = pattern.char_indices().zip(pattern.chars().skip(1));
        let wrong =
            escape.map(|((at, c), next)| (at, c, next)).find(|(_, c, next)| *c == '\\' && next.is_ascii_alphanumeric());
        return wrong.map_or(last, |(_, _, next)| format!("invalid escape sequence: `\\{next}`"));
    }
    if text.contains("invalid character class range") {
        return format!("invalid character class range: `{pattern}`");
    }
    if text.contains("incomplete escape sequence") {
        return "trailing backslash at end of expression: ``".into();
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_in_gos_words() {
        for (pattern, want) in [
            ("^a+$", None),
            ("[", Some("missing closing ]: `[`")),
            ("(a", Some("missing closing ): `(a`")),
            ("a)", Some("unexpected ): `a)`")),
            ("*a", Some("missing argument to repetition operator: `*`")),
            ("a(?=b)", Some("invalid or unsupported Perl syntax: `(?=`")),
            ("a{1001}", Some("invalid repeat count: `{1001}`")),
            ("a{1,3}", None),
            ("\\1", Some("invalid escape sequence: `\\1`")),
        ] {
            let want = want.map(|w| format!("error parsing regexp: {w}"));
            assert_eq!(check(pattern).err(), want, "{pattern}");
        }
    }
}
