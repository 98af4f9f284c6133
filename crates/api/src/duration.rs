//! Durations as Go writes them, `1m30s`: the form of configuration files and flags.

use std::time::Duration;

const UNITS: [(&str, f64); 7] =
    [("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9)];

/// Reads `1h2m3.5s`, `20ms` or `0`; any other number needs a unit, and nothing is negative.
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0_f64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0)?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..end])?;
        seconds += number * unit;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, millis: Option<u128>| assert_eq!(parse(text).map(|d| d.as_millis()), millis, "{text}");
        check("1h2m3.5s", Some(3_723_500));
        check("20ms", Some(20));
        check("0s", Some(0));
        check("0", Some(0));
        ["", "s", "5", "1x", "-1s", "1s5"].into_iter().for_each(|text| check(text, None));
    }
}
