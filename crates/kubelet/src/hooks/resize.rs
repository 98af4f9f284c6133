//! In-place resize: what runs gets the limits its spec has now (KEP-1287).
//!
//! A resize that the node cannot hold is not carried out: the pod says so in `PodResizePending`, and its status
//! goes on showing what it has.

use super::{Flow, Hook, kill};
use crate::events::EventType;
use crate::pod::{PodExt, is_sidecar, restarts_after};
use crate::qos;
use crate::worker::Worker;
use crate::{admission, container_config, static_pods};
use api::k8s::core::v1::{Container, Pod, ResourceRequirements};
use async_trait::async_trait;
use cri::{ContainerState, ContainerStatus, LinuxContainerResources};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// The hook.
pub struct Resize;

/// Resources as last granted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Granted {
    /// Of the pod as a whole (KEP-5419).
    pub pod: Option<ResourceRequirements>,
    /// Of containers by name.
    pub containers: BTreeMap<String, Option<ResourceRequirements>>,
}

impl Granted {
    /// The pod with what it was granted in place of what its spec asks for.
    pub fn allocated<'a>(&self, pod: &'a Pod) -> Cow<'a, Pod> {
        let spec = pod.spec();
        let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let as_granted = |c: &Container| self.containers.get(&c.name).is_none_or(|granted| *granted == c.resources);
        if self.containers.is_empty() || (spec.resources == self.pod && all.all(as_granted)) {
            return Cow::Borrowed(pod);
        }
        let mut out = pod.clone();
        if let Some(spec) = &mut out.spec {
            spec.resources.clone_from(&self.pod);
            for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                if let Some(granted) = self.containers.get(&container.name) {
                    container.resources.clone_from(granted);
                }
            }
        }
        Cow::Owned(out)
    }
}

#[async_trait]
impl Hook for Resize {
    async fn sync(&self, worker: &mut Worker) -> Flow {
        let wanted = wanted(worker);
        if worker.granted.containers.is_empty() {
            worker.granted = wanted;
            return Flow::Continue;
        }
        if worker.granted != wanted {
            let before = worker.resize_pending.take();
            worker.resize_pending = pending(worker);
            if let Some((reason, message)) = worker.resize_pending.clone() {
                if before.map(|(reason, _)| reason) != Some(reason) {
                    let (event, prefix) = (format!("Resize{reason}"), format!("Pod resize {reason}"));
                    tell(worker, EventType::Warning, &event, &prefix, &message);
                }
                return Flow::Continue;
            }
            worker.granted = wanted;
            worker.resizing = true;
            tell(worker, EventType::Normal, "ResizeStarted", "Pod resize started", "");
            worker.publish(false);
        } else {
            worker.resize_pending = None;
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

/// An event about a resize, with what every container is to have.
fn tell(worker: &Worker, kind: EventType, reason: &str, prefix: &str, error: &str) {
    let pod = &worker.pod;
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
    containers(worker).iter().all(|container| {
        let want = container_config::resources(&worker.ctx, &worker.pod, container);
        worker.state.current(&container.name).is_some_and(|now| match now.state {
            ContainerState::Running => same(&want, &now.resources),
            ContainerState::Exited => !restarts_after(container, &worker.pod, now.exit_code),
            ContainerState::Created | ContainerState::Unknown => false,
        })
    })
}

fn containers(worker: &Worker) -> Vec<Container> {
    let pod = worker.pod.clone();
    let sidecars = pod.spec().init_containers.iter().flatten().filter(|c| is_sidecar(c));
    pod.spec().containers.iter().chain(sidecars).cloned().collect()
}

fn wanted(worker: &Worker) -> Granted {
    Granted {
        pod: worker.pod.spec().resources.clone(),
        containers: containers(worker).into_iter().map(|c| (c.name, c.resources)).collect(),
    }
}

/// Reason and message of a resize that does not fit: never, or not now.
fn pending(worker: &Worker) -> Option<(&'static str, String)> {
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
        if exclusive && qos::class(&worker.pod) == "Guaranteed" && changes(worker, resource) {
            return Some(("Infeasible", format!("Resize is infeasible for Guaranteed Pods alongside {what}")));
        }
    }
    admission::fits(&worker.ctx, &worker.pod, &others).err().map(|(_, message)| ("Deferred", message))
}

/// Whether the pod or a container is to have another amount of a resource than it was granted.
fn changes(worker: &Worker, resource: &str) -> bool {
    let amount = |r: &Option<ResourceRequirements>| {
        r.as_ref().and_then(|r| r.requests.as_ref().or(r.limits.as_ref())?.get(resource).cloned())
    };
    let (wanted, granted) = (wanted(worker), &worker.granted);
    let of = |name: &String| granted.containers.get(name);
    let mut containers = wanted.containers.iter();
    amount(&wanted.pod) != amount(&granted.pod)
        || containers.any(|(name, want)| of(name).is_none_or(|had| amount(had) != amount(want)))
}

/// Whether the pod has what it was granted, and its containers were given theirs.
async fn carry_out(worker: &mut Worker) -> bool {
    let (ctx, pod) = (worker.ctx.clone(), worker.pod.clone());
    let mut late = Vec::new();
    for container in containers(worker) {
        let running = worker.state.current(&container.name).filter(|c| c.state == ContainerState::Running).cloned();
        let Some(running) = running else { continue };
        let want = container_config::resources(&ctx, &pod, &container);
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
