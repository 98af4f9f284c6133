//! Ages as kubectl prints them (`apimachinery/pkg/util/duration`).

use api::Object;
use jiff::Timestamp;
use serde_json::Value;

/// The age of an object, `<unknown>` when it has no creation time.
pub fn since_creation(obj: &Object, now: Timestamp) -> String {
    since(obj.pointer("/metadata/creationTimestamp"), now)
}

/// The time since a timestamp, `<unknown>` when there is none.
pub fn since(time: Option<&Value>, now: Timestamp) -> String {
    parse(time).map_or_else(|| "<unknown>".into(), |then| human(now.as_second() - then.as_second()))
}

/// The time until a timestamp, `<unknown>` when there is none.
pub fn until(time: Option<&Value>, now: Timestamp) -> String {
    parse(time).map_or_else(|| "<unknown>".into(), |then| human(then.as_second() - now.as_second()))
}

/// A timestamp field.
pub fn parse(time: Option<&Value>) -> Option<Timestamp> {
    time?.as_str()?.parse().ok()
}

/// A duration in seconds, in at most two units that get coarser as it gets longer.
pub fn human(seconds: i64) -> String {
    let (minutes, hours, days, years) = (seconds / 60, seconds / 3600, seconds / 86_400, seconds / 31_536_000);
    match seconds {
        ..=-2 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}

fn two(large: i64, large_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_get_coarser() {
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        for (seconds, want) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 61, "3h1m"),
            (8 * HOUR, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY + HOUR, "2d1h"),
            (8 * DAY + HOUR, "8d"),
            (729 * DAY, "729d"),
            (731 * DAY, "2y1d"),
            (8 * 365 * DAY, "8y"),
        ] {
            assert_eq!(human(seconds), want, "{seconds}");
        }
    }
}
