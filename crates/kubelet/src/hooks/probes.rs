//! The probes of what runs.

use super::{Flow, Hook};
use crate::pod::{PodExt, is_sidecar};
use crate::probes::Target;
use crate::probes::results::ProbeKind;
use crate::status;
use crate::worker::Worker;
use async_trait::async_trait;

/// The hook.
pub struct Probes;

#[async_trait]
impl Hook for Probes {
    async fn sync(&self, worker: &mut Worker) -> Flow {
        sync(worker, false);
        Flow::Continue
    }
}

/// Sees to it that every running container has its probes: startup first, then the others. A pod that ends keeps
/// only readiness.
pub fn sync(worker: &mut Worker, ending: bool) {
    let pod = worker.pod.clone();
    let ip = status::pod_ips(&worker.ctx, &pod, &worker.state).into_iter().next();
    let sidecars = pod.spec().init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let mut wanted = Vec::new();
    for container in pod.spec().containers.iter().chain(sidecars) {
        let running = worker.state.current(&container.name).filter(|c| c.state == cri::ContainerState::Running);
        let Some(running) = running else { continue };
        let target = Target {
            pod: pod.clone(),
            container: container.clone(),
            container_id: running.id.clone(),
            ip,
            started_at: running.started_at,
        };
        let result = |kind| worker.ctx.probes.get(&running.id, kind);
        let started = container.startup_probe.is_none() || result(ProbeKind::Startup) == Some(true);
        if !started && !ending && result(ProbeKind::Startup).is_none() {
            wanted.push((target.clone(), ProbeKind::Startup));
        }
        if started && container.readiness_probe.is_some() {
            wanted.push((target.clone(), ProbeKind::Readiness));
        }
        if started && !ending && container.liveness_probe.is_some() && result(ProbeKind::Liveness) != Some(false) {
            wanted.push((target, ProbeKind::Liveness));
        }
    }
    let ctx = worker.ctx.clone();
    worker.probes.sync(&ctx, wanted);
}
