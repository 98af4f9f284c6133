//! Init containers, one after the other, and sidecars, which stay.

use super::{Flow, Hook, kill, replacement, start, start_again};
use crate::pod::{ContainerType, PodExt, is_sidecar, restarts_after};
use crate::probes::results::ProbeKind;
use crate::worker::Worker;
use api::k8s::core::v1::Container;
use async_trait::async_trait;
use cri::ContainerState;

/// The hook.
pub struct InitContainers;

#[async_trait]
impl Hook for InitContainers {
    async fn sync(&self, worker: &mut Worker) -> Flow {
        let pod = worker.pod.clone();
        let initialized = worker.state.has_initialized(&pod.spec().containers);
        for container in pod.spec().init_containers.iter().flatten() {
            let flow = match is_sidecar(container) {
                true => sidecar(worker, container, initialized).await,
                false if initialized => Flow::Continue,
                false => init(worker, container).await,
            };
            if flow != Flow::Continue {
                return flow;
            }
        }
        Flow::Continue
    }
}

async fn init(worker: &mut Worker, container: &Container) -> Flow {
    let state = worker.state.current(&container.name).map(|s| (s.state, s.exit_code));
    match state {
        Some((ContainerState::Exited, 0)) => return Flow::Continue,
        Some((ContainerState::Running, _)) => return Flow::Wait,
        // The phase is Failed: the worker ends the pod.
        Some((ContainerState::Exited, code)) if !restarts_after(container, &worker.pod, code) => return Flow::Wait,
        _ => {}
    }
    start(worker, container, None).await;
    Flow::Wait
}

async fn sidecar(worker: &mut Worker, container: &Container, initialized: bool) -> Flow {
    let current = worker.state.current(&container.name).cloned();
    if let Some(running) = current.filter(|c| c.state == ContainerState::Running) {
        if let Some((message, grace)) = replacement(worker, container, &running, ContainerType::Init) {
            kill(worker, container, &running.id, message, grace).await;
            let runs = worker.state.current(&container.name).is_some_and(|c| c.state == ContainerState::Running);
            if !runs && !worker.mailbox.ending.is_cancelled() {
                start_again(worker, container).await;
            }
            return Flow::Again;
        }
        let started =
            container.startup_probe.is_none() || worker.ctx.probes.get(&running.id, ProbeKind::Startup) == Some(true);
        return if started || initialized { Flow::Continue } else { Flow::Wait };
    }
    let started = start(worker, container, None).await;
    match (initialized, started && container.startup_probe.is_none()) {
        // A sidecar that restarts does not hold up what already runs.
        (true, _) | (_, true) => Flow::Continue,
        _ => Flow::Wait,
    }
}
