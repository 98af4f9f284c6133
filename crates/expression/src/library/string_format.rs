//! `'...'.format([...])`: printf-like clauses, with the numbers of the locale `en_US`.

use super::{Overload, lists, text};
use crate::collection::{List, Map};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::number;
use crate::time;
use crate::types::Type;
use crate::value::Value;

pub(super) static TABLE: &[Overload] =
    &[Overload::new("format", "string::format(list(dyn)) -> string", Cost::Traversal(1), format)];

/// The longest text that is made; shared parts make a small list print long.
const MAX_LENGTH: usize = 1_000_000;
/// The precision of `%f` and `%e` without one.
const PRECISION: usize = 6;
const MAX_PRECISION: usize = 1000;

fn format<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (template, values) = (text(args, 0)?, lists::list(args, 1)?);
    let mut out = Output(String::with_capacity(template.len()));
    let mut parts = Parts(template);
    let mut next = 0;
    while let Some((before, clause)) = parts.next_part() {
        out.push(before)?;
        let Some(clause) = clause else { continue };
        let value = values.get(next).ok_or_else(|| EvalError::new(out_of_range(next)))??;
        let clause = clause.map_err(EvalError::new)?;
        clause_text(&mut out, &clause, &value)
            .map_err(|error| if error.is_absorbable() { wrapped(&error) } else { error })?;
        next += 1;
    }
    Ok(Value::text(out.0))
}

fn out_of_range(index: usize) -> String {
    format!("index {index} out of range")
}

/// Checks a constant template against the types of its arguments: the error and the argument it concerns, if one.
pub(crate) fn check(template: &str, types: &[&Type]) -> Result<(), (Option<usize>, String)> {
    let mut parts = Parts(template);
    let mut next = 0;
    while let Some((_, clause)) = parts.next_part() {
        let Some(clause) = clause else { continue };
        let t = types.get(next).ok_or_else(|| (None, out_of_range(next)))?;
        let clause = clause.map_err(|why| (None, why))?;
        if !takes(clause.verb, t) {
            let why = format!("error during formatting: {}, was given {}", demand(clause.verb), t.name());
            return Err((Some(next), why));
        }
        next += 1;
    }
    if types.len() > next {
        let given = types.len();
        return Err((None, format!("too many arguments supplied to string.format (expected {next}, got {given})")));
    }
    Ok(())
}

fn takes(verb: char, t: &Type) -> bool {
    match (verb, t) {
        (_, Type::Dyn | Type::Any | Type::Error) => true,
        ('s', Type::Optional(_) | Type::Object(_) | Type::Opaque(_)) => false,
        ('s', _) => true,
        ('d' | 'o' | 'b' | 'x' | 'X', Type::Int | Type::Uint) => true,
        ('b', Type::Bool) | ('x' | 'X', Type::String | Type::Bytes) => true,
        ('f' | 'e', Type::Double | Type::String) => true,
        _ => false,
    }
}

/// What a clause wants.
fn demand(verb: char) -> &'static str {
    match verb {
        'd' => "decimal clause can only be used on integers",
        'f' => "fixed-point clause can only be used on doubles",
        'e' => "scientific clause can only be used on doubles",
        'b' => "only integers and bools can be formatted as binary",
        'o' => "octal clause can only be used on integers",
        'x' | 'X' => "only integers, byte buffers, and strings can be formatted as hex",
        _ => {
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
        }
    }
}

fn wrapped(error: &EvalError) -> EvalError {
    EvalError::new(format!("error during formatting: {error}"))
}

struct Clause {
    verb: char,
    precision: usize,
}

/// What is left of a template.
struct Parts<'t>(&'t str);

/// Text, and the clause after it, or why there is none.
type Part<'t> = (&'t str, Option<Result<Clause, String>>);

