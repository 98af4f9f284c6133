//! Patterns: `matches`, `find`, `findAll`. The syntax is Go's: classes such as `\d` mean ASCII.

use super::{Overload, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Opaque, Text, Value};
use regex::RegexBuilder;
use std::any::Any;

pub(super) static TABLE: &[Overload] = &[
    Overload::new("matches", "string::matches(string) -> bool", Cost::Pattern, matches),
    Overload::new("matches", "matches(string, string) -> bool", Cost::One, matches),
    Overload::new("find", "string::find(string) -> string", Cost::Find, find),
    Overload::new("findAll", "string::findAll(string) -> list(string)", Cost::Find, find_all),
    Overload::new("findAll", "string::findAll(string, int) -> list(string)", Cost::Find, find_all),
];

/// The largest compiled pattern in bytes.
const MAX_PATTERN: usize = 2 << 20;

/// A compiled pattern; takes the place of a constant pattern's text in a program.
#[derive(Debug)]
pub struct Regex {
    text: String,
    regex: regex::Regex,
}

/// Compiles a pattern that is written in Go's syntax.
pub fn compile(pattern: &str) -> Result<regex::Regex, regex::Error> {
    RegexBuilder::new(&ascii_classes(pattern)).size_limit(MAX_PATTERN).build()
}

impl Regex {
    pub(crate) fn new(text: &str) -> Result<Self, regex::Error> {
        Ok(Self { text: text.to_owned(), regex: compile(text)? })
    }
}

impl Opaque for Regex {
    /// It stands for its text.
    fn type_name(&self) -> &'static str {
        "string"
    }

    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| other.text == self.text)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn size(&self) -> u64 {
        self.text.chars().count() as u64
    }

    fn text(&self) -> Option<String> {
        Some(self.text.clone())
    }
}

/// Go's `\d`, `\w`, `\s` and `\b` know ASCII only, and `\Q...\E` is text.
fn ascii_classes(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => escape(&mut out, &mut chars, in_class),
            '[' if in_class && !chars.as_str().starts_with(':') => out.push_str("\\["),
            '[' => {
                in_class = true;
                out.push(c);
                open_class(&mut out, &mut chars);
            }
            ']' => {
                in_class = false;
                out.push(c);
            }
            // Operators of Rust's classes that are plain characters in Go's.
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
        if c == '[' && out.ends_with("[:") {
            in_class = true;
        }
    }
    out
}

/// A `]` that comes first in a class is a character of it.
fn open_class(out: &mut String, chars: &mut std::str::Chars<'_>) {
    if let Some(rest) = chars.as_str().strip_prefix('^') {
        out.push('^');
        *chars = rest.chars();
    }
    if let Some(rest) = chars.as_str().strip_prefix(']') {
        out.push_str("\\]");
        *chars = rest.chars();
    }
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

/// Runs with the pattern at place 1, compiled already where it is constant.
fn with_pattern<'a, T>(args: &[Value<'a>], run: impl FnOnce(&regex::Regex) -> T) -> Result<T, EvalError> {
    match args.get(1) {
        Some(value @ Value::Opaque(_)) => {
            value.as_opaque::<Regex>().map(|regex| run(&regex.regex)).ok_or_else(EvalError::no_such_overload)
        }
        Some(Value::String(pattern)) => {
            let regex = compile(pattern)
                .map_err(|error| EvalError::new(format!("error parsing regexp: {}", reason(&error))))?;
            Ok(run(&regex))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

/// The last line of the regex crate's explanation.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

fn matches<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let subject = text(args, 0)?;
    with_pattern(args, |regex| Value::Bool(regex.is_match(subject)))
}

/// A part of a text, which is not copied where the text is borrowed.
fn part<'a>(of: &Value<'a>, range: std::ops::Range<usize>) -> Value<'a> {
    match of {
        Value::String(Text::Borrowed(text)) => Value::String(Text::Borrowed(text.get(range).unwrap_or_default())),
        other => Value::text(other.as_str().and_then(|text| text.get(range)).unwrap_or_default()),
    }
}

fn find<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let subject = text(args, 0)?;
    let found = with_pattern(args, |regex| regex.find(subject).map(|found| found.range()))?;
    Ok(part(&args[0], found.unwrap_or(0..0)))
}

fn find_all<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let subject = text(args, 0)?;
    let limit = if args.len() > 2 { super::int(args, 2)? } else { -1 };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = with_pattern(args, |regex| {
        regex.find_iter(subject).take(limit).map(|found| found.range()).collect::<Vec<_>>()
    })?;
    Ok(Value::list(found.into_iter().map(|range| part(&args[0], range)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_syntax() {
        #[track_caller]
        fn check(pattern: &str, text: &str, expect: bool) {
            assert_eq!(compile(pattern).unwrap().is_match(text), expect);
        }
        check(r"^\d+$", "12", true);
        check(r"^\d+$", "\u{0661}", false);
        check(r"^[\w-]+$", "a-b_1", true);
        check(r"^[[:alpha:]]+$", "abc", true);
        check(r"^[]a]+$", "]a", true);
        check(r"^[^]a]+$", "b]", false);
        check(r"^\Qa.b\E$", "a.b", true);
        check(r"^\Qa.b\E$", "axb", false);
        check(r"^[a&&b]+$", "&", true);
    }
}
