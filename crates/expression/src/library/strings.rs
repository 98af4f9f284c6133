//! Texts. Places and lengths count characters.

use super::{Overload, int, lists, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::Value;

pub(super) static TABLE: &[Overload] = &[
    Overload::new("contains", "string::contains(string) -> bool", Cost::Contains, contains),
    Overload::new("startsWith", "string::startsWith(string) -> bool", Cost::Affix, starts_with),
    Overload::new("endsWith", "string::endsWith(string) -> bool", Cost::Affix, ends_with),
    Overload::new("charAt", "string::charAt(int) -> string", Cost::One, char_at),
    Overload::new("indexOf", "string::indexOf(string) -> int", Cost::Elements, index_of),
    Overload::new("indexOf", "string::indexOf(string, int) -> int", Cost::Elements, index_of),
    Overload::new("lastIndexOf", "string::lastIndexOf(string) -> int", Cost::Elements, last_index_of),
    Overload::new("lastIndexOf", "string::lastIndexOf(string, int) -> int", Cost::Elements, last_index_of),
    Overload::new("lowerAscii", "string::lowerAscii() -> string", Cost::Transform(1), lower_ascii),
    Overload::new("upperAscii", "string::upperAscii() -> string", Cost::Transform(1), upper_ascii),
    Overload::new("replace", "string::replace(string, string) -> string", Cost::Replace, replace),
    Overload::new("replace", "string::replace(string, string, int) -> string", Cost::Replace, replace),
    Overload::new("split", "string::split(string) -> list(string)", Cost::Split, split),
    Overload::new("split", "string::split(string, int) -> list(string)", Cost::Split, split),
    Overload::new("substring", "string::substring(int) -> string", Cost::Transform(1), substring),
    Overload::new("substring", "string::substring(int, int) -> string", Cost::Transform(1), substring),
    Overload::new("trim", "string::trim() -> string", Cost::Transform(1), trim),
    Overload::new("strings.quote", "strings.quote(string) -> string", Cost::Quote, quote),
    Overload::new("join", "list(string)::join() -> string", Cost::JoinText, join),
    Overload::new("join", "list(string)::join(string) -> string", Cost::JoinText, join),
];

/// The longest text that is made at once; longer ones cost more than any budget.
const MAX_LENGTH: usize = 10_000_000;

fn contains<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(text(args, 0)?.contains(text(args, 1)?)))
}

fn starts_with<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(text(args, 0)?.starts_with(text(args, 1)?)))
}

fn ends_with<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(text(args, 0)?.ends_with(text(args, 1)?)))
}

fn out_of_range(index: i64) -> EvalError {
    EvalError::new(format!("index out of range: {index}"))
}

/// The byte where a character starts; one past the last is allowed.
fn byte_of(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(index)
}

fn char_at<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (text, index) = (text(args, 0)?, int(args, 1)?);
    let at = byte_of(text, index).ok_or_else(|| out_of_range(index))?;
    Ok(Value::text(text[at..].chars().next().map(String::from).unwrap_or_default()))
}

/// The place of a byte in characters.
fn place<'a>(text: &str, at: Option<usize>) -> Value<'a> {
    Value::Int(at.map_or(-1, |at| text[..at].chars().count() as i64))
}

fn index_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (text, part) = (text(args, 0)?, text(args, 1)?);
    let offset = if args.len() > 2 { int(args, 2)? } else { 0 };
    if part.is_empty() {
        return Ok(Value::Int(offset));
    }
    if offset < 0 {
        return Err(out_of_range(offset));
    }
    let from = byte_of(text, offset);
    Ok(place(text, from.and_then(|from| text[from..].find(part).map(|at| from + at))))
}

fn last_index_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (text, part) = (text(args, 0)?, text(args, 1)?);
    let length = text.chars().count() as i64;
    let offset = if args.len() > 2 { Some(int(args, 2)?) } else { None };
    if part.is_empty() {
        return Ok(Value::Int(offset.unwrap_or(length)));
    }
    let offset = match offset {
        None if text.len() < part.len() => return Ok(Value::Int(-1)),
        None => length - 1,
        Some(offset) if offset < 0 => return Err(out_of_range(offset)),
        Some(offset) if offset >= length => return Ok(Value::Int(-1)),
        Some(offset) => offset,
    };
    // The part may reach beyond the offset: only where it starts counts.
    let start = byte_of(text, offset).unwrap_or(text.len());
    let end = (start + part.len()).min(text.len());
    let end = (end..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let found = text[..end].rmatch_indices(part).map(|(at, _)| at).find(|at| *at <= start);
    Ok(place(text, found))
}

fn lower_ascii<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::text(text(args, 0)?.to_ascii_lowercase()))
}

fn upper_ascii<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::text(text(args, 0)?.to_ascii_uppercase()))
}

fn replace<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (subject, old, new) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    let limit = if args.len() > 3 { int(args, 3)? } else { -1 };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let count = subject.len().checked_div(old.len()).unwrap_or(subject.len() + 1).min(limit);
    if subject.len().saturating_add(count.saturating_mul(new.len())) > MAX_LENGTH {
        return Err(EvalError::CostLimitExceeded);
    }
    Ok(Value::text(subject.replacen(old, new, limit)))
}

fn split<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (subject, separator) = (text(args, 0)?, text(args, 1)?);
    let limit = if args.len() > 2 { int(args, 2)? } else { -1 };
    let part = |part: &str| Value::text(part);
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if !separator.is_empty() {
        return Ok(Value::list(subject.splitn(limit, separator).map(part).collect()));
    }
    // An empty separator parts the characters; the last part is the rest.
    let mut out = Vec::new();
    let mut rest = subject;
    while let Some(c) = rest.chars().next() {
        if out.len() + 1 >= limit {
            out.push(part(rest));
            break;
        }
        out.push(part(&rest[..c.len_utf8()]));
        rest = &rest[c.len_utf8()..];
    }
    Ok(Value::list(out))
}

fn substring<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (text, start) = (text(args, 0)?, int(args, 1)?);
    if args.len() > 2 {
        let end = int(args, 2)?;
        if start > end {
            return Err(EvalError::new(format!("invalid substring range. start: {start}, end: {end}")));
        }
        let from = byte_of(text, start).ok_or_else(|| out_of_range(start))?;
        let to = byte_of(text, end).ok_or_else(|| out_of_range(end))?;
        return Ok(Value::text(&text[from..to]));
    }
    let from = byte_of(text, start).ok_or_else(|| out_of_range(start))?;
    Ok(Value::text(&text[from..]))
}

fn trim<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::text(text(args, 0)?.trim()))
}

fn quote<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let text = text(args, 0)?;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            _ => out.push(c),
        }
    }
    out.push('"');
    Ok(Value::text(out))
}

fn join<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let separator = if args.len() > 1 { text(args, 1)? } else { "" };
    let mut out = String::new();
    for (index, item) in lists::list(args, 0)?.iter().enumerate() {
        let item = item?;
        let part = item
            .as_str()
            .ok_or_else(|| EvalError::new(format!("join: invalid input: {}", crate::eval::shown(&item))))?;
        if index > 0 {
            out.push_str(separator);
        }
        out.push_str(part);
        if out.len() > MAX_LENGTH {
            return Err(EvalError::CostLimitExceeded);
        }
    }
    Ok(Value::text(out))
}
