//! Parts of moments: `t.getFullYear()`, in UTC or in a time zone.

use super::{Overload, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::time::{Zone, zone};
use crate::value::Value;
use jiff::civil::DateTime;

macro_rules! part {
    ($name:literal, $call:ident) => {
        [
            Overload::new($name, concat!("timestamp::", $name, "() -> int"), Cost::One, |args| part(args, $call)),
            Overload::new($name, concat!("timestamp::", $name, "(string) -> int"), Cost::One, |args| part(args, $call)),
        ]
    };
}

pub(super) static TABLE: &[Overload] = [
    part!("getFullYear", full_year),
    part!("getMonth", month),
    part!("getDayOfYear", day_of_year),
    part!("getDayOfMonth", day_of_month),
    part!("getDate", date),
    part!("getDayOfWeek", day_of_week),
    part!("getHours", hours),
    part!("getMinutes", minutes),
    part!("getSeconds", seconds),
    part!("getMilliseconds", milliseconds),
]
.as_flattened();

fn part<'a>(args: &[Value<'a>], part: fn(&DateTime) -> i64) -> Result<Value<'a>, EvalError> {
    let Some(Value::Timestamp(t)) = args.first() else { return Err(EvalError::no_such_overload()) };
    let zone = if args.len() > 1 { zone(text(args, 1)?)? } else { Zone::Fixed(0) };
    Ok(Value::Int(part(&t.civil(&zone))))
}

fn full_year(t: &DateTime) -> i64 {
    t.year().into()
}

fn month(t: &DateTime) -> i64 {
    i64::from(t.month()) - 1
}

fn day_of_year(t: &DateTime) -> i64 {
    i64::from(t.day_of_year()) - 1
}

fn day_of_month(t: &DateTime) -> i64 {
    i64::from(t.day()) - 1
}

fn date(t: &DateTime) -> i64 {
    t.day().into()
}

fn day_of_week(t: &DateTime) -> i64 {
    t.weekday().to_sunday_zero_offset().into()
}

fn hours(t: &DateTime) -> i64 {
    t.hour().into()
}

fn minutes(t: &DateTime) -> i64 {
    t.minute().into()
}

fn seconds(t: &DateTime) -> i64 {
    t.second().into()
}

fn milliseconds(t: &DateTime) -> i64 {
    t.millisecond().into()
}
