//! The end of a pod: containers, last status, volumes, cgroup, deletion, and what the runtime still keeps.

use crate::context::api_message;
use crate::pod::PodExt;
use crate::state::PodState;
use crate::termination::{self, Kill, Order};
use crate::worker::Worker;
use crate::{hooks, qos, status, volumes};
use api::k8s::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};
use tokio::task::JoinSet;

const RETRY: Duration = Duration::from_secs(1);

/// Ends a pod; returns when nothing of it is left on the node or in the API.
pub async fn end(worker: &mut Worker) {
    worker.mailbox.ending.cancel();
    stop_containers(worker).await;
    stop_sandboxes(worker).await;
    worker.probes = Default::default();
    worker.status = match worker.failure.as_ref().filter(|_| worker.state.sandboxes.is_empty()) {
        // Never run: nothing is known of its containers.
        Some((reason, message)) => status::rejected(&worker.pod, reason, message),
        None => {
            let mut last = worker.make_status(true);
            status::terminate(&worker.pod, &mut last);
            last
        }
    };
    if !worker.is_removed() {
        worker.writer.set(worker.pod.clone(), worker.status.clone(), true);
    }
    give_back(worker).await;
    worker.mailbox.stopped.cancel();
    wait_for_deletion(worker).await;
    remove_sandboxes(worker).await;
    let ctx = &worker.ctx;
    let logs = ctx.config.pod_log_dir(worker.pod.namespace(), worker.pod.name(), worker.pod.uid());
    let _ = cri::remove_tree(&logs);
}

/// Ends all containers at once (sidecars in their turn); a shorter grace period that comes later is obeyed.
async fn stop_containers(worker: &mut Worker) {
    let mut killed: BTreeMap<String, Instant> = BTreeMap::new();
    let mut kills: JoinSet<String> = JoinSet::new();
    let running: Vec<String> = worker.state.running().map(|c| c.metadata.name.clone()).collect();
    let order = Order::new(&worker.pod, running.into_iter());
    loop {
        let grace = worker.grace.unwrap_or_else(|| termination::grace_period(&worker.pod));
        let due = Instant::now() + grace;
        let ip = status::pod_ips(&worker.ctx, &worker.pod, &worker.state).into_iter().next();
        for container in worker.state.running() {
            let (id, name) = (container.id.clone(), container.metadata.name.clone());
            let again = match killed.get(&id) {
                None => false,
                // A second's tolerance: every look at the clock makes the same deadline a little later.
                Some(before) if *before > due + Duration::from_secs(1) => true,
                Some(_) => continue,
            };
            killed.insert(id.clone(), due);
            let (ctx, pod) = (worker.ctx.clone(), worker.pod.clone());
            // The hook runs once: a repeated kill only shortens the time.
            let spec = if again { None } else { pod.container(&name).map(|(_, c)| c) };
            let kill = Kill { grace, message: String::new(), order: order.clone().filter(|_| !again) };
            kills.spawn(async move {
                termination::kill(&ctx, &pod, spec.as_ref(), &id, ip, kill).await;
                id
            });
        }
        if worker.state.running().next().is_none() {
            let spec = worker.pod.spec();
            if spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(termination::is_command) {
                // A preStop command that was cut off says so once its container has ended.
                let told = async { while kills.join_next().await.is_some() {} };
                let _ = tokio::time::timeout(termination::SHORTEST, told).await;
            }
            return;
        }
        hooks::probes::sync(worker, true);
        worker.publish(false);
        tokio::select! {
            Some(Ok(id)) = kills.join_next() => {
                worker.refresh(&id).await;
                if worker.state.running().any(|c| c.id == id) && kills.is_empty() {
                    // The runtime failed to end it: the same again, after a breath.
                    tokio::time::sleep(RETRY).await;
                    killed.remove(&id);
                }
            }
            () = worker.mailbox.wait() => worker.receive().await,
        }
    }
}

async fn stop_sandboxes(worker: &mut Worker) {
    let runtime = worker.ctx.config.runtime.clone();
    let ids: Vec<String> = worker.state.sandboxes.keys().cloned().collect();
    for id in ids {
        while let Err(error) = runtime.stop_pod_sandbox(&id).await {
            tracing::warn!(pod = crate::format::pod(&worker.pod), id, %error, "cannot stop sandbox");
            tokio::time::sleep(RETRY).await;
        }
        worker.refresh(&id).await;
    }
}

/// Gives volumes and cgroup back, trying until it is done: a pod is not reported gone before.
async fn give_back(worker: &mut Worker) {
    let (ctx, pod) = (worker.ctx.clone(), worker.pod.clone());
    while let Err(error) = volumes::tear_down(&ctx, pod.uid()).await {
        tracing::warn!(pod = crate::format::pod(&pod), %error, "cannot tear down volumes");
        tokio::time::sleep(RETRY).await;
    }
    while let Err(error) = ctx.plugins.dra.unprepare(pod.uid()).await {
        tracing::warn!(pod = crate::format::pod(&pod), error, "cannot give dynamic resources back");
        tokio::time::sleep(RETRY).await;
    }
    while let Err(error) = ctx.config.runtime.remove_pod_cgroup(&qos::pod_cgroup(&pod)).await {
        tracing::warn!(pod = crate::format::pod(&pod), %error, "cannot remove cgroup");
        tokio::time::sleep(RETRY).await;
    }
    ctx.release(pod.uid());
}

/// Keeps a finished pod until it is deleted, then finishes the deletion.
async fn wait_for_deletion(worker: &mut Worker) {
    loop {
        if worker.is_removed() {
            return;
        }
        if !worker.pod.is_deleted() {
            worker.wait_for_news().await;
            continue;
        }
        worker.writer.flush().await;
        if worker.mailbox.is_removed() {
            return;
        }
        match delete(worker).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(pod = crate::format::pod(&worker.pod), error = api_message(&error), "cannot delete pod");
                worker.wake_at(SystemTime::now() + RETRY);
                worker.wait_for_news().await;
            }
        }
    }
}

/// Deletes exactly this pod: not another of the same name.
async fn delete(worker: &Worker) -> kube::Result<()> {
    let preconditions = Preconditions { uid: Some(worker.pod.uid().to_owned()), ..Preconditions::default() };
    let parameters =
        DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..DeleteParams::default() };
    let api: kube::Api<Pod> = kube::Api::namespaced(worker.ctx.config.client.clone(), worker.pod.namespace());
    match api.delete(worker.pod.name(), &parameters).await {
        Ok(_) => Ok(()),
        // Gone, or replaced by another: both mean that this one is no more.
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn remove_sandboxes(worker: &mut Worker) {
    remove(&*worker.ctx.config.runtime, &worker.state).await;
    for id in worker.state.containers.keys() {
        worker.ctx.probes.remove(id);
    }
}

/// Stops and removes all sandboxes of a pod; what fails is left for the next start of the kubelet.
pub async fn remove(runtime: &dyn cri::RuntimeService, state: &PodState) {
    for id in state.sandboxes.keys() {
        let removed = match runtime.stop_pod_sandbox(id).await {
            Ok(()) => runtime.remove_pod_sandbox(id).await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(id, %error, "cannot remove sandbox");
        }
    }
}
