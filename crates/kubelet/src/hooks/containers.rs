//! The pod's own containers: started, replaced, started again as their restart policy says.

use super::{Flow, Hook, kill, replacement, start, start_again};
use crate::pod::{ContainerType, PodExt, restarts_after};
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
            let ended = end_to_replace(worker, container).await;
            if worker.mailbox.ending.is_cancelled() {
                return Flow::Again;
            }
            match (is_due(worker, container), ended) {
                (true, true) => drop(start_again(worker, container).await),
                (true, false) => drop(start(worker, container, None).await),
                (false, _) => {}
            }
        }
        Flow::Continue
    }
}

/// Ends a running container that is to be replaced; whether there was one.
async fn end_to_replace(worker: &mut Worker, container: &Container) -> bool {
    let running = worker.state.current(&container.name).filter(|c| c.state == ContainerState::Running).cloned();
    let Some(running) = running else { return false };
    let Some((message, grace)) = replacement(worker, container, &running, ContainerType::Regular) else { return false };
    kill(worker, container, &running.id, message, grace).await;
    true
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
