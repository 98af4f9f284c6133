//! Patterns: `matches`, `find`, `findAll`.

use super::go_regex::compile;
use super::{Overload, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Opaque, Text, Value};
use std::any::Any;

pub(super) static TABLE: &[Overload] = &[
    Overload::new("matches", "string::matches(string) -> bool", Cost::Pattern, matches),
    Overload::new("matches", "matches(string, string) -> bool", Cost::One, matches),
    Overload::new("find", "string::find(string) -> string", Cost::Find, find),
    Overload::new("findAll", "string::findAll(string) -> list(string)", Cost::Find, find_all),
    Overload::new("findAll", "string::findAll(string, int) -> list(string)", Cost::Find, find_all),
];

/// A compiled pattern; takes the place of a constant pattern's text in a program.
#[derive(Debug)]
pub(crate) struct Regex {
    text: String,
    regex: regex::Regex,
}

impl Regex {
    pub fn new(text: &str) -> Result<Self, String> {
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

/// Runs with the pattern at place 1, compiled already where it is constant.
fn with_pattern<T>(args: &[Value<'_>], run: impl FnOnce(&regex::Regex) -> T) -> Result<T, String> {
    match (args.get(1), args.get(1).and_then(|pattern| pattern.as_opaque::<Regex>())) {
        (_, Some(regex)) => Ok(run(&regex.regex)),
        (Some(Value::String(pattern)), None) => match compile(pattern) {
            Ok(regex) => Ok(run(&regex)),
            Err(why) => Err(format!("error parsing regexp: {why}")),
        },
        _ => Err("no such overload".into()),
    }
}

fn illegal(why: String) -> EvalError {
    EvalError::new(format!("Illegal regex: {why}"))
}

fn matches<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let subject = text(args, 0)?;
    with_pattern(args, |regex| Value::Bool(regex.is_match(subject))).map_err(EvalError::new)
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
    let found = with_pattern(args, |regex| regex.find(subject).map(|found| found.range())).map_err(illegal)?;
    Ok(part(&args[0], found.unwrap_or(0..0)))
}

fn find_all<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let subject = text(args, 0)?;
    let limit = if args.len() > 2 { super::int(args, 2)? } else { -1 };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let ranges =
        |regex: &regex::Regex| regex.find_iter(subject).take(limit).map(|found| found.range()).collect::<Vec<_>>();
    let found = with_pattern(args, ranges).map_err(illegal)?;
    Ok(Value::list(found.into_iter().map(|range| part(&args[0], range)).collect()))
}
