//! In-place resize: what runs gets the limits its spec has now (KEP-1287).
//!
//! A resize that the node cannot hold is not carried out: the pod says so in `PodResizePending`, and its status
//! goes on showing what it has.

use super::{Flow, Hook, kill};
use crate::admission;
use crate::pod::{PodExt, is_sidecar};
use crate::qos;
use crate::worker::Worker;
use api::k8s::core::v1::{Container, ResourceRequirements};
use async_trait::async_trait;
use cri::{ContainerState, ContainerStatus, LinuxContainerResources};
use std::collections::BTreeMap;

/// The hook.
pub struct Resize;

/// Resources of containers by name, as last granted.
pub type Granted = BTreeMap<String, Option<ResourceRequirements>>;

#[async_trait]
impl Hook for Resize {
    async fn sync(&self, worker: &mut Worker) -> Flow {
        let wanted = wanted(worker);
        if worker.granted.is_empty() {
            worker.granted = wanted;
            return Flow::Continue;
        }
        if worker.granted != wanted {
            worker.resize_pending = pending(worker);
            if worker.resize_pending.is_some() {
                return Flow::Continue;
            }
            worker.granted = wanted;
        } else {
            worker.resize_pending = None;
        }
        carry_out(worker).await
    }
}

fn containers(worker: &Worker) -> Vec<Container> {
    let pod = worker.pod.clone();
    let sidecars = pod.spec().init_containers.iter().flatten().filter(|c| is_sidecar(c));
    pod.spec().containers.iter().chain(sidecars).cloned().collect()
}

fn wanted(worker: &Worker) -> Granted {
    containers(worker).into_iter().map(|c| (c.name, c.resources)).collect()
}

/// Reason and message of a resize that does not fit: never, or not now.
fn pending(worker: &Worker) -> Option<(&'static str, String)> {
    let others: Vec<_> = worker.neighbours();
    if let Err((_, message)) = admission::fits(&worker.ctx, &worker.pod, &[]) {
        return Some(("Infeasible", message.replace("enough resource", "enough capacity")));
    }
    admission::fits(&worker.ctx, &worker.pod, &others).err().map(|(_, message)| ("Deferred", message))
}

async fn carry_out(worker: &mut Worker) -> Flow {
    let (ctx, pod) = (worker.ctx.clone(), worker.pod.clone());
    let mut late = Vec::new();
    for container in containers(worker) {
        let running = worker.state.current(&container.name).filter(|c| c.state == ContainerState::Running).cloned();
        let Some(running) = running else { continue };
        let want = qos::container_resources(&pod, &container, ctx.machine.memory_bytes());
        if same(&want, &running.resources) {
            continue;
        }
        late.push((container, running, want));
    }
    if late.is_empty() {
        return Flow::Continue;
    }
    let cgroup = qos::pod_cgroup(&pod);
    // Growing must begin with the pod, shrinking must end with it: one of the two calls is the one that counts.
    let _ = ctx.config.runtime.update_pod_cgroup(&cgroup, qos::pod_cgroup_resources(&pod)).await;
    for (container, running, want) in late {
        if must_restart(&container, &running, &want) {
            let message = format!("Container {} resize requires restart", container.name);
            kill(worker, &container, &running.id, message, None).await;
            continue;
        }
        if let Err(error) = ctx.config.runtime.update_container_resources(&running.id, want).await {
            tracing::warn!(pod = crate::format::pod(&pod), container = container.name, %error, "cannot resize container");
        }
        worker.refresh(&running.id).await;
    }
    if let Err(error) = ctx.config.runtime.update_pod_cgroup(&cgroup, qos::pod_cgroup_resources(&pod)).await {
        tracing::warn!(pod = crate::format::pod(&pod), %error, "cannot resize the pod's cgroup");
    }
    worker.publish(false);
    Flow::Continue
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
    use serde_json::json;

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