impl<'t> Parts<'t> {
    fn next_part(&mut self) -> Option<Part<'t>> {
        if self.0.is_empty() {
            return None;
        }
        let Some(at) = self.0.find('%') else { return Some((std::mem::take(&mut self.0), None)) };
        let (before, after) = (&self.0[..at], &self.0[at + 1..]);
        if let Some(rest) = after.strip_prefix('%') {
            let shown = &self.0[..=at];
            self.0 = rest;
            return Some((shown, None));
        }
        let clause = clause(after);
        self.0 = clause.as_ref().map_or("", |(_, rest)| rest);
        Some((before, Some(clause.map(|(clause, _)| clause))))
    }
}

fn clause(rest: &str) -> Result<(Clause, &str), String> {
    let unparsed = |why: String| format!("could not parse formatting clause: {why}");
    let (precision, rest) = match rest.strip_prefix('.') {
        None => (PRECISION, rest),
        Some(after) => {
            let end = after.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| {
                unparsed("error while parsing precision: could not find end of precision specifier".into())
            })?;
            let digits = &after[..end];
            let precision: usize = digits.parse().map_err(|_| {
                let why = format!("strconv.Atoi: parsing {digits:?}: invalid syntax");
                unparsed(format!("error while parsing precision: error while converting precision to integer: {why}"))
            })?;
            (MAX_PRECISION.min(precision), &after[end..])
        }
    };
    let verb = rest.chars().next().ok_or("unexpected end of string")?;
    if !"sdfebxXo".contains(verb) {
        return Err(unparsed(format!("unrecognized formatting clause \"{verb}\"")));
    }
    Ok((Clause { verb, precision }, &rest[verb.len_utf8()..]))
}

struct Output(String);

impl Output {
    fn push(&mut self, text: &str) -> Result<(), EvalError> {
        self.0.push_str(text);
        if self.0.len() > MAX_LENGTH { Err(EvalError::CostLimitExceeded) } else { Ok(()) }
    }
}

fn clause_text(out: &mut Output, clause: &Clause, value: &Value<'_>) -> Result<(), EvalError> {
    let text = match (clause.verb, value) {
        ('s', _) => return print(out, value),
        ('d', Value::Int(i)) => Some(i.to_string()),
        ('d', Value::Uint(u)) => Some(u.to_string()),
        ('f', _) => double(value).map(|d| fixed(d, clause.precision)),
        ('e', _) => double(value).map(|d| scientific(d, clause.precision)),
        ('b', Value::Int(i)) => Some(signed(*i, format!("{:b}", i.unsigned_abs()))),
        ('b', Value::Uint(u)) => Some(format!("{u:b}")),
        ('b', Value::Bool(b)) => Some(u8::from(*b).to_string()),
        ('o', Value::Int(i)) => Some(signed(*i, format!("{:o}", i.unsigned_abs()))),
        ('o', Value::Uint(u)) => Some(format!("{u:o}")),
        ('x', _) => hex(value),
        ('X', _) => hex(value).map(|text| text.to_uppercase()),
        _ => None,
    };
    out.push(&text.ok_or_else(|| unfit(clause.verb, value))?)
}

fn unfit(verb: char, value: &Value<'_>) -> EvalError {
    EvalError::new(format!("{}, was given {}", demand(verb), value.type_name()))
}

fn signed(i: i64, digits: String) -> String {
    if i < 0 { format!("-{digits}") } else { digits }
}

fn hex(value: &Value<'_>) -> Option<String> {
    let bytes = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
    match value {
        Value::Int(i) => Some(signed(*i, format!("{:x}", i.unsigned_abs()))),
        Value::Uint(u) => Some(format!("{u:x}")),
        Value::String(text) => Some(bytes(text.as_bytes())),
        Value::Bytes(b) => Some(bytes(b)),
        _ => None,
    }
}

fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(d) => Some(*d),
        Value::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn special(d: f64) -> Option<&'static str> {
    match d {
        d if d.is_nan() => Some("NaN"),
        d if d.is_infinite() => Some(if d > 0.0 { "\u{221e}" } else { "-\u{221e}" }),
        _ => None,
    }
}

