//! The conditions of a pod that the kubelet owns.

use crate::format::list;
use crate::pod::{PodExt, is_sidecar};
use api::k8s::core::v1::{Container, ContainerStatus, Pod, PodCondition};
use api::machinery::apis::meta::v1::Time;

/// Types written by the kubelet alone.
pub const OWNED: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// Types written by the kubelet that are there only while a resize is under way.
pub const RESIZE: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// Whether a condition is the kubelet's.
pub fn is_owned(name: &str) -> bool {
    OWNED.contains(&name) || RESIZE.contains(&name)
}

/// Why a pod is disrupted, where its node is the one who does it.
pub const DISRUPTION: &str = "DisruptionTarget";
const BY_KUBELET: &str = "TerminationByKubelet";

/// Whether the kubelet writes a condition.
pub fn is_written(name: &str, reason: Option<&str>) -> bool {
    is_owned(name) || (name == DISRUPTION && reason == Some(BY_KUBELET))
}

/// What conditions are made of.
pub struct Facts<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its phase to be.
    pub phase: &'a str,
    /// Statuses of init containers.
    pub init: &'a [ContainerStatus],
    /// Statuses of regular containers.
    pub regular: &'a [ContainerStatus],
    /// Whether a sandbox with its network is there.
    pub sandbox: bool,
    /// Whether a resize is under way.
    pub resizing: bool,
    /// Why a resize waits.
    pub resize_pending: Option<&'a (&'static str, String)>,
    /// Reason and message of `DisruptionTarget`, where the node ends the pod.
    pub disruption: Option<&'a (String, String)>,
    /// Conditions as last written.
    pub old: &'a [PodCondition],
    /// Now.
    pub now: Time,
}

/// All conditions: those of others as they are, then the kubelet's.
pub fn all(facts: &Facts<'_>) -> Vec<PodCondition> {
    let theirs = facts.pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut out: Vec<PodCondition> = theirs.filter(|c| !is_owned(&c.type_)).cloned().collect();
    if let Some((_, message)) = facts.disruption {
        out.retain(|c| c.type_ != DISRUPTION);
        let verdict = Verdict { holds: true, reason: BY_KUBELET, message: message.clone() };
        out.push(condition(facts, DISRUPTION, verdict));
    }
    if let Some((reason, message)) = facts.resize_pending {
        out.push(condition(facts, RESIZE[0], Verdict { holds: true, reason, message: message.clone() }));
    }
    if facts.resizing {
        out.push(condition(facts, RESIZE[1], Verdict { holds: true, reason: "", message: String::new() }));
    }
    let containers = containers_ready(facts);
    let ready = ready(facts, &containers, &out);
    let truth = |holds: bool| Verdict { holds, reason: "", message: String::new() };
    let verdicts = [truth(facts.sandbox), initialized(facts), ready, containers, truth(true)];
    for (name, verdict) in OWNED.into_iter().zip(verdicts) {
        out.push(condition(facts, name, verdict));
    }
    out
}

#[derive(Clone)]
struct Verdict {
    holds: bool,
    reason: &'static str,
    message: String,
}

fn condition(facts: &Facts<'_>, name: &str, verdict: Verdict) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let old = facts.old.iter().find(|c| c.type_ == name);
    let since = old.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
    PodCondition {
        last_probe_time: None,
        last_transition_time: Some(since.unwrap_or_else(|| facts.now.clone())),
        message: text(&verdict.message),
        observed_generation: facts.pod.metadata.generation,
        reason: text(verdict.reason),
        status: status.into(),
        type_: name.into(),
    }
}

fn terminal(phase: &str) -> Option<&'static str> {
    match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    }
}

fn containers_ready(facts: &Facts<'_>) -> Verdict {
    if let Some(reason) = terminal(facts.phase) {
        return Verdict { holds: false, reason, message: String::new() };
    }
    let spec = facts.pod.spec();
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c)).map(|c| (c, facts.init));
    let regular = spec.containers.iter().map(|c| (c, facts.regular));
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for (container, statuses) in sidecars.chain(regular) {
        match statuses.iter().find(|s| s.name == container.name) {
            None => unknown.push(&container.name),
            Some(status) if !status.ready => unready.push(&container.name),
            Some(_) => {}
        }
    }
    not_yet(&unknown, &unready, "unready", "ContainersNotReady")
}

