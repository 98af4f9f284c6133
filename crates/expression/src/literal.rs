//! The values that literals stand for.

use crate::value::Value;

/// A whole number, with its sign.
pub(crate) fn int(text: &str, negative: bool) -> Result<Value<'static>, &'static str> {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |hex| (hex, 16));
    let sign = if negative { "-" } else { "" };
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map(Value::Int).map_err(|_| "invalid int literal")
}

/// An unsigned number, with its `u`.
pub(crate) fn uint(text: &str) -> Result<Value<'static>, &'static str> {
    let text = text.trim_end_matches(['u', 'U']);
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |hex| (hex, 16));
    u64::from_str_radix(digits, radix).map(Value::Uint).map_err(|_| "invalid uint literal")
}

/// A floating-point number, with its sign.
pub(crate) fn double(text: &str, negative: bool) -> Result<Value<'static>, &'static str> {
    let value: f64 = text.parse().map_err(|_| "invalid double literal")?;
    if value.is_infinite() {
        return Err("invalid double literal");
    }
    Ok(Value::Double(if negative { -value } else { value }))
}

/// Text in its quotes.
pub(crate) fn string(text: &str) -> Result<Value<'static>, &'static str> {
    let mut out = String::with_capacity(text.len());
    unescape(text, |part| {
        out.push(match part {
            Part::Plain(c) => c,
            Part::Code(code) | Part::Octet(code) => char::from_u32(code).ok_or("invalid unicode code point")?,
        });
        Ok(())
    })?;
    Ok(Value::text(out))
}

/// Bytes in their quotes, with their `b`.
pub(crate) fn bytes(text: &str) -> Result<Value<'static>, &'static str> {
    let mut out = Vec::with_capacity(text.len());
    unescape(&text[1..], |part| {
        match part {
            Part::Plain(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Part::Octet(code) => out.push(code as u8),
            Part::Code(_) => return Err("unable to unescape string"),
        }
        Ok(())
    })?;
    Ok(Value::Bytes(out.into()))
}

enum Part {
    Plain(char),
    /// `\x41`, `\101`
    Octet(u32),
    /// `\u0041`
    Code(u32),
}

fn unescape(text: &str, mut put: impl FnMut(Part) -> Result<(), &'static str>) -> Result<(), &'static str> {
    let (raw, quoted) = text.strip_prefix(['r', 'R']).map_or((false, text), |rest| (true, rest));
    let width = if quoted.len() >= 6 && (quoted.starts_with("'''") || quoted.starts_with("\"\"\"")) { 3 } else { 1 };
    let body = quoted.get(width..quoted.len().saturating_sub(width)).ok_or("unable to unescape string")?;
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        if raw || c != '\\' {
            put(Part::Plain(c))?;
            continue;
        }
        let kind = chars.next().ok_or("unable to unescape string, found '\\' as last character")?;
        put(match kind {
            'a' => Part::Plain('\u{7}'),
            'b' => Part::Plain('\u{8}'),
            'f' => Part::Plain('\u{c}'),
            'n' => Part::Plain('\n'),
            'r' => Part::Plain('\r'),
            't' => Part::Plain('\t'),
            'v' => Part::Plain('\u{b}'),
            '\\' | '\'' | '"' | '`' | '?' => Part::Plain(kind),
            'x' | 'X' => Part::Octet(digits(&mut chars, 2, 16, 0)?),
            'u' => Part::Code(digits(&mut chars, 4, 16, 0)?),
            'U' => Part::Code(digits(&mut chars, 8, 16, 0)?),
            '0'..='3' => Part::Octet(digits(&mut chars, 2, 8, kind as u32 - '0' as u32)?),
            _ => return Err("unable to unescape string"),
        })?;
    }
    Ok(())
}

fn digits(chars: &mut std::str::Chars<'_>, count: usize, radix: u32, first: u32) -> Result<u32, &'static str> {
    (0..count).try_fold(first, |code, _| {
        let digit = chars.next().and_then(|c| c.to_digit(radix)).ok_or("unable to unescape string")?;
        code.checked_mul(radix).and_then(|code| code.checked_add(digit)).ok_or("invalid unicode code point")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings() {
        #[track_caller]
        fn check(text: &str, expect: Result<&str, &str>) {
            assert_eq!(string(text).as_ref().map(|v| v.as_str().unwrap()).map_err(|e| *e), expect);
        }
        check(r#""a\n\x41\u20ac\101""#, Ok("a\nA\u{20ac}A"));
        check(r"r'\n'", Ok("\\n"));
        check("'''it's'''", Ok("it's"));
        check(r"'\ud800'", Err("invalid unicode code point"));
    }

    #[test]
    fn numbers() {
        assert_eq!(int("9223372036854775808", true).unwrap().as_int(), Some(i64::MIN));
        assert!(int("9223372036854775808", false).is_err());
        assert!(matches!(uint("0x10u"), Ok(Value::Uint(16))));
        assert!(matches!(bytes(r"b'\xffé'"), Ok(Value::Bytes(b)) if *b == [0xff, 0xc3, 0xa9]));
    }
}
