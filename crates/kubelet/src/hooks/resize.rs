//! In-place resize: what runs gets the limits its spec has now (KEP-1287).
//!
//! A resize that the node cannot hold is not carried out: the pod says so in `PodResizePending`, and its status
//! goes on showing what it has.

use super::{Flow, Hook, kill};
use crate::allocation::{Allocation, containers};
use crate::events::EventType;
use crate::pod::{PodExt, restarts_after};
use crate::qos;
use crate::worker::Worker;
use crate::{admission, container_config, static_pods};
use api::k8s::core::v1::{Container, ResourceRequirements};
use async_trait::async_trait;
use cri::{ContainerState, ContainerStatus, LinuxContainerResources};
use serde_json::{Map, Value, json};
use std::time::SystemTime;

/// The hook.
pub struct Resize;

#[async_trait]
impl Hook for Resize {
    async fn sync(&self, worker: &mut Worker) -> Flow {
        let wanted = Allocation::asked_by(&worker.asked);
        let before = worker.resize_pending.take();
        if *worker.mailbox.allocation() != wanted {
            worker.resize_pending = pending(worker, &wanted);
            match worker.resize_pending.clone() {
                None => grant(worker, wanted),
                Some((reason, message)) if before.is_none_or(|(before, _)| before != reason) => {
                    let (event, prefix) = (format!("Resize{reason}"), format!("Pod resize {reason}"));
                    tell(worker, EventType::Warning, &event, &prefix, &message);
                }
                Some(_) => {}
            }
        }
        let done = carry_out(worker).await;
        if worker.resizing && done && carried_out(worker) {
            worker.resizing = false;
            tell(worker, EventType::Normal, "ResizeCompleted", "Pod resize completed", "");
            worker.publish(true);
        }
        Flow::Continue
    }
}

/// Gives the pod what it asks for, from here on.
fn grant(worker: &mut Worker, wanted: Allocation) {
    if let Err(error) = wanted.write(&worker.ctx.config.pod_dir(worker.pod.uid())) {
        // A kubelet that starts again would decide anew, and would have to come to the same end.
        tracing::warn!(pod = crate::format::pod(&worker.pod), %error, "cannot write down what the pod is granted");
    }
    worker.pod = worker.mailbox.grant(wanted);
    worker.resizing = true;
    tell(worker, EventType::Normal, "ResizeStarted", "Pod resize started", "");
    worker.publish(false);
}

/// An event about a resize, with what every container is to have.
fn tell(worker: &Worker, kind: EventType, reason: &str, prefix: &str, error: &str) {
    let pod = &worker.asked;
    let of = |c: &Container| json!({"name": c.name, "resources": c.resources.clone().unwrap_or_default()});
    let mut summary = Map::new();
    let init: Vec<Value> = pod.spec().init_containers.iter().flatten().map(of).collect();
    if !init.is_empty() {
        summary.insert("initContainers".into(), init.into());
    }
    summary.insert("containers".into(), pod.spec().containers.iter().map(of).collect());
    summary.insert("generation".into(), pod.metadata.generation.into());
    if !error.is_empty() {
        summary.insert("error".into(), error.into());
    }
    let summary = Value::Object(summary);
    worker.ctx.recorder.pod(pod, kind, reason, format!("{prefix}: {summary}"));
}

/// Whether every container has what it was granted; one that is about to be started again has not, one that has ended for
/// good is done.
fn carried_out(worker: &Worker) -> bool {
    containers(&worker.pod).all(|container| {
        let want = container_config::resources(&worker.ctx, &worker.pod, container);
        worker.state.current(&container.name).is_some_and(|now| match now.state {
            ContainerState::Running => same(&want, &now.resources),
            ContainerState::Exited => !restarts_after(container, &worker.pod, now.exit_code),
            ContainerState::Created | ContainerState::Unknown => false,
        })
    })
}

/// Reason and message of a resize that does not fit: never, or not now.
fn pending(worker: &Worker, wanted: &Allocation) -> Option<(&'static str, String)> {
    let others: Vec<_> = worker.neighbours();
    if static_pods::is_static(&worker.pod) {
        return Some(("Infeasible", "In-place resize of static-pods is not supported".into()));
    }
    let settings = &worker.ctx.config.settings;
    let managers = [
        ("cpu", "CPU Manager policy \"static\"", settings.cpu_manager_policy == "static"),
        ("memory", "Memory Manager policy \"Static\"", settings.memory_manager_policy == "Static"),
    ];
    for (resource, what, exclusive) in managers {
        if exclusive
            && qos::class(&worker.asked) == "Guaranteed"
            && changes(&worker.mailbox.allocation(), wanted, resource)
        {
            return Some(("Infeasible", format!("Resize is infeasible for Guaranteed Pods alongside {what}")));
        }
    }
    admission::fits(&worker.ctx, &worker.asked, &others).err().map(|(_, message)| ("Deferred", message))
}