fn fixed(d: f64, precision: usize) -> String {
    if let Some(text) = special(d) {
        return text.into();
    }
    let plain = format!("{d:.precision$}");
    let (whole, fraction) = plain.split_once('.').map_or((plain.as_str(), ""), |(w, f)| (w, f));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { format!("{sign}{grouped}") } else { format!("{sign}{grouped}.{fraction}") }
}

fn scientific(d: f64, precision: usize) -> String {
    if let Some(text) = special(d) {
        return text.into();
    }
    let plain = format!("{d:.precision$e}");
    let (mantissa, exponent) = plain.split_once('e').unwrap_or((&plain, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(("", exponent), |digits| ("\u{207b}", digits));
    let raised: String = format!("{digits:0>2}").chars().map(superscript).collect();
    format!("{mantissa}\u{d7}10{sign}{raised}")
}

fn superscript(digit: char) -> char {
    match digit {
        '1' => '\u{b9}',
        '2' => '\u{b2}',
        '3' => '\u{b3}',
        other => other.to_digit(10).and_then(|d| char::from_u32(0x2070 + d)).unwrap_or(other),
    }
}

/// `%s`
fn print(out: &mut Output, value: &Value<'_>) -> Result<(), EvalError> {
    match value {
        Value::List(list) => print_list(out, list),
        Value::Map(map) => print_map(out, map),
        _ => out.push(&scalar(value)?),
    }
}

fn scalar(value: &Value<'_>) -> Result<String, EvalError> {
    Ok(match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Uint(u) => u.to_string(),
        Value::Double(d) => number::show_double(*d),
        Value::String(text) => text.to_string(),
        Value::Bytes(bytes) => std::str::from_utf8(bytes)
            .map_err(|_| EvalError::new("invalid UTF-8 in bytes, cannot convert to string"))?
            .to_owned(),
        Value::Timestamp(t) => time::show_timestamp(t),
        Value::Duration(d) => time::show_duration(*d),
        Value::Type(name) => name.to_string(),
        _ => return Err(unfit('s', value)),
    })
}

/// A member of a list or map: as it would be written in an expression.
fn member(out: &mut Output, value: &Value<'_>) -> Result<(), EvalError> {
    match value {
        Value::List(_) | Value::Map(_) => print(out, value),
        Value::String(text) => out.push(&format!("{:?}", &**text)),
        Value::Bytes(_) => out.push(&format!("b{:?}", scalar(value)?)),
        Value::Double(d) => {
            out.push(&special(*d).map_or_else(|| format!("{d:.PRECISION$}"), |text| format!("{text:?}")))
        }
        Value::Timestamp(_) => out.push(&format!("timestamp({:?})", scalar(value)?)),
        Value::Duration(_) => out.push(&format!("duration({:?})", scalar(value)?)),
        Value::Optional(_) | Value::Opaque(_) => {
            Err(EvalError::new(format!("no formatting function for {}", value.type_name())))
        }
        _ => out.push(&scalar(value)?),
    }
}

fn print_list(out: &mut Output, list: &List<'_>) -> Result<(), EvalError> {
    out.push("[")?;
    for (index, item) in list.iter().enumerate() {
        out.push(if index > 0 { ", " } else { "" })?;
        member(out, &item?)?;
    }
    out.push("]")
}

fn print_map(out: &mut Output, map: &Map<'_>) -> Result<(), EvalError> {
    let mut keys = Vec::new();
    for key in map.keys() {
        let mut shown = Output(String::new());
        member(&mut shown, &key)?;
        keys.push((shown.0, key));
    }
    keys.sort_by(|(a, _), (b, _)| a.cmp(b));
    out.push("{")?;
    for (index, (shown, key)) in keys.iter().enumerate() {
        out.push(if index > 0 { ", " } else { "" })?;
        out.push(shown)?;
        out.push(":")?;
        member(out, &map.get(key)?.unwrap_or_default())?;
    }
    out.push("}")
}
