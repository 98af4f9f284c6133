//! Moments and lengths of time: reading, printing, adding.
//!
//! jiff's last moment is 9999-12-30T22:00:00Z; upstream knows one day more.

use crate::error::EvalError;
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

/// The seconds of 0001-01-01T00:00:00Z and of 9999-12-31T23:59:59Z.
const YEARS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const SECOND: i64 = 1_000_000_000;
/// Units of Go's durations in nanoseconds, the longer names first.
const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1000),
    ("\u{b5}s", 1000),
    ("\u{3bc}s", 1000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];

/// `t + d`
pub(crate) fn add(t: Timestamp, d: i64) -> Result<Timestamp, EvalError> {
    let nanos = t.as_nanosecond() + i128::from(d);
    from_nanos(nanos).ok_or_else(|| EvalError::new("timestamp overflow"))
}

fn from_nanos(nanos: i128) -> Option<Timestamp> {
    let seconds = nanos.div_euclid(i128::from(SECOND));
    if !YEARS.contains(&i64::try_from(seconds).ok()?) {
        return None;
    }
    Timestamp::from_nanosecond(nanos).ok()
}

/// A moment by its seconds since 1970.
pub(crate) fn from_seconds(seconds: i64) -> Result<Timestamp, EvalError> {
    from_nanos(i128::from(seconds) * i128::from(SECOND)).ok_or_else(|| EvalError::new("timestamp overflow"))
}

/// `a - b`
pub(crate) fn between(a: Timestamp, b: Timestamp) -> Result<i64, EvalError> {
    i64::try_from(a.as_nanosecond() - b.as_nanosecond()).map_err(|_| EvalError::new("integer overflow"))
}

/// An RFC 3339 text.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    // jiff takes more than RFC 3339 does: the shape is checked first.
    let bytes = text.as_bytes();
    let digits =
        |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|part| part.iter().all(u8::is_ascii_digit));
    let shape = digits(0..4) && digits(5..7) && digits(8..10) && digits(11..13) && digits(14..16) && digits(17..19);
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !shape || marks.iter().any(|(at, mark)| bytes.get(*at) != Some(mark)) || !zone_shape(text.get(19..)?) {
        return None;
    }
    let parsed: Timestamp = text.parse().ok()?;
    YEARS.contains(&parsed.as_second()).then_some(parsed)
}

fn zone_shape(rest: &str) -> bool {
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => {
            let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
            if end == 0 {
                return false;
            }
            &fraction[end..]
        }
        None => rest,
    };
    rest == "Z" || (rest.len() == 6 && rest.starts_with(['+', '-']) && rest.as_bytes()[3] == b':')
}

/// `format: date`
pub(crate) fn parse_date(text: &str) -> Result<Timestamp, EvalError> {
    parse_timestamp(&format!("{text}T00:00:00Z")).ok_or_else(|| {
        EvalError::new(format!("Invalid date formatted string {text}: cannot parse \"{text}\" as \"2006\""))
    })
}

/// `format: date-time`
pub(crate) fn parse_date_time(text: &str) -> Result<Timestamp, EvalError> {
    let upper = text.to_ascii_uppercase();
    parse_timestamp(&upper).ok_or_else(|| {
        EvalError::new(format!("Invalid date-time formatted string {text}: cannot parse \"{text}\" as \"2006\""))
    })
}

/// `format: duration`
pub(crate) fn parse_duration_format(text: &str) -> Result<i64, EvalError> {
    parse_duration(text)
        .ok_or_else(|| EvalError::new(format!("Invalid duration {text}: unable to parse {text} to a duration")))
}

/// A duration as Go writes it: `1h30m`, `-1.5s`.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let length = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let unit = UNITS.iter().find(|(name, _)| *name == &tail[..length])?.1;
        total = total.checked_add(scaled(number, unit)?)?;
        rest = &tail[length..];
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// A decimal number of units, cut off below a nanosecond.
fn scaled(number: &str, unit: i64) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()?.into() };
    let mut nanos = whole * i128::from(unit);
    let mut part = i128::from(unit);
    let (mut value, mut scale) = (0i128, 1i128);
    for digit in fraction.bytes().take(15) {
        value = value * 10 + i128::from(digit - b'0');
        scale *= 10;
    }
    part = part * value / scale;
    nanos += part;
    Some(nanos)
}

/// RFC 3339 in UTC with the digits that are needed.
pub(crate) fn show_timestamp(t: &Timestamp) -> String {
    t.to_string()
}

/// Seconds with the digits that are needed: `90s`, `0.5s`.
pub(crate) fn show_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, rest) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    format!("{sign}{seconds}.{}s", format!("{rest:09}").trim_end_matches('0'))
}

/// A time zone by its name or as an offset such as `-05:00`.
pub(crate) fn zone(name: &str) -> Result<TimeZone, EvalError> {
    if let Some((hours, minutes)) = name.split_once(':') {
        let number = |text: &str| {
            text.parse::<i32>().map_err(|_| EvalError::new(format!("strconv.Atoi: parsing \"{text}\": invalid syntax")))
        };
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        let minutes = if name.starts_with('-') {
            hours.saturating_mul(60).saturating_sub(minutes)
        } else {
            hours.saturating_mul(60).saturating_add(minutes)
        };
        let offset = Offset::from_seconds(minutes.saturating_mul(60))
            .map_err(|_| EvalError::new(format!("unknown time zone {name}")))?;
        return Ok(offset.to_time_zone());
    }
    match name {
        "" | "UTC" => Ok(TimeZone::UTC),
        _ => TimeZone::get(name).map_err(|_| EvalError::new(format!("unknown time zone {name}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        #[track_caller]
        fn check(text: &str, expect: Option<&str>) {
            assert_eq!(parse_duration(text).map(show_duration).as_deref(), expect);
        }
        check("1h30m", Some("5400s"));
        check("-1.5s", Some("-1.5s"));
        check(".5ms", Some("0.0005s"));
        check("0", Some("0s"));
        check("1", None);
        check("1d", None);
        check("", None);
        check("9999999h", None);
    }

    #[test]
    fn timestamps() {
        #[track_caller]
        fn check(text: &str, expect: Option<&str>) {
            assert_eq!(parse_timestamp(text).map(|t| show_timestamp(&t)).as_deref(), expect);
        }
        check("2020-01-01T00:00:00Z", Some("2020-01-01T00:00:00Z"));
        check("2020-01-01T00:00:00.5+01:00", Some("2019-12-31T23:00:00.5Z"));
        check("2020-01-01 00:00:00Z", None);
        check("2020-01-01T00:00:00", None);
        check("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z"));
    }
}
