//! `podFailurePolicy`: what a failed pod means for its job.

use crate::pods;
use api::k8s::batch::v1::{JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use api::k8s::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use std::sync::Arc;

/// The first rule that a failed pod meets: its position, action, and what it met.
fn matched<'a>(spec: &'a JobSpec, pod: &Pod) -> Option<(usize, &'a PodFailurePolicyRule, String)> {
    if pods::phase(pod) != "Failed" {
        return None;
    }
    let rules = spec.pod_failure_policy.as_ref().map(|p| &p.rules)?;
    rules.iter().enumerate().find_map(|(at, rule)| {
        let text = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(codes), _) => exit_code(codes, pod, &rule.action, at),
            (None, Some(patterns)) => patterns.iter().find_map(|pattern| {
                let met = pods::condition(pod, &pattern.type_)
                    .is_some_and(|c| Some(&c.status) == pattern.status.as_ref().or(Some(&"True".into())));
                met.then(|| condition_text(pod, &pattern.type_, &rule.action, at))
            }),
            (None, None) => None,
        };
        text.map(|text| (at, rule, text))
    })
}

fn exit_code(codes: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod, action: &str, at: usize) -> Option<String> {
    let status = pod.status.as_ref()?;
    let statuses = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let code = |s: &ContainerStatus| s.state.as_ref()?.terminated.as_ref().map(|t| t.exit_code).filter(|c| *c != 0);
    let named = |s: &&ContainerStatus| codes.container_name.as_ref().is_none_or(|name| *name == s.name);
    statuses.filter(named).find_map(|s| {
        let code = code(s)?;
        let listed = codes.values.contains(&code);
        let met = if codes.operator == "NotIn" { !listed } else { listed };
        met.then(|| {
            format!(
                "Container {} for pod {}/{} failed with exit code {code} matching {action} rule at index {at}",
                s.name,
                pod.namespace().unwrap_or_default(),
                pod.name_any()
            )
        })
    })
}

fn condition_text(pod: &Pod, kind: &str, action: &str, at: usize) -> String {
    format!(
        "Pod {}/{} has condition {kind} matching {action} rule at index {at}",
        pod.namespace().unwrap_or_default(),
        pod.name_any()
    )
}

/// Whether a failed pod counts against the job's limits.
pub(super) fn counts(spec: &JobSpec, pod: &Pod) -> bool {
    matched(spec, pod).is_none_or(|(_, rule, _)| rule.action != "Ignore")
}

/// Whether a failed pod ends its index at once.
pub(super) fn fails_index(spec: &JobSpec, pod: &Pod) -> bool {
    matched(spec, pod).is_some_and(|(_, rule, _)| rule.action == "FailIndex")
}

/// Why the whole job fails, if a pod says so.
pub(super) fn fail_job(spec: &JobSpec, pods: &[Arc<Pod>]) -> Option<String> {
    pods.iter()
        .filter_map(|pod| matched(spec, pod))
        .find(|(_, rule, _)| rule.action == "FailJob")
        .map(|(_, _, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_matching_rule_decides() {
        let spec: JobSpec = serde_json::from_value(json!({"template": {}, "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}}))
        .expect("spec");
        let pod = |code: i32, disrupted: bool| -> Arc<Pod> {
            let conditions =
                if disrupted { json!([{"type": "DisruptionTarget", "status": "True"}]) } else { json!([]) };
            let container = json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code}}});
            let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "status": {"phase": "Failed", "conditions": conditions, "containerStatuses": [container]}});
            Arc::new(serde_json::from_value(pod).expect("pod"))
        };
        assert_eq!((counts(&spec, &pod(1, true)), counts(&spec, &pod(1, false))), (false, true));
        let want = "Container c for pod n/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(fail_job(&spec, &[pod(1, false), pod(42, false)]).as_deref(), Some(want));
        assert_eq!(fail_job(&spec, &[pod(42, true)]), None);
    }
}
