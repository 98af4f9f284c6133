//! The pod's own containers: started, replaced, started again as their restart policy says.

use super::{Flow, Hook, kill, replacement, start};
use crate::pod::{PodExt, restarts_after};
use crate::worker::Worker;
use api::k8s::core::v1::Container;
use async_trait::async_trait;
use cri::ContainerState;

/// The hook.
pub struct Containers;

#[async_trait]
impl Hook for Containers {
    async fn sync(&self, worker: &mut Worker) -> Flow {
        let pod = worker.pod.clone();
        for container in &pod.spec().containers {
            replace(worker, container).await;
            if worker.mailbox.ending.is_cancelled() {
                return Flow::Again;
            }
            if is_due(worker, container) {
                start(worker, container, None).await;
            }
        }
        Flow::Continue
    }
}

async fn replace(worker: &mut Worker, container: &Container) {
    let running = worker.state.current(&container.name).filter(|c| c.state == ContainerState::Running).cloned();
    let Some(running) = running else { return };
    if let Some((message, grace)) = replacement(worker, container, &running) {
        kill(worker, container, &running.id, message, grace).await;
    }
}

fn is_due(worker: &Worker, container: &Container) -> bool {
    match worker.state.latest(&container.name) {
        None => true,
        Some(last) => match last.state {
            ContainerState::Running => false,
            ContainerState::Exited => restarts_after(container, &worker.pod, last.exit_code),
            ContainerState::Created => true,
            ContainerState::Unknown => restarts_after(container, &worker.pod, 137),
        },
    }
}
