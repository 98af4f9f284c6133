//! The life of a pod as a list of hooks, walked in order by every sync.
//!
//! A hook compares what it is responsible for with the spec and does what is missing. It is idempotent, keeps
//! nothing of its own, and says how the walk goes on. Admission comes before the list, in the order pods arrive.

mod containers;
mod deadline;
mod devices;
mod ephemeral_containers;
mod git_repos;
mod init_containers;
mod preparation;
pub mod probes;
pub mod resize;
mod sandbox;
mod volumes;

use crate::pod::ContainerType;
use crate::start::{self, StartError};
use crate::worker::Worker;
use api::k8s::core::v1::Container;
use async_trait::async_trait;
use cri::ContainerStatus;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How the walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// With the next hook.
    Continue,
    /// Not now: something must happen first, which wakes the pod.
    Wait,
    /// From the beginning: the state has changed.
    Again,
}

/// One part of a pod's life.
#[async_trait]
pub trait Hook: Send + Sync {
    /// Does what is missing.
    async fn sync(&self, worker: &mut Worker) -> Flow;
}

/// The order of life.
const HOOKS: [&dyn Hook; 11] = [
    &deadline::Deadline,
    &preparation::Preparation,
    &devices::Devices,
    &resize::Resize,
    &volumes::Volumes,
    &sandbox::Sandbox,
    &git_repos::GitRepos,
    &ephemeral_containers::EphemeralContainers,
    &init_containers::InitContainers,
    &containers::Containers,
    &probes::Probes,
];

/// Walks the list once.
pub async fn sync(worker: &mut Worker) -> Flow {
    // Written unless a newer one comes soon: a pod that starts at once is written once.
    worker.publish(false);
    for hook in HOOKS {
        match hook.sync(worker).await {
            Flow::Continue => {}
            // Probes go on while the rest waits.
            Flow::Wait => {
                probes::sync(worker, false);
                return Flow::Wait;
            }
            Flow::Again => return Flow::Again,
        }
    }
    Flow::Wait
}

/// Unix nanoseconds as a point in time.
fn time(nanoseconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

/// Starts a container unless its back-off forbids it. Whether it was started.
async fn start(worker: &mut Worker, container: &Container, target_id: Option<String>) -> bool {
    let ended = worker.state.latest(&container.name).map(ended_at);
    start_after(worker, container, target_id, ended).await
}

/// Starts a container in the place of one that was just ended here: as upstream, its back-off counts from the end of the
/// instance before that one.
async fn start_again(worker: &mut Worker, container: &Container) -> bool {
    let ended = worker.state.history(&container.name).get(1).map(|before| ended_at(before));
    start_after(worker, container, None, ended).await
}

async fn start_after(
    worker: &mut Worker,
    container: &Container,
    target_id: Option<String>,
    ended: Option<SystemTime>,
) -> bool {
    let now = SystemTime::now();
    let in_force = ended.and_then(|ended| worker.backoff.in_force(&container.name, ended, now));
    if let Some((delay, until)) = in_force {
        crash_loop(worker, container, delay, until);
        return false;
    }
    if let Some(at) = worker.not_before.get(&container.name).copied().filter(|at| *at > now) {
        worker.wake_at(at);
        return false;
    }
    match start::start(worker, container, target_id).await {
        Ok(()) => {
            worker.not_before.remove(&container.name);
            if let Some(ended) = ended {
                // Counted from the end of the instance before: its age says whether the container has recovered.
                worker.backoff.next(&container.name, ended);
            }
            true
        }
        Err(StartError { reason, .. }) if reason.is_empty() => false,
        Err(StartError { reason, message, retry_at }) => {
            let failed_instance = ["RunContainerError", "PostStartHookError"].contains(&reason.as_str());
            if failed_instance {
                worker.backoff.next(&container.name, ended.unwrap_or(now));
            }
            let retry = if failed_instance { now } else { now + RETRY };
            if let Some(at) = retry_at {
                worker.not_before.insert(container.name.clone(), at);
            }
            worker.wake_at(retry_at.unwrap_or(retry));
            worker.waiting.insert(container.name.clone(), (reason, message));
            failed_instance
        }
    }
}

/// When a container whose configuration or creation failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

fn ended_at(status: &ContainerStatus) -> SystemTime {
    let at = if status.finished_at > 0 { status.finished_at } else { status.started_at.max(status.created_at) };
    time(at)
}

fn crash_loop(worker: &mut Worker, container: &Container, delay: Duration, until: SystemTime) {
    use crate::events::{EventType, reason};
    let (name, pod) = (&container.name, crate::format::pod(&worker.pod));
    let message = format!("back-off {} restarting failed container={name} pod={pod}", crate::format::duration(delay));
    let waiting = ("CrashLoopBackOff".to_owned(), message);
    if worker.waiting.get(name) != Some(&waiting) {
        let text = format!("Back-off restarting failed container {name} in pod {pod}");
        worker.ctx.recorder.container(&worker.pod, container, EventType::Warning, reason::BACK_OFF, text);
        worker.waiting.insert(name.clone(), waiting);
    }
    worker.wake_at(until);
}

/// Ends an instance that is to be replaced.
async fn kill(worker: &mut Worker, container: &Container, id: &str, message: String, grace: Option<i64>) {
    let grace = grace.and_then(|g| u64::try_from(g).ok()).map(Duration::from_secs);
    let grace = grace.unwrap_or_else(|| crate::termination::grace_period(&worker.pod));
    let (ctx, pod) = (worker.ctx.clone(), worker.pod.clone());
    let ip = crate::status::pod_ips(&ctx, &pod, &worker.state).into_iter().next();
    let kill = crate::termination::Kill { grace, message, order: None };
    // The end of the pod takes over an unfinished kill: it ends all containers anyway.
    let ending = worker.mailbox.ending.clone();
    ending.run_until_cancelled(crate::termination::kill(&ctx, &pod, Some(container), id, ip, kill)).await;
    worker.refresh(id).await;
}

/// Why a running container is to be replaced: the message and the grace of the probe, where that is the cause.
fn replacement(
    worker: &Worker,
    container: &Container,
    status: &ContainerStatus,
    kind: ContainerType,
) -> Option<(String, Option<i64>)> {
    use crate::probes::results::ProbeKind;
    let name = &container.name;
    let hash = status.annotations.get(crate::state::label::HASH);
    let restarts = crate::pod::restarts_after(container, &worker.pod, 1);
    let text = |why: &str, restarts: bool| match (kind, restarts) {
        (ContainerType::Init, _) => format!("Init container {name} {why}"),
        (_, true) => format!("Container {name} {why}, will be restarted"),
        (_, false) => format!("Container {name} {why}"),
    };
    if hash.is_some_and(|h| *h != crate::container_config::hash(container)) {
        return Some((text("definition changed", true), None));
    }
    for (kind, word) in [(ProbeKind::Liveness, "liveness"), (ProbeKind::Startup, "startup")] {
        if worker.ctx.probes.get(&status.id, kind) == Some(false) {
            let grace = crate::probes::spec(container, kind).and_then(|p| p.termination_grace_period_seconds);
            return Some((text(&format!("failed {word} probe"), restarts), grace));
        }
    }
    None
}
