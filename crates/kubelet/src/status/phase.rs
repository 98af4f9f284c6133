//! The phase of a pod, from its containers' statuses.

use crate::pod::{PodExt, is_sidecar, restarts_after};
use api::k8s::core::v1::{Container, ContainerState, ContainerStateTerminated, ContainerStatus, Pod};

/// Counts of what containers do.
#[derive(Default)]
struct Counts {
    pending_init: usize,
    pending_sidecars: usize,
    failed_init: bool,
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    final_stops: usize,
    succeeded: usize,
}

fn state<'a>(statuses: &'a [ContainerStatus], name: &str) -> Option<(&'a ContainerStatus, &'a ContainerState)> {
    let status = statuses.iter().find(|s| s.name == name)?;
    Some((status, status.state.as_ref()?))
}

fn last(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.last_state.as_ref()?.terminated.as_ref()
}

impl Counts {
    fn init(&mut self, pod: &Pod, container: &Container, statuses: &[ContainerStatus]) {
        let Some((status, state)) = state(statuses, &container.name) else { return self.pending_init += 1 };
        let ended = match (&state.terminated, &state.waiting) {
            (Some(ended), _) => Some(ended),
            (_, Some(_)) => last(status),
            _ => None,
        };
        match ended {
            Some(ended) => self.failed_init |= ended.exit_code != 0 && !restarts_after(container, pod, ended.exit_code),
            None => self.pending_init += 1,
        }
    }

    fn sidecar(&mut self, container: &Container, statuses: &[ContainerStatus]) {
        match state(statuses, &container.name) {
            None => self.unknown += 1,
            Some((status, state)) if state.running.is_some() => {
                self.pending_sidecars += usize::from(!status.started.unwrap_or(false));
                self.running += 1;
            }
            // One that has ended counts for nothing: it does not hold the pod's phase.
            Some((_, state)) if state.terminated.is_some() => {}
            Some((status, _)) if last(status).is_some() => {}
            Some(_) => {
                self.pending_sidecars += 1;
                self.waiting += 1;
            }
        }
    }

    fn regular(&mut self, pod: &Pod, container: &Container, statuses: &[ContainerStatus]) {
        let Some((status, state)) = state(statuses, &container.name) else { return self.unknown += 1 };
        if state.running.is_some() {
            self.running += 1;
        } else if let Some(ended) = &state.terminated {
            self.stopped += 1;
            self.final_stops += usize::from(!restarts_after(container, pod, ended.exit_code));
            self.succeeded += usize::from(ended.exit_code == 0);
        } else if let Some(ended) = last(status) {
            self.stopped += 1;
            self.final_stops += usize::from(!restarts_after(container, pod, ended.exit_code));
        } else if state.waiting.is_some() {
            self.waiting += 1;
        } else {
            self.unknown += 1;
        }
    }
}

/// The phase. `over`: no container of the pod is started again. `initialized`: a regular container has started before.
pub fn phase(
    pod: &Pod,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
    over: bool,
    initialized: bool,
) -> &'static str {
    let (spec, mut counts) = (pod.spec(), Counts::default());
    for container in spec.init_containers.iter().flatten() {
        if is_sidecar(container) { counts.sidecar(container, init) } else { counts.init(pod, container, init) }
    }
    spec.containers.iter().for_each(|c| counts.regular(pod, c, regular));
    let end = if counts.stopped == counts.succeeded { "Succeeded" } else { "Failed" };
    if counts.failed_init {
        return "Failed";
    }
    if counts.pending_init > 0
        || (counts.pending_sidecars > 0 && !initialized)
        || counts.waiting > 0
        || counts.unknown > 0
    {
        return "Pending";
    }
    match (counts.running, counts.stopped) {
        (0, 0) => "Pending",
        (0, _) if over => end,
        (0, stopped) if stopped == counts.final_stops => end,
        _ => "Running",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(policy: &str, init: &[(&str, Value)], regular: &[Value], expect: &str) {
        let containers: Vec<Value> = (0..regular.len()).map(|i| json!({"name": format!("c{i}")})).collect();
        let inits: Vec<Value> = init.iter().enumerate().map(|(i, (p, _))| json!({"name": format!("i{i}"), "restartPolicy": if p.is_empty() { Value::Null } else { json!(p) }})).collect();
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {"restartPolicy": policy, "containers": containers, "initContainers": inits}})).expect("pod");
        let statuses = |prefix: &str, states: Vec<Value>| -> Vec<ContainerStatus> {
            let of = |(i, s): (usize, Value)| json!({"name": format!("{prefix}{i}"), "image": "", "imageID": "", "ready": false, "restartCount": 0, "started": true, "state": s});
            states.into_iter().enumerate().map(|p| serde_json::from_value(of(p)).expect("status")).collect()
        };
        let init = statuses("i", init.iter().map(|(_, s)| s.clone()).collect());
        let regular = statuses("c", regular.to_vec());
        assert_eq!(phase(&pod, &init, &regular, false, false), expect);
    }

    #[test]
    fn phases_follow_containers_and_policy() {
        let (waiting, running) = (json!({"waiting": {}}), json!({"running": {}}));
        let ended = |code: i32| json!({"terminated": {"exitCode": code}});
        check("Always", &[], std::slice::from_ref(&waiting), "Pending");
        check("Always", &[], &[running.clone(), waiting.clone()], "Pending");
        check("Always", &[], &[running.clone(), ended(1)], "Running");
        check("Always", &[], &[ended(0)], "Running");
        check("OnFailure", &[], &[ended(0)], "Succeeded");
        check("OnFailure", &[], &[ended(1)], "Running");
        check("Never", &[], &[ended(1), ended(0)], "Failed");
        check("Never", &[("", ended(1))], std::slice::from_ref(&waiting), "Failed");
        check("Always", &[("", ended(1))], std::slice::from_ref(&waiting), "Pending");
        check("Never", &[("Always", ended(1))], &[ended(0)], "Succeeded");
        check("Never", &[("Always", running.clone())], &[ended(0)], "Running");
    }
}