fn not_yet(unknown: &[&String], unready: &[&String], word: &str, reason: &'static str) -> Verdict {
    let mut messages = Vec::new();
    if !unknown.is_empty() {
        messages.push(format!("containers with unknown status: {}", list(unknown)));
    }
    if !unready.is_empty() {
        messages.push(format!("containers with {word} status: {}", list(unready)));
    }
    let holds = messages.is_empty();
    Verdict { holds, reason: if holds { "" } else { reason }, message: messages.join(", ") }
}

fn ready(facts: &Facts<'_>, containers: &Verdict, others: &[PodCondition]) -> Verdict {
    if !containers.holds {
        return containers.clone();
    }
    let mut messages = Vec::new();
    for gate in facts.pod.spec().readiness_gates.iter().flatten() {
        let name = crate::format::quote(&gate.condition_type);
        match others.iter().find(|c| c.type_ == gate.condition_type) {
            None => messages.push(format!("corresponding condition of pod readiness gate {name} does not exist.")),
            Some(c) if c.status != "True" => {
                messages.push(format!("the status of pod readiness gate {name} is not \"True\", but {}", c.status));
            }
            Some(_) => {}
        }
    }
    let holds = messages.is_empty();
    Verdict { holds, reason: if holds { "" } else { "ReadinessGatesNotReady" }, message: messages.join(", ") }
}

fn initialized(facts: &Facts<'_>) -> Verdict {
    let done = |container: &Container, status: &ContainerStatus| match is_sidecar(container) {
        true => status.started.unwrap_or(false),
        false => status.ready,
    };
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in facts.pod.spec().init_containers.iter().flatten() {
        match facts.init.iter().find(|s| s.name == container.name) {
            None => unknown.push(&container.name),
            Some(status) if !done(container, status) => incomplete.push(&container.name),
            Some(_) => {}
        }
    }
    if facts.phase == "Succeeded" && unknown.is_empty() {
        return Verdict { holds: true, reason: "PodCompleted", message: String::new() };
    }
    if super::has_started(facts.regular) {
        return Verdict { holds: true, reason: "", message: String::new() };
    }
    not_yet(&unknown, &incomplete, "incomplete", "ContainersNotInitialized")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts(phase: &str, ready: bool, expect: [(&str, &str); 5]) {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"generation": 2}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
        )
        .expect("pod");
        let status = |name: &str| json!({"name": name, "image": "", "imageID": "", "ready": ready, "restartCount": 0, "state": {"waiting": {}}});
        let regular: Vec<ContainerStatus> =
            serde_json::from_value(json!([status("a"), status("b")])).expect("statuses");
        let old = Time(jiff::Timestamp::UNIX_EPOCH);
        let before: Vec<PodCondition> =
            serde_json::from_value(json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": old}]))
                .expect("old");
        let facts = Facts {
            pod: &pod,
            phase,
            init: &[],
            regular: &regular,
            sandbox: true,
            resize_pending: None,
            resizing: false,
            disruption: None,
            old: &before,
            now: Time(jiff::Timestamp::now()),
        };
        let got = all(&facts);
        let shown: Vec<_> = got.iter().map(|c| (c.status.as_str(), c.reason.as_deref().unwrap_or_default())).collect();
        assert_eq!(shown, expect);
        assert_eq!(got[4].last_transition_time, Some(old), "a condition that stays keeps its time");
        assert_eq!(got[0].observed_generation, Some(2));
    }

    #[test]
    fn conditions_follow_containers_and_phase() {
        facts(
            "Pending",
            false,
            [
                ("True", ""),
                ("True", ""),
                ("False", "ContainersNotReady"),
                ("False", "ContainersNotReady"),
                ("True", ""),
            ],
        );
        facts("Running", true, [("True", ""), ("True", ""), ("True", ""), ("True", ""), ("True", "")]);
        facts(
            "Succeeded",
            false,
            [
                ("True", ""),
                ("True", "PodCompleted"),
                ("False", "PodCompleted"),
                ("False", "PodCompleted"),
                ("True", ""),
            ],
        );
    }
}
