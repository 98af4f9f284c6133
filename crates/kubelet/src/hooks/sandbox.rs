//! The pod's sandbox: made once, made anew when it dies while there is something left to run.

use super::{Flow, Hook, RETRY};
use crate::events::{EventType, reason};
use crate::pod::{PodExt, restarts_after};
use crate::worker::Worker;
use crate::{ending, sandbox};
use async_trait::async_trait;
use cri::ContainerState;
use std::time::SystemTime;

/// The hook.
pub struct Sandbox;

#[async_trait]
impl Hook for Sandbox {
    async fn sync(&self, worker: &mut Worker) -> Flow {
        if worker.state.sandbox().is_some() {
            return Flow::Continue;
        }
        if let Some(dead) = worker.state.newest_sandbox().cloned() {
            if !has_work(worker) {
                return Flow::Wait;
            }
            let message = "Pod sandbox changed, it will be killed and re-created.";
            worker.ctx.recorder.pod(&worker.pod, EventType::Normal, reason::SANDBOX_CHANGED, message);
            clear(worker, &dead.id).await;
        }
        if let Err(why) = network_ready(worker).await {
            worker.ctx.recorder.pod(
                &worker.pod,
                EventType::Warning,
                reason::NETWORK_NOT_READY,
                format!("network is not ready: {why}"),
            );
            worker.wake_at(SystemTime::now() + std::time::Duration::from_secs(1));
            return Flow::Wait;
        }
        make(worker).await
    }
}

/// Whether a pod whose sandbox died still has a container to run.
fn has_work(worker: &Worker) -> bool {
    let spec = worker.pod.spec();
    spec.containers.iter().any(|container| match worker.state.latest(&container.name) {
        None => true,
        Some(last) if last.state == ContainerState::Exited => restarts_after(container, &worker.pod, last.exit_code),
        Some(_) => restarts_after(container, &worker.pod, 137),
    })
}

/// Stops a dead sandbox and forgets its init containers: they run again in the next one.
async fn clear(worker: &mut Worker, id: &str) {
    if let Err(error) = worker.ctx.config.runtime.stop_pod_sandbox(id).await {
        tracing::warn!(pod = crate::format::pod(&worker.pod), id, %error, "cannot stop sandbox");
    }
    let ids: Vec<String> = worker.state.containers.keys().cloned().collect();
    for id in ids {
        worker.refresh(&id).await;
    }
    let pod = worker.pod.clone();
    for container in pod.spec().init_containers.iter().flatten() {
        let old: Vec<String> = worker.state.history(&container.name).into_iter().map(|s| s.id.clone()).collect();
        for id in old {
            worker.remove_container(&id).await;
        }
    }
    // Sandboxes before the last one are of no more use to anybody.
    let old = worker.state.sandboxes.keys().filter(|s| s.as_str() != id).cloned().collect::<Vec<_>>();
    for id in old {
        let mut state = crate::state::PodState::default();
        if let Some(sandbox) = worker.state.sandboxes.remove(&id) {
            state.sandboxes.insert(id.clone(), sandbox);
        }
        worker.state.containers.retain(|_, c| c.status.sandbox_id != id);
        ending::remove(&*worker.ctx.config.runtime, &state).await;
    }
}

async fn network_ready(worker: &Worker) -> Result<(), String> {
    if worker.pod.host_network() {
        return Ok(());
    }
    let conditions = worker.ctx.config.runtime.status().await.map_err(|e| e.to_string())?;
    match conditions.iter().find(|c| c.name == "NetworkReady") {
        Some(c) if !c.status => Err(format!(
            "container runtime network not ready: NetworkReady=false reason:{} message:{}",
            c.reason, c.message
        )),
        _ => Ok(()),
    }
}

async fn make(worker: &mut Worker) -> Flow {
    let (ctx, pod) = (worker.ctx.clone(), worker.pod.clone());
    let attempt = worker.state.newest_sandbox().map_or(0, |s| s.metadata.attempt + 1);
    let made = match sandbox::config(&ctx, &pod, attempt).await {
        Ok(config) => ctx.config.runtime.run_pod_sandbox(config).await.map_err(|e| e.to_string()),
        Err(why) => Err(why),
    };
    match made {
        Ok(id) => {
            worker.refresh(&id).await;
            worker.publish(false);
            Flow::Continue
        }
        Err(why) => {
            ctx.recorder.pod(
                &pod,
                EventType::Warning,
                reason::FAILED_CREATE_POD_SANDBOX,
                format!("Failed to create pod sandbox: {why}"),
            );
            worker.wake_at(SystemTime::now() + RETRY);
            Flow::Wait
        }
    }
}
