//! Views of a pod's spec: what the rest of the kubelet asks about it.

use api::k8s::core::v1::{Container, ContainerStatus, EphemeralContainer, Pod, PodSpec, PodStatus};

/// Phases after which no container of a pod runs again.
pub const TERMINAL: [&str; 2] = ["Succeeded", "Failed"];

/// Which list of the spec a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerType {
    /// `spec.initContainers`, sidecars among them.
    Init,
    /// `spec.containers`
    Regular,
    /// `spec.ephemeralContainers`
    Ephemeral,
}

/// Short names for what every pod has.
pub trait PodExt {
    /// `metadata.uid`
    fn uid(&self) -> &str;
    /// `metadata.name`
    fn name(&self) -> &str;
    /// `metadata.namespace`
    fn namespace(&self) -> &str;
    /// The spec; a pod without one has no containers.
    fn spec(&self) -> &PodSpec;
    /// The phase, empty when none was written.
    fn phase(&self) -> &str;
    /// Whether the API's phase is Succeeded or Failed.
    fn is_terminal(&self) -> bool;
    /// Whether deletion was asked for.
    fn is_deleted(&self) -> bool;
    /// Whether the pod uses the node's network.
    fn host_network(&self) -> bool;
    /// `Always`, `OnFailure` or `Never`.
    fn restart_policy(&self) -> &str;
    /// The container of a name, wherever it stands in the spec.
    fn container(&self, name: &str) -> Option<(ContainerType, Container)>;
}

static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

impl PodExt for Pod {
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn spec(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&EMPTY)
    }

    fn phase(&self) -> &str {
        self.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
    }

    fn is_terminal(&self) -> bool {
        TERMINAL.contains(&self.phase())
    }

    fn is_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn host_network(&self) -> bool {
        self.spec().host_network.unwrap_or(false)
    }

    fn restart_policy(&self) -> &str {
        self.spec().restart_policy.as_deref().unwrap_or("Always")
    }

    fn container(&self, name: &str) -> Option<(ContainerType, Container)> {
        let spec = self.spec();
        let init = spec.init_containers.iter().flatten().find(|c| c.name == name);
        let regular = spec.containers.iter().find(|c| c.name == name);
        let ephemeral = spec.ephemeral_containers.iter().flatten().find(|c| c.name == name);
        init.map(|c| (ContainerType::Init, c.clone()))
            .or_else(|| regular.map(|c| (ContainerType::Regular, c.clone())))
            .or_else(|| ephemeral.map(|c| (ContainerType::Ephemeral, from_ephemeral(c))))
    }
}

/// An ephemeral container as a container: it has the same fields, and a target.
pub fn from_ephemeral(from: &EphemeralContainer) -> Container {
    let c = from.clone();
    Container {
        args: c.args,
        command: c.command,
        env: c.env,
        env_from: c.env_from,
        image: c.image,
        image_pull_policy: c.image_pull_policy,
        name: c.name,
        resources: c.resources,
        security_context: c.security_context,
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        termination_message_path: c.termination_message_path,
        termination_message_policy: c.termination_message_policy,
        tty: c.tty,
        volume_mounts: c.volume_mounts,
        working_dir: c.working_dir,
        ..Container::default()
    }
}

/// Least priority of critical pods.
pub const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// Whether a pod must run if anything does: static pods and those of system priorities.
pub fn is_critical(pod: &Pod) -> bool {
    crate::static_pods::is_static(pod)
        || crate::static_pods::is_mirror(pod)
        || pod.spec().priority.is_some_and(|p| p >= SYSTEM_CRITICAL)
}

/// Whether one pod may make another go.
pub fn is_preemptable(preemptor: &Pod, pod: &Pod) -> bool {
    if is_critical(preemptor) && !is_critical(pod) {
        return true;
    }
    matches!((preemptor.spec().priority, pod.spec().priority), (Some(a), Some(b)) if a > b)
}

/// Whether an init container is a sidecar (restartPolicy Always).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether a container is started again after it ended with a code, by its own rules, its own policy, the pod's.
pub fn restarts_after(container: &Container, pod: &Pod, exit_code: i32) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|v| *v == exit_code);
        let matches = if codes.operator == "NotIn" { !listed } else { listed };
        if matches && rule.action == "Restart" {
            return true;
        }
    }
    match container.restart_policy.as_deref().unwrap_or_else(|| pod.restart_policy()) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// The statuses of every container of a status, init containers first.
pub fn container_statuses(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .chain(&status.ephemeral_container_statuses)
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn restart_follows_rules_then_policies() {
        let check = |container: serde_json::Value, policy: &str, code: i32, expect: bool| {
            let container: Container = serde_json::from_value(container).expect("container");
            let pod: Pod =
                serde_json::from_value(json!({"metadata": {}, "spec": {"restartPolicy": policy, "containers": []}}))
                    .expect("pod");
            assert_eq!(restarts_after(&container, &pod, code), expect);
        };
        check(json!({"name": "a"}), "Always", 0, true);
        check(json!({"name": "a"}), "OnFailure", 0, false);
        check(json!({"name": "a"}), "OnFailure", 1, true);
        check(json!({"name": "a"}), "Never", 1, false);
        check(json!({"name": "a", "restartPolicy": "Always"}), "Never", 0, true);
        let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
        check(json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules": rules}), "Never", 42, true);
    }
}
