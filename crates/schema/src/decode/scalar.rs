//! Scalars: numbers, strings, and the types that decode themselves.

use super::{Slot, State};
use crate::types::Kind;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value};

pub(super) const BAD_QUANTITY: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

pub(super) fn from_bool(slot: Slot, value: bool, state: &mut State) -> Option<Value> {
    match slot.kind() {
        Kind::Bool | Kind::Json | Kind::RawExtension | Kind::SchemaOrBool => return Some(value.into()),
        Kind::Quantity => state.fail(|| BAD_QUANTITY.into()),
        Kind::IntOrString => state.fail(|| "json: cannot unmarshal bool into Go value of type int32".into()),
        Kind::Time | Kind::MicroTime | Kind::Duration => {
            state.fail(|| "json: cannot unmarshal bool into Go value of type string".into());
        }
        _ => state.mismatch("bool", &slot.go()),
    }
    None
}

pub(super) fn from_number(slot: Slot, value: Number, state: &mut State) -> Option<Value> {
    match slot.kind() {
        Kind::Float64 | Kind::Json | Kind::RawExtension => return Some(value.into()),
        Kind::Int64 if value.is_i64() => return Some(value.into()),
        Kind::Int32 if fits_i32(&value) => return Some(value.into()),
        Kind::Int32 | Kind::Int64 => state.mismatch(&format!("number {value}"), &slot.go()),
        Kind::IntOrString if fits_i32(&value) => return Some(value.into()),
        Kind::IntOrString => {
            state.fail(|| format!("json: cannot unmarshal number {value} into Go value of type int32"));
        }
        Kind::Quantity => return quantity(&value.to_string(), state),
        Kind::Time | Kind::MicroTime | Kind::Duration => {
            state.fail(|| "json: cannot unmarshal number into Go value of type string".into());
        }
        Kind::SchemaOrBool => state.fail(|| "boolean or JSON schema expected".into()),
        _ => state.mismatch("number", &slot.go()),
    }
    None
}

fn fits_i32(value: &Number) -> bool {
    value.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
}

pub(super) fn from_str(slot: Slot, value: &str, state: &mut State) -> Option<Value> {
    match slot.kind() {
        Kind::String | Kind::IntOrString | Kind::Json | Kind::RawExtension => return Some(value.into()),
        Kind::Duration => return Some(value.into()),
        Kind::Bytes => return bytes(value, state),
        Kind::Quantity => return quantity(value, state),
        Kind::Time => return time(value, false, state),
        Kind::MicroTime => return time(value, true, state),
        Kind::SchemaOrBool => state.fail(|| "boolean or JSON schema expected".into()),
        _ => state.mismatch("string", &slot.go()),
    }
    None
}

fn quantity(text: &str, state: &mut State) -> Option<Value> {
    let canonical = (state.quantity)(text);
    if canonical.is_none() {
        state.fail(|| BAD_QUANTITY.into());
    }
    canonical.map(Value::String)
}

/// Go skips line breaks in base64 and writes none.
fn bytes(text: &str, state: &mut State) -> Option<Value> {
    let clean: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&clean) {
        Ok(_) => Some(clean.into()),
        Err(e) => {
            let at = match e {
                base64::DecodeError::InvalidByte(at, _) => at,
                base64::DecodeError::InvalidLastSymbol { .. } => clean.len().saturating_sub(1),
                _ => clean.len(),
            };
            state.fail(|| format!("illegal base64 data at input byte {at}"));
            None
        }
    }
}

fn time(text: &str, micro: bool, state: &mut State) -> Option<Value> {
    match parse_time(text, micro) {
        Ok(printed) => Some(printed.into()),
        Err(error) => {
            state.fail(|| error);
            None
        }
    }
}

/// Parses RFC 3339 as Go does and prints it in UTC.
fn parse_time(text: &str, micro: bool) -> Result<String, String> {
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let fail =
        |rest: &str, part: &str| Err(format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {part:?}"));
    let mut rest = text;
    for part in ["2006", "-", "01", "-", "02", "T", "15", ":", "04", ":", "05"] {
        let is_number = part.as_bytes()[0].is_ascii_digit();
        let fits = rest.get(..part.len()).is_some_and(|head| match is_number {
            true => head.bytes().all(|b| b.is_ascii_digit()),
            false => head == part,
        });
        if !fits {
            return fail(rest, part);
        }
        rest = &rest[part.len()..];
    }
    let fraction = rest.strip_prefix('.').map_or(0, |r| 1 + r.bytes().take_while(u8::is_ascii_digit).count());
    if micro && fraction != 7 {
        return fail(rest, ".000000");
    }
    rest = &rest[fraction..];
    let zone = rest.as_bytes();
    let is_offset = zone.len() == 6 && matches!(zone[0], b'+' | b'-') && zone[3] == b':';
    if rest != "Z" && !is_offset {
        return match rest.strip_prefix('Z') {
            Some(extra) => Err(format!("parsing time {text:?}: extra text: {extra:?}")),
            None => fail(rest, "Z07:00"),
        };
    }
    let parsed: jiff::Timestamp =
        text.parse().map_err(|_| format!("parsing time {text:?}: {} out of range", out_of_range(text)))?;
    let format = if micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(parsed.strftime(format).to_string())
}

fn out_of_range(text: &str) -> &'static str {
    let number = |from: usize| text.get(from..from + 2).and_then(|t| t.parse::<u8>().ok()).unwrap_or(0);
    match (number(5), number(8), number(11), number(14), number(17)) {
        (0 | 13.., ..) => "month",
        (_, _, 24.., ..) => "hour",
        (_, _, _, 60.., _) => "minute",
        (_, _, _, _, 60..) => "second",
        _ => "day",
    }
}
