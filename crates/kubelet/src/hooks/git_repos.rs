//! The pod's gitRepo volumes: cloned in its network, before anything of its own runs.

use super::{Flow, Hook, time};
use crate::events::{EventType, reason};
use crate::volumes::git_repo::{Checkout, container};
use crate::worker::Worker;
use crate::{format, status};
use async_trait::async_trait;
use cri::{ContainerState, ContainerStatus};
use std::time::{Duration, SystemTime};

/// First and longest delay between attempts, as for other volumes.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(122);

/// The hook.
pub struct GitRepos;

#[async_trait]
impl Hook for GitRepos {
    async fn sync(&self, worker: &mut Worker) -> Flow {
        let (ctx, pod) = (worker.ctx.clone(), worker.pod.clone());
        let mut flow = Flow::Continue;
        for checkout in Checkout::of(&ctx, &pod).into_iter().filter(|c| !c.is_ready()) {
            match advance(worker, &checkout).await {
                Ok(true) => {}
                Ok(false) => flow = Flow::Wait,
                Err(why) => {
                    flow = Flow::Wait;
                    fail(worker, &checkout, &why);
                }
            }
        }
        flow
    }
}

/// Brings one clone a step on; whether it is done.
async fn advance(worker: &mut Worker, checkout: &Checkout<'_>) -> Result<bool, String> {
    let name = container::name(&checkout.volume.name);
    let Some(clone) = worker.state.current(&name).cloned() else {
        return start(worker, checkout, &name).await.map(|()| false);
    };
    if matches!(clone.state, ContainerState::Created | ContainerState::Running) && clone.started_at > 0 {
        return watch(worker, &clone).await.map(|()| false);
    }
    worker.remove_container(&clone.id).await;
    if clone.state != ContainerState::Exited {
        return Err("the clone was interrupted".into());
    }
    match container::failure(checkout, &clone) {
        Some(why) => Err(why),
        None => checkout.finish().await.map(|()| true).map_err(|e| e.to_string()),
    }
}

async fn start(worker: &mut Worker, checkout: &Checkout<'_>, name: &str) -> Result<(), String> {
    if let Some(at) = worker.not_before.get(name).copied().filter(|at| *at > SystemTime::now()) {
        worker.wake_at(at);
        return Ok(());
    }
    let (ctx, runtime) = (worker.ctx.clone(), worker.ctx.config.runtime.clone());
    let sandbox = worker.state.sandbox().map(|s| s.id.clone()).ok_or("the pod has no sandbox")?;
    let ips = status::pod_ips(&ctx, &worker.pod, &worker.state);
    let config = container::prepare(&ctx, checkout, &ips, worker.next_attempt(name))?;
    let id = runtime.create_container(&sandbox, config).await.map_err(|e| e.to_string())?;
    let started = runtime.start_container(&id).await;
    worker.refresh(&id).await;
    if let Err(error) = started {
        worker.remove_container(&id).await;
        return Err(error.to_string());
    }
    worker.wake_at(SystemTime::now() + container::TIME_LIMIT);
    Ok(())
}

/// Lets a clone go on as long as it may; its end wakes the pod.
async fn watch(worker: &mut Worker, clone: &ContainerStatus) -> Result<(), String> {
    let deadline = time(clone.started_at) + container::TIME_LIMIT;
    if SystemTime::now() < deadline {
        worker.wake_at(deadline);
        return Ok(());
    }
    let stopped = worker.ctx.config.runtime.stop_container(&clone.id, Duration::ZERO).await;
    stopped.map_err(|e| e.to_string())?;
    worker.remove_container(&clone.id).await;
    Err(format!("the clone took longer than {}", format::duration(container::TIME_LIMIT)))
}

fn fail(worker: &mut Worker, checkout: &Checkout<'_>, why: &str) {
    let message = format!("MountVolume.SetUp failed for volume {} : {why}", format::quote(&checkout.volume.name));
    worker.ctx.recorder.pod(&worker.pod, EventType::Warning, reason::FAILED_MOUNT, message);
    let retry = worker.clone_retry.max(FIRST_RETRY);
    worker.clone_retry = (retry * 2).min(LONGEST_RETRY);
    let at = SystemTime::now() + retry;
    worker.not_before.insert(container::name(&checkout.volume.name), at);
    worker.wake_at(at);
}
