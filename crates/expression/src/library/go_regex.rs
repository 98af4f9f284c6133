//! Go's syntax of patterns on the `regex` crate: what is written differently, and the words Go refuses a pattern with.

use regex::RegexBuilder;

/// The largest compiled pattern in bytes.
const MAX_PATTERN: usize = 2 << 20;

/// Compiles a pattern that is written in Go's syntax, or says what is wrong as Go does: ``missing closing ]: `[` ``.
pub fn compile(pattern: &str) -> Result<regex::Regex, String> {
    let translated = translate(pattern)?;
    RegexBuilder::new(&translated).size_limit(MAX_PATTERN).build().map_err(|error| reason(pattern, &error))
}

/// Go's `\d`, `\w`, `\s` and `\b` know ASCII only, `\Q...\E` is text, and repetitions are not repeated.
fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars();
    // Where the last repetition began; what may be repeated is empty.
    let mut repetition: Option<usize> = None;
    while let Some(c) = chars.next() {
        let at = pattern.len() - chars.as_str().len() - c.len_utf8();
        match c {
            '\\' => escape(&mut out, &mut chars, false),
            '[' => class(&mut out, &mut chars, &pattern[at..])?,
            '*' | '+' | '?' => {
                out.push(c);
                let lazy = chars.as_str().starts_with('?');
                if let Some(before) = repetition {
                    return Err(format!("invalid nested repetition operator: `{}`", &pattern[before..=at]));
                }
                if lazy {
                    chars.next();
                    out.push('?');
                }
                repetition = Some(at);
                continue;
            }
            _ => out.push(c),
        }
        repetition = None;
    }
    Ok(out)
}

/// A class from after its `[` to its `]`.
fn class(out: &mut String, chars: &mut std::str::Chars<'_>, whole: &str) -> Result<(), String> {
    out.push('[');
    if let Some(rest) = chars.as_str().strip_prefix('^') {
        out.push('^');
        *chars = rest.chars();
    }
    // A `]` that comes first is a character of the class.
    if let Some(rest) = chars.as_str().strip_prefix(']') {
        out.push_str("\\]");
        *chars = rest.chars();
    }
    while let Some(c) = chars.next() {
        match c {
            ']' => {
                out.push(']');
                return Ok(());
            }
            '\\' => escape(out, chars, true),
            '[' if chars.as_str().starts_with(':') => match chars.as_str().split_once(":]") {
                Some((name, rest)) => {
                    out.push('[');
                    out.push_str(name);
                    out.push_str(":]");
                    *chars = rest.chars();
                }
                None => out.push_str("\\["),
            },
            // Operators of the crate's classes that are plain characters in Go's.
            '[' | '&' | '~' => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    Err(format!("missing closing ]: `{whole}`"))
}

fn escape(out: &mut String, chars: &mut std::str::Chars<'_>, in_class: bool) {
    match chars.next() {
        Some('d') => out.push_str(if in_class { "0-9" } else { "[0-9]" }),
        Some('D') => out.push_str("[^0-9]"),
        Some('w') => out.push_str(if in_class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
        Some('W') => out.push_str("[^0-9A-Za-z_]"),
        Some('s') => out.push_str(if in_class { "\\t\\n\\f\\r " } else { "[\\t\\n\\f\\r ]" }),
        Some('S') => out.push_str("[^\\t\\n\\f\\r ]"),
        Some('b') if !in_class => out.push_str("(?-u:\\b)"),
        Some('B') if !in_class => out.push_str("(?-u:\\B)"),
        Some('Q') => {
            let rest = chars.as_str();
            let (quoted, after) = rest.split_once("\\E").unwrap_or((rest, ""));
            out.push_str(&regex::escape(quoted));
            *chars = after.chars();
        }
        Some(c) => {
            out.push('\\');
            out.push(c);
        }
        None => out.push('\\'),
    }
}

/// What the crate says, in Go's words where they are known.
fn reason(pattern: &str, error: &regex::Error) -> String {
    let text = error.to_string();
    let said = text.lines().last().unwrap_or_default().trim_start_matches("error: ").trim();
    match said {
        "unopened group" => format!("unexpected ): `{pattern}`"),
        "unclosed group" => format!("missing closing ): `{pattern}`"),
        "repetition operator missing expression" => {
            let at = pattern.find(['*', '+', '?']).unwrap_or(0);
            format!("missing argument to repetition operator: `{}`", pattern.get(at..at + 1).unwrap_or_default())
        }
        "incomplete escape sequence, reached end of pattern prematurely" => {
            "trailing backslash at end of expression: ``".into()
        }
        "unrecognized escape sequence" => format!("invalid escape sequence: `{}`", unknown_escape(pattern)),
        "invalid character class range, the start must be <= the end" => {
            format!("invalid character class range: `{pattern}`")
        }
        _ if text.contains("exceeds size limit") => format!("expression too large: `{pattern}`"),
        _ if said.contains("look-around") => format!("invalid or unsupported Perl syntax: `{}`", look_around(pattern)),
        _ => format!("{said}: `{pattern}`"),
    }
}

fn unknown_escape(pattern: &str) -> &str {
    let known =
        |c: char| c.is_ascii_punctuation() || "aAbBCdDefEnpPQrsStvwWxzZ".contains(c) || ('0'..='7').contains(&c);
    let mut rest = pattern;
    while let Some(at) = rest.find('\\') {
        let Some(c) = rest[at + 1..].chars().next() else { break };
        if !known(c) {
            return &rest[at..at + 1 + c.len_utf8()];
        }
        rest = &rest[at + 1 + c.len_utf8()..];
    }
    pattern
}

fn look_around(pattern: &str) -> &str {
    let found = ["(?=", "(?!", "(?<"].iter().filter_map(|mark| pattern.find(mark)).min();
    found.and_then(|at| pattern.get(at..at + 3)).unwrap_or(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches() {
        #[track_caller]
        fn check(pattern: &str, text: &str, expect: bool) {
            assert_eq!(compile(pattern).unwrap().is_match(text), expect);
        }
        check(r"^\d+$", "12", true);
        check(r"^\d+$", "\u{661}", false);
        check(r"^[\w-]+$", "a-b_1", true);
        check(r"^[[:alpha:]]+$", "abc", true);
        check(r"^[]a]+$", "]a", true);
        check(r"^[^]a]+$", "b]", false);
        check(r"^\Qa.b\E$", "a.b", true);
        check(r"^\Qa.b\E$", "axb", false);
        check(r"^[a&&b]+$", "&", true);
        check(r"^a+?b*?$", "aab", true);
    }

    #[test]
    fn refusals() {
        for (pattern, expect) in [
            ("[", "missing closing ]: `[`"),
            ("a[b", "missing closing ]: `[b`"),
            (")", "unexpected ): `)`"),
            ("(a", "missing closing ): `(a`"),
            ("*a", "missing argument to repetition operator: `*`"),
            ("x++", "invalid nested repetition operator: `++`"),
            (r"\y", r"invalid escape sequence: `\y`"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ] {
            assert_eq!(compile(pattern).err().as_deref(), Some(expect));
        }
    }
}