/// Whether the pod or a container is to have another amount of a resource than it was granted.
fn changes(granted: &Allocation, wanted: &Allocation, resource: &str) -> bool {
    let amount = |r: &Option<ResourceRequirements>| {
        r.as_ref().and_then(|r| r.requests.as_ref().or(r.limits.as_ref())?.get(resource).cloned())
    };
    let mut containers = wanted.containers.iter();
    amount(&wanted.pod) != amount(&granted.pod)
        || containers.any(|(name, want)| granted.containers.get(name).is_none_or(|had| amount(had) != amount(want)))
}

/// Whether the pod has what it was granted, and its containers were given theirs.
async fn carry_out(worker: &mut Worker) -> bool {
    let (ctx, pod) = (worker.ctx.clone(), worker.pod.clone());
    let mut late = Vec::new();
    for container in containers(&pod) {
        let running = worker.state.current(&container.name).filter(|c| c.state == ContainerState::Running).cloned();
        let Some(running) = running else { continue };
        let want = container_config::resources(&ctx, &pod, container);
        if same(&want, &running.resources) {
            continue;
        }
        late.push((container, running, want));
    }
    // Of the pod alone another amount may be wanted.
    if late.is_empty() && !worker.resizing {
        return true;
    }
    let cgroup = qos::pod_cgroup(&pod);
    // Growing must begin with the pod, shrinking must end with it: one of the two calls is the one that counts.
    let _ = ctx.config.runtime.update_pod_cgroup(&cgroup, qos::pod_cgroup_resources(&pod, &ctx.node_limits())).await;
    for (container, running, want) in late {
        if must_restart(container, &running, &want) {
            let message = format!("Container {} resize requires restart", container.name);
            kill(worker, container, &running.id, message, None).await;
            continue;
        }
        if let Err(error) = ctx.config.runtime.update_container_resources(&running.id, want).await {
            tracing::warn!(pod = crate::format::pod(&pod), container = container.name, %error, "cannot resize container");
        }
        worker.refresh(&running.id).await;
    }
    if let Err(error) =
        ctx.config.runtime.update_pod_cgroup(&cgroup, qos::pod_cgroup_resources(&pod, &ctx.node_limits())).await
    {
        tracing::warn!(pod = crate::format::pod(&pod), %error, "cannot resize the pod's cgroup");
        worker.wake_at(SystemTime::now() + super::RETRY);
        return false;
    }
    worker.publish(false);
    true
}

fn same_cpu(a: &LinuxContainerResources, b: &LinuxContainerResources) -> bool {
    a.cpu_shares == b.cpu_shares && a.cpu_quota.max(0) == b.cpu_quota.max(0)
}

fn same_memory(a: &LinuxContainerResources, b: &LinuxContainerResources) -> bool {
    a.memory_limit_in_bytes.max(0) == b.memory_limit_in_bytes.max(0)
}

fn same(a: &LinuxContainerResources, b: &LinuxContainerResources) -> bool {
    same_cpu(a, b) && same_memory(a, b)
}

fn must_restart(container: &Container, running: &ContainerStatus, want: &LinuxContainerResources) -> bool {
    let restarts = |resource: &str| {
        let policy = container.resize_policy.iter().flatten().find(|p| p.resource_name == resource);
        policy.is_some_and(|p| p.restart_policy == "RestartContainer")
    };
    (!same_cpu(want, &running.resources) && restarts("cpu"))
        || (!same_memory(want, &running.resources) && restarts("memory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_say_what_restarts() {
        let limits = |quota: i64, memory: i64| LinuxContainerResources {
            cpu_quota: quota,
            memory_limit_in_bytes: memory,
            ..Default::default()
        };
        let container: Container = serde_json::from_value(
            json!({"name": "c", "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]}),
        )
        .expect("container");
        let running = ContainerStatus {
            id: String::new(),
            sandbox_id: String::new(),
            metadata: Default::default(),
            state: ContainerState::Running,
            created_at: 0,
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            image: String::new(),
            image_ref: String::new(),
            image_id: String::new(),
            reason: String::new(),
            message: String::new(),
            labels: Default::default(),
            annotations: Default::default(),
            mounts: Vec::new(),
            log_path: String::new(),
            resources: limits(1000, 5),
            user: None,
            pid: None,
        };
        assert!(!must_restart(&container, &running, &limits(2000, 5)));
        assert!(must_restart(&container, &running, &limits(1000, 6)));
        assert!(same(&limits(-1, 5), &limits(0, 5)));
    }
}
