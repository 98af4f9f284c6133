//! `/debug/api_priority_and_fairness/…`: what waits and runs, as tables.

use super::queues::{Entry, Queue};
use super::{Asked, Fairness};
use crate::body::Body;
use crate::handlers::{Request, answer};
use crate::server::ApiServer;
use http::Response;
use jiff::{SignedDuration, Timestamp};

const LEVEL_COLUMNS: [&str; 10] = [
    "PriorityLevelName",
    "ActiveQueues",
    "IsIdle",
    "IsQuiescing",
    "WaitingRequests",
    "ExecutingRequests",
    "DispatchedRequests",
    "RejectedRequests",
    "TimedoutRequests",
    "CancelledRequests",
];
const QUEUE_COLUMNS: [&str; 9] = [
    "PriorityLevelName",
    "Index",
    "PendingRequests",
    "ExecutingRequests",
    "SeatsInUse",
    "NextDispatchR",
    "InitialSeatsSum",
    "MaxSeatsSum",
    "TotalWorkSum",
];
/// The spelling is upstream's.
const REQUEST_COLUMNS: [&str; 10] = [
    "PriorityLevelName",
    "FlowSchemaName",
    "QueueIndex",
    "RequestIndexInQueue",
    "FlowDistingsher",
    "ArriveTime",
    "InitialSeats",
    "FinalSeats",
    "AdditionalLatency",
    "StartTime",
];
const DETAIL_COLUMNS: [&str; 8] =
    ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];

type Row = Vec<String>;

/// Answers a dump; `None` for other paths.
pub fn handle(server: &ApiServer, request: &Request) -> Option<Response<Body>> {
    let fairness = server.fairness();
    let rows = match request.info.path.strip_prefix("/debug/api_priority_and_fairness/")? {
        "dump_priority_levels" => fairness.dump_levels(),
        "dump_queues" => fairness.dump_queues(),
        "dump_requests" => fairness.dump_requests(!request.query.get("includeRequestDetails").is_empty()),
        _ => return None,
    };
    Some(answer::text(200, table(&rows)))
}

impl Fairness {
    fn dump_levels(&self) -> Vec<Row> {
        let levels = self.levels.lock();
        let rows = levels.iter().map(|(name, level)| {
            let set = &level.queues;
            let active = set.queues.iter().filter(|queue| !queue.waiting.is_empty()).count();
            let mut row =
                vec![name.clone(), active.to_string(), set.is_idle().to_string(), level.quiescing.to_string()];
            let counts = set.counts;
            row.extend([set.waiting as u64, set.executing as u64, counts.dispatched].map(|n| n.to_string()));
            // Nothing times out apart from being cancelled, in upstream too.
            row.extend([counts.rejected, 0, counts.cancelled].map(|n| n.to_string()));
            row
        });
        header(&LEVEL_COLUMNS).chain(rows).collect()
    }

    fn dump_queues(&self) -> Vec<Row> {
        let levels = self.levels.lock();
        let rows = levels.iter().flat_map(|(name, level)| {
            level.queues.queues.iter().enumerate().map(|(at, queue)| queue_row(name, at, queue))
        });
        header(&QUEUE_COLUMNS).chain(rows).collect()
    }

    fn dump_requests(&self, details: bool) -> Vec<Row> {
        let levels = self.levels.lock();
        let columns: Vec<_> =
            REQUEST_COLUMNS.iter().chain(DETAIL_COLUMNS.iter().filter(|_| details)).copied().collect();
        let mut rows: Vec<Row> = header(&columns).collect();
        for (name, level) in levels.iter() {
            let set = &level.queues;
            for (at, queue) in set.queues.iter().enumerate() {
                for (place, entry) in queue.waiting.iter().filter_map(|id| set.requests.get(id)).enumerate() {
                    rows.push(self.request_row(name, (at as i64, place as i64), entry, details));
                }
            }
            for entry in set.requests.values().filter(|entry| entry.started.is_some()) {
                let at = entry.queue.map_or(-1, |at| at as i64);
                rows.push(self.request_row(name, (at, -1), entry, details));
            }
        }
        rows
    }

    fn request_row(&self, level: &str, (queue, place): (i64, i64), entry: &Entry<Asked>, details: bool) -> Row {
        let (asked, work) = (&entry.about, &entry.work);
        let started = entry.started.map(|at| SignedDuration::from_secs_f64(at - entry.arrived));
        let started = started.and_then(|waited| asked.at.checked_add(waited).ok());
        let mut row = vec![
            level.to_owned(),
            asked.schema.metadata.name.clone(),
            queue.to_string(),
            place.to_string(),
            asked.distinguisher.clone(),
            asked.at.to_string(),
            work.initial_seats.to_string(),
            work.final_seats.to_string(),
            duration(work.lingers),
            started.as_ref().map_or("0001-01-01T00:00:00Z".into(), Timestamp::to_string),
        ];
        if details {
            let info = &asked.info;
            let version = match info.group.as_str() {
                "" => info.version.clone(),
                group => format!("{group}/{}", info.version),
            };
            let (user, info) = (&asked.user.name, [&info.verb, &info.path, &info.namespace, &info.name]);
            row.push(user.clone());
            row.extend(info.into_iter().cloned());
            row.extend([version, asked.info.resource.clone(), asked.info.subresource.clone()]);
        }
        row
    }
}

fn queue_row(level: &str, at: usize, queue: &Queue) -> Row {
    vec![
        level.to_owned(),
        at.to_string(),
        queue.waiting.len().to_string(),
        queue.executing.to_string(),
        queue.seats_in_use.to_string(),
        seat_seconds(queue.next_dispatch),
        queue.initial_seats.to_string(),
        queue.max_seats.to_string(),
        seat_seconds(queue.work),
    ]
}

fn header(columns: &[&str]) -> std::iter::Once<Row> {
    std::iter::once(columns.iter().map(|c| (*c).to_owned()).collect())
}

fn seat_seconds(value: f64) -> String {
    format!("{value:.8}ss")
}

/// A short duration as Go prints it.
fn duration(seconds: f64) -> String {
    let text = match seconds {
        s if s <= 0.0 => return "0s".into(),
        s if s < 1e-3 => format!("{}µs", (s * 1e9).round() / 1e3),
        s if s < 1.0 => format!("{}ms", (s * 1e9).round() / 1e6),
        s => format!("{}s", (s * 1e9).round() / 1e9),
    };
    text
}

/// Columns that line up, at least eight wide.
fn table(rows: &[Row]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|c| c.chars().count() + 2).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(|at| width(at).max(8)).collect();
    let mut out = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            if at + 1 == columns {
                out.push_str(cell);
            } else {
                out.push_str(&format!("{:<width$}", format!("{cell},"), width = widths[at]));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = [vec!["Name".to_owned(), "Count".into()], vec!["workload".into(), "7".into()]];
        assert_eq!(table(&rows), "Name,     Count\nworkload, 7\n");
    }

    #[test]
    fn durations_are_those_of_go() {
        for (seconds, want) in [(0.0, "0s"), (0.005, "5ms"), (0.0125, "12.5ms"), (1.5, "1.5s")] {
            assert_eq!(duration(seconds), want);
        }
    }
}
