//! How kubectl shows pods.

use crate::age;
use crate::columns::{AGE, NAME, or_none};
use crate::field::Fields;
use api::Object;
use api::table::Column;
use jiff::Timestamp;
use serde_json::Value;

/// Columns of a pod.
pub const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Ready").describe("The aggregate readiness state of this pod for accepting traffic."),
    Column::string("Status").describe("The aggregate status of the containers in this pod."),
    Column::string("Restarts").describe("The number of times the containers in this pod have been restarted and when the last container in this pod has restarted."),
    AGE,
    Column::string("IP").wide().field("io.k8s.api.core.v1.PodStatus", "podIP"),
    Column::string("Node").wide().field("io.k8s.api.core.v1.PodSpec", "nodeName"),
    Column::string("Nominated Node").wide().field("io.k8s.api.core.v1.PodStatus", "nominatedNodeName"),
    Column::string("Readiness Gates").wide().field("io.k8s.api.core.v1.PodSpec", "readinessGates"),

];

/// Cells of a pod.
pub fn row(pod: &Object, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (pod.at("spec"), pod.at("status"));
    let summary = Summary::of(pod);
    let ip = status.list("podIPs").first().map_or(status.text("podIP"), |ip| ip.text("ip"));
    vec![
        api::meta::name(pod).into(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.word.into(),
        restarts(summary.restarts, summary.last_restart, now).into(),
        age::since_creation(pod, now).into(),
        or_none(ip),
        or_none(spec.text("nodeName")),
        or_none(status.text("nominatedNodeName")),
        readiness_gates(spec, status),
    ]
}

fn restarts(count: i64, last: Option<Timestamp>, now: Timestamp) -> String {
    match last {
        Some(last) if count != 0 => format!("{count} ({} ago)", age::human(now.as_second() - last.as_second())),
        _ => count.to_string(),
    }
}

fn readiness_gates(spec: &Value, status: &Value) -> Value {
    let gates = spec.list("readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates.iter().filter(|g| condition(status, g.text("conditionType"))).count();
    format!("{open}/{}", gates.len()).into()
}

fn condition(status: &Value, kind: &str) -> bool {
    status.list("conditions").iter().any(|c| c.text("type") == kind && c.text("status") == "True")
}

/// What the containers come to.
struct Summary {
    word: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn of(pod: &Object) -> Self {
        let (spec, status) = (pod.at("spec"), pod.at("status"));
        let mut summary = Self::start(spec, status);
        let sidecars = Sidecars::of(spec);
        summary.total += sidecars.0.len();
        let initializing = summary.init_containers(spec, status, &sidecars);
        if !initializing || condition(status, "Initialized") {
            summary.containers(status, &sidecars);
        }
        if api::meta::is_deleting(pod) {
            let finished = ["Succeeded", "Failed"].contains(&status.text("phase"));
            match status.text("reason") {
                "NodeLost" => summary.word = "Unknown".into(),
                _ if !finished => summary.word = "Terminating".into(),
                _ => {}
            }
        }
        summary
    }

    fn start(spec: &Value, status: &Value) -> Self {
        let reason = status.text("reason");
        let mut word = if reason.is_empty() { status.text("phase") } else { reason };
        let gated = |c: &Value| c.text("type") == "PodScheduled" && c.text("reason") == "SchedulingGated";
        if status.list("conditions").iter().any(gated) {
            word = "SchedulingGated";
        }
        Self { word: word.into(), ready: 0, total: spec.list("containers").len(), restarts: 0, last_restart: None }
    }

    /// Whether an init container is still at work; sets the word for it.
    fn init_containers(&mut self, spec: &Value, status: &Value, sidecars: &Sidecars<'_>) -> bool {
        for (i, c) in status.list("initContainerStatuses").iter().enumerate() {
            self.count_restarts(c);
            let (ended, waiting) = (c.at("state").at("terminated"), c.at("state").at("waiting").text("reason"));
            if !ended.is_null() && ended.int("exitCode").unwrap_or(0) == 0 {
                continue;
            }
            if sidecars.has(c) && c.flag("started") {
                self.ready += usize::from(c.flag("ready"));
                continue;
            }
            self.word = if !ended.is_null() {
                format!("Init:{}", end_word(ended))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{i}/{}", spec.list("initContainers").len())
            };
            return true;
        }
        false
    }

    fn containers(&mut self, status: &Value, sidecars: &Sidecars<'_>) {
        // restarts of plain init containers no longer count
        (self.restarts, self.last_restart) = (0, None);
        status.list("initContainerStatuses").iter().filter(|c| sidecars.has(c)).for_each(|c| self.count_restarts(c));
        let mut running = false;
        for c in status.list("containerStatuses").iter().rev() {
            self.count_restarts(c);
            let (state, waiting) = (c.at("state"), c.at("state").at("waiting").text("reason"));
            if !waiting.is_empty() {
                self.word = waiting.into();
            } else if state.has("terminated") {
                self.word = end_word(state.at("terminated"));
            } else if c.flag("ready") && state.has("running") {
                running = true;
                self.ready += 1;
            }
        }
        if self.word == "Completed" && running {
            self.word = if condition(status, "Ready") { "Running" } else { "NotReady" }.into();
        }
    }

    fn count_restarts(&mut self, c: &Value) {
        self.restarts += c.int("restartCount").unwrap_or(0);
        let ended = age::parse(c.at("lastState").at("terminated").get("finishedAt"));
        self.last_restart = self.last_restart.max(ended);
    }
}

fn end_word(ended: &Value) -> String {
    match (ended.text("reason"), ended.int("signal").unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", ended.int("exitCode").unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}

/// Names of init containers that keep running.
struct Sidecars<'a>(Vec<&'a str>);

impl<'a> Sidecars<'a> {
    fn of(spec: &'a Value) -> Self {
        let keeps = |c: &&Value| c.text("restartPolicy") == "Always";
        Self(spec.list("initContainers").iter().filter(keeps).map(|c| c.text("name")).collect())
    }

    fn has(&self, status: &Value) -> bool {
        self.0.contains(&status.text("name"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(status: Value, deleting: bool, want: [&str; 3]) {
        let mut pod = json!({"metadata": {"name": "p"}, "status": status,
            "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}});
        if deleting {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        let now = "2026-01-01T00:00:10Z".parse().expect("time");
        let row = row(&pod, now);
        assert_eq!([&row[1], &row[2], &row[3]].map(|v| v.as_str().unwrap_or("")), want, "{pod}");
    }

    #[test]
    fn words() {
        let running = json!({"phase": "Running", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}],
            "containerStatuses": [{"name": "c", "ready": true, "state": {"running": {}}, "restartCount": 2,
                "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:05Z"}}}]});
        check(running.clone(), false, ["1/1", "Running", "2 (5s ago)"]);
        check(running, true, ["1/1", "Terminating", "2 (5s ago)"]);
        check(json!({"phase": "Pending"}), false, ["0/1", "Pending", "0"]);
        let init = |state: Value| json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": state}]});
        check(init(json!({"running": {}})), false, ["0/1", "Init:0/1", "0"]);
        check(init(json!({"terminated": {"exitCode": 3}})), false, ["0/1", "Init:ExitCode:3", "0"]);
        check(init(json!({"terminated": {"exitCode": 1, "reason": "Error"}})), false, ["0/1", "Init:Error", "0"]);
        check(init(json!({"waiting": {"reason": "CrashLoopBackOff"}})), false, ["0/1", "Init:CrashLoopBackOff", "0"]);
        let one = |state: Value| json!({"phase": "Running", "containerStatuses": [{"name": "c", "state": state}]});
        check(one(json!({"waiting": {"reason": "CrashLoopBackOff"}})), false, ["0/1", "CrashLoopBackOff", "0"]);
        check(one(json!({"terminated": {"exitCode": 0, "reason": "Completed"}})), false, ["0/1", "Completed", "0"]);
        check(one(json!({"terminated": {"exitCode": 137, "signal": 9}})), false, ["0/1", "Signal:9", "0"]);
    }
}
