//! How much work a request is before it is done: lists by the bytes they hold, writes by who watches.

use super::queues::Work;
use crate::query::Query;
use crate::request_info::RequestInfo;

/// A list takes a seat for so many bytes.
const BYTES_PER_SEAT: u64 = 100_000;
/// A list from memory is written piece by piece and never holds more at once.
const STREAMED: u64 = 1_000_000;
const MAX_LIST_SEATS: u64 = 100;
const MAX_WRITE_SEATS: u64 = 10;
const WATCHERS_PER_SEAT: u64 = 10;
/// Telling a seat's worth of watchers takes so many seconds.
const EVENT_SECONDS: f64 = 0.005;

/// What is stored of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Objects.
    pub count: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// What an estimate depends on besides the request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Circumstances {
    /// What is stored of the resource; `None`: it is not stored here.
    pub stats: Option<Stats>,
    /// Who watches what the request changes.
    pub watchers: u64,
    /// Most seats the priority level gives to one request.
    pub max_seats: Option<u64>,
}

/// Estimates a request.
pub fn estimate(info: &RequestInfo, query: &Query, at: &Circumstances) -> Work {
    match info.verb.as_str() {
        "list" => list(info, query, at),
        "watch" if begins_with_list(query) => list(info, query, at),
        "create" | "update" | "patch" | "delete" => write(info, at),
        _ => Work::ONE,
    }
}

/// Whether a watch sends all objects first.
fn begins_with_list(query: &Query) -> bool {
    query.flag("sendInitialEvents") || matches!(query.get("resourceVersion"), "" | "0")
}

fn list(info: &RequestInfo, query: &Query, at: &Circumstances) -> Work {
    let Some(stats) = at.stats else { return Work::ONE };
    let max = at.max_seats.unwrap_or(MAX_LIST_SEATS).min(MAX_LIST_SEATS);
    let from_memory =
        info.verb == "watch" || (query.get("continue").is_empty() && query.get("resourceVersionMatch") != "Exact");
    let limit = query.integer("limit").ok().flatten().and_then(|l| u64::try_from(l).ok()).filter(|l| *l > 0);
    let limited = limit.map_or(stats.count, |limit| limit.min(stats.count));
    let selects = !query.get("labelSelector").is_empty() || !query.get("fieldSelector").is_empty();
    let objects = match () {
        () if !info.name.is_empty() => 1,
        () if !from_memory && selects => limited.max(stats.count / 2),
        () => limited,
    };
    let average = stats.bytes / stats.count.max(1);
    let bytes = objects.saturating_mul(average);
    let bytes = if from_memory { bytes.min(STREAMED) } else { bytes };
    Work { initial_seats: bytes.div_ceil(BYTES_PER_SEAT).min(max).max(1), ..Work::ONE }
}

fn write(info: &RequestInfo, at: &Circumstances) -> Work {
    let token = info.resource == "serviceaccounts" && info.subresource == "token";
    if token || at.watchers < WATCHERS_PER_SEAT {
        return Work::ONE;
    }
    let wanted = at.watchers.div_ceil(WATCHERS_PER_SEAT);
    let seats = wanted.min(at.max_seats.unwrap_or(MAX_WRITE_SEATS).min(MAX_WRITE_SEATS)).max(1);
    Work { final_seats: seats, lingers: EVENT_SECONDS * wanted as f64 / seats as f64, ..Work::ONE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn seats(method: &str, uri: &str, at: Circumstances) -> Work {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let query = Query::parse(Some(query));
        let method = Method::from_bytes(method.as_bytes()).expect("method");
        estimate(&RequestInfo::new(&method, path, &query), &query, &at)
    }

    #[test]
    fn lists_count_by_bytes() {
        let check = |uri: &str, count: u64, bytes: u64, want: u64| {
            let at = Circumstances { stats: Some(Stats { count, bytes }), ..Circumstances::default() };
            assert_eq!(seats("GET", uri, at).initial_seats, want, "{uri} {count} {bytes}");
        };
        check("/api/v1/pods", 0, 0, 1);
        check("/api/v1/pods", 100, 450_000, 5);
        check("/api/v1/pods", 10_000, 45_000_000, 10);
        check("/api/v1/pods?limit=10", 100, 450_000, 1);
        check("/api/v1/pods?fieldSelector=metadata.name%3Dx", 10_000, 45_000_000, 1);
        check("/api/v1/pods?resourceVersionMatch=Exact&resourceVersion=5", 10_000, 45_000_000, 100);
        check("/api/v1/pods?watch=1&resourceVersion=5", 10_000, 45_000_000, 1);
        check("/api/v1/pods?watch=1", 10_000, 45_000_000, 10);
        check("/api/v1/pods/p", 10_000, 45_000_000, 1);
        assert_eq!(seats("GET", "/apis/metrics.k8s.io/v1/pods", Circumstances::default()), Work::ONE);
    }

    #[test]
    fn writes_count_by_watchers() {
        let at = |watchers, max_seats| Circumstances { watchers, max_seats, stats: None };
        assert_eq!(seats("POST", "/api/v1/namespaces/a/pods", at(9, None)), Work::ONE);
        let wide = seats("POST", "/api/v1/namespaces/a/pods", at(45, None));
        assert_eq!((wide.initial_seats, wide.final_seats, wide.lingers), (1, 5, 0.005));
        let narrowed = seats("POST", "/api/v1/namespaces/a/pods", at(45, Some(2)));
        assert_eq!((narrowed.final_seats, narrowed.lingers), (2, 0.0125));
        assert_eq!(seats("POST", "/api/v1/namespaces/a/serviceaccounts/s/token", at(45, None)), Work::ONE);
    }
}
