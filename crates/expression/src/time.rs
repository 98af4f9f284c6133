//! Moments and lengths of time: reading, printing, adding.

use crate::error::EvalError;
use jiff::civil::{Date, DateTime, date};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::cmp::Ordering;

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

/// A moment between the years 1 and 9999, and the offset of the zone it was written in.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    nanos: i128,
    /// In seconds; it only shows when the moment is printed.
    offset: i32,
}

impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Moment {}

impl Ord for Moment {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Moment {
    /// A moment by its nanoseconds since 1970; `None` outside the years.
    pub fn from_nanos(nanos: i128) -> Option<Self> {
        let seconds = i64::try_from(nanos.div_euclid(i128::from(SECOND))).ok()?;
        YEARS.contains(&seconds).then_some(Self { nanos, offset: 0 })
    }

    /// Whole seconds since 1970.
    pub fn seconds(&self) -> i64 {
        self.nanos.div_euclid(i128::from(SECOND)) as i64
    }

    /// Whether it is the first moment of the year 1.
    pub(crate) fn is_zero(&self) -> bool {
        self.nanos == i128::from(*YEARS.start()) * i128::from(SECOND)
    }

    /// Date and time of day in a time zone.
    pub(crate) fn civil(&self, zone: &Zone) -> DateTime {
        let offset = match zone {
            Zone::Fixed(offset) => *offset,
            Zone::Named(zone) => Timestamp::from_nanosecond(self.nanos).map_or(0, |t| zone.to_offset(t).seconds()),
        };
        self.shifted(offset)
    }

    fn shifted(&self, offset: i32) -> DateTime {
        let epoch = DateTime::from_parts(date(1970, 1, 1), jiff::civil::time(0, 0, 0, 0));
        let nanos = self.nanos + i128::from(offset) * i128::from(SECOND);
        let (seconds, rest) = (nanos.div_euclid(i128::from(SECOND)), nanos.rem_euclid(i128::from(SECOND)));
        epoch.saturating_add(SignedDuration::new(seconds as i64, rest as i32))
    }
}

impl From<Timestamp> for Moment {
    fn from(t: Timestamp) -> Self {
        Self { nanos: t.as_nanosecond(), offset: 0 }
    }
}

/// A time zone by its offset in seconds or by its name.
pub(crate) enum Zone {
    Fixed(i32),
    Named(TimeZone),
}

/// `t + d`
pub(crate) fn add(t: Moment, d: i64) -> Result<Moment, EvalError> {
    let sum = Moment::from_nanos(t.nanos + i128::from(d)).ok_or_else(|| EvalError::new("timestamp overflow"))?;
    Ok(Moment { offset: t.offset, ..sum })
}

/// A moment by its seconds since 1970.
pub(crate) fn from_seconds(seconds: i64) -> Result<Moment, EvalError> {
    Moment::from_nanos(i128::from(seconds) * i128::from(SECOND)).ok_or_else(|| EvalError::new("timestamp overflow"))
}

/// `a - b`
pub(crate) fn between(a: Moment, b: Moment) -> Result<i64, EvalError> {
    i64::try_from(a.nanos - b.nanos).map_err(|_| EvalError::new("integer overflow"))
}

/// An RFC 3339 text.
pub(crate) fn parse_timestamp(text: &str) -> Option<Moment> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<i16> {
        let part = text.get(range)?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten()
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| bytes.get(*at) != Some(mark)) {
        return None;
    }
    let day = Date::new(number(0..4)?, number(5..7)? as i8, number(8..10)? as i8).ok()?;
    let (fraction, offset) = zone_part(text.get(19..)?)?;
    let time =
        jiff::civil::Time::new(number(11..13)? as i8, number(14..16)? as i8, number(17..19)? as i8, fraction).ok()?;
    let since =
        day.to_datetime(time).duration_since(DateTime::from_parts(date(1970, 1, 1), jiff::civil::time(0, 0, 0, 0)));
    let moment = Moment::from_nanos(since.as_nanos() - i128::from(offset) * i128::from(SECOND))?;
    Some(Moment { offset, ..moment })
}

/// Nanoseconds and the offset in seconds from `.5+01:00`.
fn zone_part(rest: &str) -> Option<(i32, i32)> {
    let (fraction, rest) = match rest.strip_prefix('.') {
        None => (0, rest),
        Some(after) => {
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let digits = &after[..end.min(9)];
            if end == 0 {
                return None;
            }
            (format!("{digits:0<9}").parse().ok()?, &after[end..])
        }
    };
    if rest == "Z" {
        return Some((fraction, 0));
    }
    let sign = match rest.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = rest[1..].split_once(':')?;
    let two = |text: &str| {
        (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse::<i32>().ok()).flatten()
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours < 24 && minutes < 60).then_some((fraction, sign * (hours * 3600 + minutes * 60)))
}

