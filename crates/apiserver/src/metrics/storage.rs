//! Metrics of the store and its watches.

use super::Family;
use crate::server::ApiServer;

static OBJECTS: Family = Family::gauge(
    "apiserver_resource_objects",
    "Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
    &["group", "resource"],
);
static SIZE: Family = Family::gauge(
    "apiserver_resource_size_estimate_bytes",
    "Estimated size of stored objects in database. Estimate is based on sum of last observed sizes of serialized objects. \
     In case of a fetching error, the value will be -1.",
    &["group", "resource"],
);
/// Events sent to watchers.
pub static WATCH_EVENTS: Family = Family::counter(
    "apiserver_watch_events_total",
    "Number of events sent in watch clients",
    &["group", "resource", "version"],
);
/// Their sizes.
pub static WATCH_EVENT_SIZES: Family = Family::histogram(
    "apiserver_watch_events_sizes",
    "Watch event size distribution in bytes",
    &["group", "resource", "version"],
    &[1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131072.0],
);

/// All of them.
pub const ALL: &[&Family] = &[&OBJECTS, &SIZE, &WATCH_EVENTS, &WATCH_EVENT_SIZES];

/// Counts the objects that are in memory; a resource nobody has asked for yet is left out.
pub fn count(server: &ApiServer) {
    for row in server.registry().all().iter().filter(|row| row.convert.is_none()) {
        let Some(stats) = row.store.stats() else { continue };
        let labels = [row.group.as_str(), &row.resource];
        OBJECTS.set(&labels, stats.count as f64);
        SIZE.set(&labels, stats.bytes as f64);
    }
}
