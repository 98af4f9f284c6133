//! Metrics of fairness, with upstream's names.

use super::demand::Seen;
use super::queues::Work;
use crate::metrics::Family;

const LEVEL: &[&str] = &["priority_level"];
const FLOW: &[&str] = &["flow_schema", "priority_level"];
const WAIT_BUCKETS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const SEAT_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 10.0, 20.0, 50.0, 100.0];

macro_rules! families {
    ($($name:ident = $kind:ident($metric:literal, $help:literal, $labels:expr $(, $buckets:expr)?);)*) => {
        $(#[doc = $help] pub static $name: Family = Family::$kind($metric, $help, $labels $(, $buckets)?);)*
        /// All of them.
        pub const ALL: &[&Family] = &[$(&$name),*];
    };
}

families! {
    REJECTED = counter("apiserver_flowcontrol_rejected_requests_total", "Number of requests rejected by API Priority and Fairness subsystem", &["flow_schema", "priority_level", "reason"]);
    DISPATCHED = counter("apiserver_flowcontrol_dispatched_requests_total", "Number of requests executed by API Priority and Fairness subsystem", FLOW);
    IN_QUEUE = gauge("apiserver_flowcontrol_current_inqueue_requests", "Number of requests currently pending in queues of the API Priority and Fairness subsystem", FLOW);
    SEATS_IN_QUEUE = gauge("apiserver_flowcontrol_current_inqueue_seats", "Number of seats currently pending in queues of the API Priority and Fairness subsystem", FLOW);
    EXECUTING = gauge("apiserver_flowcontrol_current_executing_requests", "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem", FLOW);
    SEATS_EXECUTING = gauge("apiserver_flowcontrol_current_executing_seats", "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem", FLOW);
    WAIT = histogram("apiserver_flowcontrol_request_wait_duration_seconds", "Length of time a request spent waiting in its queue", &["flow_schema", "priority_level", "execute"], WAIT_BUCKETS);
    EXECUTION = histogram("apiserver_flowcontrol_request_execution_seconds", "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem", &["flow_schema", "priority_level", "type"], WAIT_BUCKETS);
    WATCHERS = histogram("apiserver_flowcontrol_watch_count_samples", "count of watchers for mutating requests in API Priority and Fairness", FLOW, &[0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0]);
    ESTIMATED = histogram("apiserver_flowcontrol_work_estimated_seats", "Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness", FLOW, SEAT_BUCKETS);
    NOMINAL = gauge("apiserver_flowcontrol_nominal_limit_seats", "Nominal number of execution seats configured for each priority level", LEVEL);
    LOWER = gauge("apiserver_flowcontrol_lower_limit_seats", "Configured lower bound on number of execution seats available to each priority level", LEVEL);
    UPPER = gauge("apiserver_flowcontrol_upper_limit_seats", "Configured upper bound on number of execution seats available to each priority level", LEVEL);
    HIGH_WATERMARK = gauge("apiserver_flowcontrol_demand_seats_high_watermark", "High watermark, over last adjustment period, of demand_seats", LEVEL);
    AVERAGE = gauge("apiserver_flowcontrol_demand_seats_average", "Time-weighted average, over last adjustment period, of demand_seats", LEVEL);
    DEVIATION = gauge("apiserver_flowcontrol_demand_seats_stdev", "Time-weighted standard deviation, over last adjustment period, of demand_seats", LEVEL);
    SMOOTHED = gauge("apiserver_flowcontrol_demand_seats_smoothed", "Smoothed seat demands", LEVEL);
    TARGET = gauge("apiserver_flowcontrol_target_seats", "Seat allocation targets", LEVEL);
    FAIR_FRACTION = gauge("apiserver_flowcontrol_seat_fair_frac", "Fair fraction of server's concurrency to allocate to each priority level that can use it", &[]);
    CURRENT = gauge("apiserver_flowcontrol_current_limit_seats", "current derived number of execution seats available to each priority level", LEVEL);
}

/// A level's seats by its configuration.
pub fn limits(level: &str, nominal: u64, lower: u64, upper: u64) {
    for (family, value) in [(&NOMINAL, nominal), (&LOWER, lower), (&UPPER, upper)] {
        family.set(&[level], value as f64);
    }
}

/// A level's demand, and the seats it was given.
pub fn adjusted(level: &str, seen: &Seen, target: f64, current: u64) {
    let values = [
        (&HIGH_WATERMARK, seen.high_watermark as f64),
        (&AVERAGE, seen.average),
        (&DEVIATION, seen.deviation),
        (&SMOOTHED, seen.smoothed),
        (&TARGET, target),
        (&CURRENT, current as f64),
    ];
    values.into_iter().for_each(|(family, value)| family.set(&[level], value));
}

/// Forgets a level that is gone.
pub fn forget(level: &str) {
    let families = [&NOMINAL, &LOWER, &UPPER, &HIGH_WATERMARK, &AVERAGE, &DEVIATION, &SMOOTHED, &TARGET, &CURRENT];
    families.into_iter().for_each(|family| family.forget(level));
}

/// A request begins (1) or ends (-1) to wait.
pub fn waits(flow: &[&str; 2], work: &Work, sign: f64) {
    IN_QUEUE.add(flow, sign);
    SEATS_IN_QUEUE.add(flow, sign * work.max_seats() as f64);
}

/// A request begins (1) or ends (-1) to run.
pub fn runs(flow: &[&str; 2], work: &Work, sign: f64) {
    EXECUTING.add(flow, sign);
    SEATS_EXECUTING.add(flow, sign * work.max_seats() as f64);
}
