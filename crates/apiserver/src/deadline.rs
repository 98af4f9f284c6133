//! How long a request may take: the server's limit, or less where the client says so (`timeout=10s`).

use crate::query::Query;
use crate::request_info::RequestInfo;
use api::Status;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The limit when the server is not told another.
pub const DEFAULT: Duration = Duration::from_secs(60);
/// No request waits longer for its turn.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Whether the answer to a request goes on until someone ends it.
pub fn is_long_running(info: &RequestInfo) -> bool {
    matches!(info.verb.as_str(), "watch" | "proxy")
        || (info.is_resource
            && matches!(info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy"))
}

/// The time a request has.
pub fn of(query: &Query, limit: Duration) -> Result<Duration, Status> {
    let text = query.get("timeout");
    if text.is_empty() {
        return Ok(limit);
    }
    let asked = parse(text)
        .map_err(|why| Status::bad_request(format!("invalid timeout specified in the request URL - {why}")))?;
    Ok(if asked.is_zero() { limit } else { asked.min(limit) })
}

/// The outcome of some work, or that the time of the request was over before; without an end it may take for ever.
pub async fn within<T>(end: Option<Instant>, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match end {
        Some(end) => timeout_at(end, work).await.unwrap_or_else(|_| Err(overdue())),
        None => work.await,
    }
}

/// The answer to a request whose time is over.
pub fn overdue() -> Status {
    Status::timeout("Timeout: request did not complete within requested timeout - context deadline exceeded")
}

/// How long a request waits for its turn: a quarter of its time.
pub fn patience(time: Duration) -> Duration {
    (time / 4).min(LONGEST_WAIT)
}

/// Reads a duration as Go writes it; a negative one counts as none.
fn parse(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut seconds = 0.0;
    let mut first = true;
    while first || !rest.is_empty() {
        first = false;
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, unit) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let end = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        let (unit, after) = unit.split_at(end);
        let scale = match unit {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        seconds += number * scale;
        rest = after;
    }
    // Go counts nanoseconds in 63 bits.
    if seconds > 9_223_372_036.0 {
        return Err(invalid());
    }
    Ok(if negative { Duration::ZERO } else { Duration::from_secs_f64(seconds) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_does() {
        let check = |text: &str, want: Result<u64, &str>| {
            let got = parse(text).map(|d| d.as_millis() as u64);
            assert_eq!(got.as_ref().map_err(String::as_str).copied(), want, "{text}");
        };
        check("1s", Ok(1000));
        check("1m0.5s", Ok(60_500));
        check("0", Ok(0));
        check("-5s", Ok(0));
        check("10", Err("time: missing unit in duration \"10\""));
        check("abc", Err("time: invalid duration \"abc\""));
        check("1x", Err("time: unknown unit \"x\" in duration \"1x\""));
        check("1.2.3s", Err("time: invalid duration \"1.2.3s\""));
        check("9999999999999h", Err("time: invalid duration \"9999999999999h\""));
    }

    #[test]
    fn clients_can_only_shorten_it() {
        let check = |query: &str, want: Result<u64, &str>| {
            let got = of(&Query::parse(Some(query)), DEFAULT).map(|d| d.as_secs()).map_err(|s| s.message);
            assert_eq!(got.as_ref().map_err(String::as_str).copied(), want, "{query}");
        };
        check("", Ok(60));
        check("timeout=10s", Ok(10));
        check("timeout=10m", Ok(60));
        check("timeout=0s", Ok(60));
        check("timeout=x", Err("invalid timeout specified in the request URL - time: invalid duration \"x\""));
        assert_eq!(patience(DEFAULT), Duration::from_secs(15));
    }
}