/// `format: date`
pub(crate) fn parse_date(text: &str) -> Result<Moment, EvalError> {
    parse_timestamp(&format!("{text}T00:00:00Z")).ok_or_else(|| {
        EvalError::new(format!("Invalid date formatted string {text}: parsing time {text:?} as \"2006-01-02\": cannot parse {text:?} as \"2006\""))
    })
}

/// `format: date-time`; a text without a zone is in UTC, no text at all is 1970.
pub(crate) fn parse_date_time(text: &str) -> Result<Moment, EvalError> {
    if text.is_empty() {
        return from_seconds(0);
    }
    parse_timestamp(text).or_else(|| parse_timestamp(&format!("{text}Z"))).ok_or_else(|| {
        let why = format!("parsing time {text:?} as \"2006-01-02T15:04:05\": cannot parse {text:?} as \"2006\"");
        EvalError::new(format!("Invalid date-time formatted string {text}: {why}"))
    })
}

/// `format: duration`: as Go writes it, or numbers with names of units (`3 days`).
pub(crate) fn parse_duration_format(text: &str) -> Result<i64, EvalError> {
    parse_duration(text)
        .or_else(|| worded(text))
        .ok_or_else(|| EvalError::new(format!("Invalid duration {text}: unable to parse {text} as duration")))
}

/// Numbers, each followed by the name of a unit or its beginning.
fn worded(text: &str) -> Option<i64> {
    const DAY: i64 = 24 * 3600 * SECOND;
    const NAMES: [(&str, &str, i64); 8] = [
        ("ns", "nano", 1),
        ("us", "micro", 1000),
        ("ms", "milli", 1_000_000),
        ("s", "sec", SECOND),
        ("m", "min", 60 * SECOND),
        ("h", "hour", 3600 * SECOND),
        ("d", "day", DAY),
        ("w", "week", 7 * DAY),
    ];
    let mut total = None;
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        rest = &rest[at..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let tail = tail.trim_start();
        let end = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let unit = tail[..end].to_lowercase().replace('\u{b5}', "u");
        rest = &tail[end..];
        let found = NAMES.iter().find(|(short, long, _)| {
            unit == *short
                || unit.starts_with(long)
                || (unit == "hr" && *short == "h")
                || (unit == "wk" && *short == "w")
        });
        if let Some((_, _, nanos)) = found {
            total = Some(number.parse::<i64>().ok()?.checked_mul(*nanos)?.checked_add(total.unwrap_or(0))?);
        }
    }
    total
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

/// RFC 3339 in the zone it was written in, with the digits that are needed.
pub(crate) fn show_timestamp(t: &Moment) -> String {
    let civil = t.shifted(t.offset);
    let mut out = civil.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    let nanos = civil.subsec_nanosecond();
    if nanos != 0 {
        out.push('.');
        out.push_str(format!("{nanos:09}").trim_end_matches('0'));
    }
    match t.offset {
        0 => out.push('Z'),
        offset => {
            let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.abs() / 60);
            out.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
        }
    }
    out
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
pub(crate) fn zone(name: &str) -> Result<Zone, EvalError> {
    if let Some((hours, minutes)) = name.split_once(':') {
        let number = |text: &str| {
            text.parse::<i32>().map_err(|_| EvalError::new(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
        };
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        let hours = hours.saturating_mul(60);
        let minutes = if name.starts_with('-') { hours.saturating_sub(minutes) } else { hours.saturating_add(minutes) };
        return Ok(Zone::Fixed(minutes.saturating_mul(60)));
    }
    match name {
        "" | "UTC" => Ok(Zone::Fixed(0)),
        _ => TimeZone::get(name).map(Zone::Named).map_err(|_| EvalError::new(format!("unknown time zone {name}"))),
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
        check("2020-01-01T00:00:00.5+01:00", Some("2020-01-01T00:00:00.5+01:00"));
        check("9999-12-31T23:59:59Z", Some("9999-12-31T23:59:59Z"));
        check("2021-02-29T00:00:00Z", None);
        check("2020-01-01 00:00:00Z", None);
        check("2020-01-01T00:00:00", None);
        check("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z"));
    }
}
