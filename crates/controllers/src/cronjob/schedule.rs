//! Cron expressions: five fields, names, lists, ranges, steps, and `@daily` and its like.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// A schedule that has no time within so many days has none.
const HORIZON_DAYS: i32 = 5 * 366;

/// A parsed schedule: one bit per allowed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether the day fields were `*`: if neither was, a day that meets either will do.
    any_day: bool,
    any_weekday: bool,
    /// `@every`: a fixed distance instead of fields.
    every: Option<SignedDuration>,
}

impl Schedule {
    /// Parses an expression; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("@every ") {
            let every: SignedDuration = rest.parse().map_err(|e| format!("failed to parse duration {rest}: {e}"))?;
            if every < SignedDuration::from_secs(1) {
                return Err(format!("duration {rest} is too short"));
            }
            return Ok(Self { every: Some(every), ..Self::parse("* * * * *")? });
        }
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!("expected exactly 5 fields, found {}: [{text}]", fields.len()));
        };
        let is_any = |field: &str| field.starts_with(['*', '?']);
        let weekdays = set(weekday, 0, 7, &DAYS, 0)?;
        Ok(Self {
            minutes: set(minute, 0, 59, &[], 0)?,
            hours: set(hour, 0, 23, &[], 0)?,
            days: set(day, 1, 31, &[], 0)?,
            months: set(month, 1, 12, &MONTHS, 1)?,
            // Sunday is 0 and 7.
            weekdays: (weekdays | (weekdays >> 7)) & 0x7f,
            any_day: is_any(day),
            any_weekday: is_any(weekday),
            every: None,
        })
    }

    /// The first time after `after`, in a time zone.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if let Some(every) = self.every {
            return after.checked_add(every).ok();
        }
        let start = zone.to_datetime(after.checked_add(SignedDuration::from_secs(60)).ok()?);
        let mut date = start.date();
        let mut from = (start.hour(), start.minute());
        for _ in 0..HORIZON_DAYS {
            if self.has_date(date) {
                for (hour, minute) in self.times(from) {
                    let at = DateTime::from_parts(date, jiff::civil::time(hour, minute, 0, 0));
                    // A time that the zone skips is the moment after the gap.
                    let at = zone.to_ambiguous_timestamp(at).compatible().ok()?;
                    if at > after {
                        return Some(at);
                    }
                }
            }
            date = date.tomorrow().ok()?;
            from = (0, 0);
        }
        None
    }

    fn has_date(&self, date: Date) -> bool {
        let has = |set: u64, value: i8| set >> value & 1 == 1;
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let suits = if self.any_day || self.any_weekday { day && weekday } else { day || weekday };
        has(self.months, date.month()) && suits
    }

    /// Allowed times of a day from one on.
    fn times(&self, from: (i8, i8)) -> impl Iterator<Item = (i8, i8)> {
        let hours = (0..24i8).filter(move |h| self.hours >> h & 1 == 1);
        let all = hours.flat_map(move |h| (0..60i8).filter(move |m| self.minutes >> m & 1 == 1).map(move |m| (h, m)));
        all.filter(move |time| *time >= from)
    }
}

/// The bits of a field.
fn set(field: &str, min: u32, max: u32, names: &[&str], base: u32) -> Result<u64, String> {
    field.split(',').try_fold(0, |bits, part| Ok(bits | range(part, min, max, names, base)?))
}

fn range(part: &str, min: u32, max: u32, names: &[&str], base: u32) -> Result<u64, String> {
    let (body, step) = part.split_once('/').map_or((part, None), |(body, step)| (body, Some(step)));
    let number = |text: &str| {
        let named = names.iter().position(|n| n.eq_ignore_ascii_case(text)).map(|at| at as u32 + base);
        named.map_or_else(|| text.parse().map_err(|_| format!("failed to parse int from {text}: {part}")), Ok)
    };
    let (from, to) = match body {
        "*" | "?" => (min, max),
        _ => match body.split_once('-') {
            Some((from, to)) => (number(from)?, number(to)?),
            // `5/10` means from 5 on.
            None if step.is_some() => (number(body)?, max),
            None => (number(body)?, number(body)?),
        },
    };
    let step: u32 = step.map_or(Ok(1), |s| s.parse().map_err(|_| format!("failed to parse int from {s}: {part}")))?;
    if step == 0 {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    if from < min || to > max {
        return Err(format!("value ({from}-{to}) is out of range ({min}-{max}): {part}"));
    }
    if from > to {
        return Err(format!("beginning of range ({from}) beyond end of range ({to}): {part}"));
    }
    Ok((from..=to).step_by(step as usize).fold(0, |bits, value| bits | 1 << value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_next_time() {
        let check = |schedule: &str, zone: &str, after: &str, want: &str| {
            let zone = if zone.is_empty() { TimeZone::UTC } else { TimeZone::get(zone).expect("zone") };
            let schedule = Schedule::parse(schedule).expect("schedule");
            let next = schedule.next(after.parse().expect("time"), &zone).map(|t| t.to_string());
            assert_eq!(next.as_deref(), Some(want), "{schedule:?}");
        };
        check("* * * * *", "", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z");
        check("* * * * *", "", "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z");
        check("*/15 3 * * *", "", "2026-01-01T03:50:00Z", "2026-01-02T03:00:00Z");
        check("0 0 29 2 *", "", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z");
        check("0 12 13 * fri", "", "2026-01-01T13:00:00Z", "2026-01-02T12:00:00Z");
        check("0 0 * * 7", "", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z");
        check("@hourly", "", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        check("30 5-7/2 1,15 JAN *", "", "2026-01-01T05:30:00Z", "2026-01-01T07:30:00Z");
    }

    #[test]
    fn refuses_what_is_not_a_schedule() {
        for text in ["", "* * * *", "60 * * * *", "* * 0 * *", "a * * * *", "5-1 * * * *", "*/0 * * * *"] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }
}
