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
        Kind::Quantity => state.stop(|| BAD_QUANTITY.into()),
        Kind::IntOrString => state.stop_at("bool", "int32"),
        Kind::Time | Kind::MicroTime | Kind::Duration => state.stop_at("bool", "string"),
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
        Kind::IntOrString => state.stop_at(&format!("number {value}"), "int32"),
        Kind::Quantity => return quantity(&value.to_string(), state),
        Kind::Time | Kind::MicroTime | Kind::Duration => state.stop_at("number", "string"),
        Kind::SchemaOrBool => state.stop(|| "boolean or JSON schema expected".into()),
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
        Kind::SchemaOrBool => state.stop(|| "boolean or JSON schema expected".into()),
        _ => state.mismatch("string", &slot.go()),
    }
    None
}

fn quantity(text: &str, state: &mut State) -> Option<Value> {
    let canonical = (state.quantity)(text.trim());
    if canonical.is_none() {
        state.stop(|| BAD_QUANTITY.into());
    }
    canonical.map(Value::String)
}

/// Go skips line breaks in base64 and takes any bits behind the last byte; it writes neither.
fn bytes(text: &str, state: &mut State) -> Option<Value> {
    match read_base64(text.as_bytes()) {
        Ok(bytes) => Some(STANDARD.encode(bytes).into()),
        Err(at) => {
            state.fail(|| format!("illegal base64 data at input byte {at}"));
            None
        }
    }
}

/// The bytes of a base64 text, or the offset that Go tells: of a letter that cannot be, or of the group that is cut off.
pub(super) fn read_base64(text: &[u8]) -> Result<Vec<u8>, usize> {
    let mut letters = text.iter().enumerate().filter(|(_, c)| !matches!(c, b'\r' | b'\n')).peekable();
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    while letters.peek().is_some() {
        let (mut group, mut read) = (0u32, 0);
        while read < 4 {
            match letters.next() {
                None => return Err(text.len() - read),
                Some((at, b'=')) => {
                    padding_ends(at, read, &mut letters, text.len())?;
                    break;
                }
                Some((at, letter)) => group = group << 6 | sextet(*letter).ok_or(at)?,
            }
            read += 1;
        }
        let bytes = (group << (6 * (4 - read)) << 8).to_be_bytes();
        out.extend_from_slice(&bytes[..read * 6 / 8]);
    }
    Ok(out)
}

/// After the first `=` of a group of which `read` letters were read: another where there were two, then nothing.
fn padding_ends<'a>(
    at: usize,
    read: usize,
    letters: &mut impl Iterator<Item = (usize, &'a u8)>,
    len: usize,
) -> Result<(), usize> {
    match read {
        0 | 1 => return Err(at),
        2 => match letters.next() {
            None => return Err(len),
            Some((_, b'=')) => {}
            Some((next, _)) => return Err(next - 1),
        },
        _ => {}
    }
    letters.next().map_or(Ok(()), |(next, _)| Err(next))
}

fn sextet(letter: u8) -> Option<u32> {
    let value = match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

fn time(text: &str, micro: bool, state: &mut State) -> Option<Value> {
    match parse_time(text, micro) {
        Ok(printed) => Some(printed.into()),
        Err(error) => {
            state.stop(|| error);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_go_reads_it() {
        let check = |text: &str, want: Result<&[u8], usize>| {
            assert_eq!(read_base64(text.as_bytes()), want.map(<[u8]>::to_vec), "{text:?}");
        };
        check("eA==", Ok(b"x"));
        check("eB==", Ok(b"x"));
        check("eHl6\n", Ok(b"xyz"));
        check("eH\nk=", Ok(b"xy"));
        check("", Ok(b""));
        check("b", Err(0));
        check("eHl6b", Err(4));
        check("!!", Err(0));
        check("e===", Err(1));
        check("eA=", Err(3));
        check("eA==x", Err(4));
        check("eA=x", Err(2));
    }
}
