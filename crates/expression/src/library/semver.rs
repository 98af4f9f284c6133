//! Semantic versions: `semver('1.2.3-rc.1')`.

use super::{Overload, opaque, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Opaque, Value};
use std::any::Any;
use std::cmp::Ordering;

pub(super) static TABLE: &[Overload] = &[
    Overload::new("semver", "semver(string) -> kubernetes.Semver", Cost::Traversal(1), semver),
    Overload::new("semver", "semver(string, bool) -> kubernetes.Semver", Cost::Traversal(1), semver),
    Overload::new("isSemver", "isSemver(string) -> bool", Cost::Traversal(1), is_semver),
    Overload::new("isSemver", "isSemver(string, bool) -> bool", Cost::Traversal(1), is_semver),
    Overload::new(
        "isGreaterThan",
        "kubernetes.Semver::isGreaterThan(kubernetes.Semver) -> bool",
        Cost::One,
        is_greater_than,
    ),
    Overload::new("isLessThan", "kubernetes.Semver::isLessThan(kubernetes.Semver) -> bool", Cost::One, is_less_than),
    Overload::new("compareTo", "kubernetes.Semver::compareTo(kubernetes.Semver) -> int", Cost::One, compare_to),
    Overload::new("major", "kubernetes.Semver::major() -> int", Cost::One, |args| part(args, 0)),
    Overload::new("minor", "kubernetes.Semver::minor() -> int", Cost::One, |args| part(args, 1)),
    Overload::new("patch", "kubernetes.Semver::patch() -> int", Cost::One, |args| part(args, 2)),
];

#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    numbers: [u64; 3],
    pre: Vec<Part>,
}

/// A part of what follows `-`; numbers come before texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Text(String),
}

impl Version {
    fn compare(&self, other: &Self) -> Ordering {
        let pre = match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self.pre.cmp(&other.pre),
        };
        self.numbers.cmp(&other.numbers).then(pre)
    }
}

impl Opaque for Version {
    fn type_name(&self) -> &'static str {
        "kubernetes.Semver"
    }

    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| self.compare(other) == Ordering::Equal)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A version as a value, for callers whose data hold versions; `None` when the text is none.
pub fn value(text: &str) -> Option<Value<'static>> {
    parse(text).ok().map(Value::opaque)
}

fn parse(text: &str) -> Result<Version, String> {
    if text.is_empty() {
        return Err("Version string empty".into());
    }
    let parts: Vec<&str> = text.splitn(3, '.').collect();
    let [major, minor, rest] = parts[..] else { return Err("No Major.Minor.Patch elements found".into()) };
    let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
    let (patch, pre) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
    let numbers =
        [number(major, "major", "Major")?, number(minor, "minor", "Minor")?, number(patch, "patch", "Patch")?];
    let pre = pre.map(|pre| pre.split('.').map(pre_part).collect()).transpose()?.unwrap_or_default();
    for part in build.into_iter().flat_map(|build| build.split('.')) {
        if part.is_empty() {
            return Err("Build meta data is empty".into());
        }
        if !part.bytes().all(is_part_byte) {
            return Err(format!("Invalid character(s) found in build meta data {part:?}"));
        }
    }
    Ok(Version { numbers, pre })
}

fn is_part_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-'
}

fn number(text: &str, name: &str, title: &str) -> Result<u64, String> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {name} number {text:?}"));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{title} number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| match text.is_empty() {
        true => format!("strconv.ParseUint: parsing {text:?}: invalid syntax"),
        false => format!("strconv.ParseUint: parsing {text:?}: value out of range"),
    })
}

fn pre_part(text: &str) -> Result<Part, String> {
    if text.is_empty() {
        return Err("Prerelease is empty".into());
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        if text.len() > 1 && text.starts_with('0') {
            return Err(format!("Numeric PreRelease version must not contain leading zeroes {text:?}"));
        }
        return text
            .parse()
            .map(Part::Number)
            .map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"));
    }
    match text.bytes().all(is_part_byte) {
        true => Ok(Part::Text(text.to_owned())),
        false => Err(format!("Invalid character(s) found in prerelease {text:?}")),
    }
}

/// As [`parse`], taking `v1.2` and `01.2.3` too.
fn parse_normalized(text: &str) -> Result<Version, String> {
    let mut parts: Vec<String> = text.strip_prefix('v').unwrap_or(text).splitn(3, '.').map(without_zeros).collect();
    if parts.len() < 3 {
        if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".into());
        }
        parts.resize(3, "0".into());
    }
    parse(&parts.join("."))
}

fn without_zeros(part: &str) -> String {
    if part.len() < 2 {
        return part.to_owned();
    }
    let trimmed = part.trim_start_matches('0');
    if trimmed.starts_with(|c: char| c.is_ascii_digit()) { trimmed.to_owned() } else { format!("0{trimmed}") }
}

fn read(args: &[Value<'_>]) -> Result<Result<Version, String>, EvalError> {
    let text = text(args, 0)?;
    Ok(if args.get(1).and_then(Value::as_bool) == Some(true) { parse_normalized(text) } else { parse(text) })
}

fn semver<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    read(args)?.map(Value::opaque).map_err(EvalError::new)
}

fn is_semver<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(read(args)?.is_ok()))
}

fn order(args: &[Value<'_>]) -> Result<Ordering, EvalError> {
    Ok(opaque::<Version>(args, 0)?.compare(opaque::<Version>(args, 1)?))
}

fn is_greater_than<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(order(args)?.is_gt()))
}

fn is_less_than<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(order(args)?.is_lt()))
}

fn compare_to<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Int(order(args)? as i64))
}

fn part<'a>(args: &[Value<'a>], index: usize) -> Result<Value<'a>, EvalError> {
    Ok(Value::Int(i64::try_from(opaque::<Version>(args, 0)?.numbers[index]).unwrap_or(i64::MAX)))
}
