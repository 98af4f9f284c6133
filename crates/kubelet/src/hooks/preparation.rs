//! The pod's cgroup and directories.

use super::{Flow, Hook, RETRY};
use crate::events::{EventType, reason};
use crate::pod::PodExt;
use crate::qos;
use crate::volumes::mounts;
use crate::worker::Worker;
use async_trait::async_trait;
use std::time::SystemTime;

/// The hook.
pub struct Preparation;

#[async_trait]
impl Hook for Preparation {
    async fn sync(&self, worker: &mut Worker) -> Flow {
        if worker.prepared {
            return Flow::Continue;
        }
        let (ctx, pod) = (worker.ctx.clone(), worker.pod.clone());
        let cgroup = qos::pod_cgroup(&pod);
        let failed = |worker: &mut Worker, reason: &str, message: String| {
            ctx.recorder.pod(&pod, EventType::Warning, reason, message);
            worker.wake_at(SystemTime::now() + RETRY);
            Flow::Wait
        };
        if let Err(error) = ctx.config.runtime.update_pod_cgroup(&cgroup, qos::pod_cgroup_resources(&pod, &ctx.node_limits())).await {
            let message = format!("unable to ensure pod container exists: {error}");
            return failed(worker, reason::FAILED_CREATE_POD_CONTAINER, message);
        }
        let dir = ctx.config.pod_dir(pod.uid());
        if let Err(error) = mounts::make_dir(&dir, 0o750).and_then(|()| worker.mailbox.allocation().write(&dir)) {
            return failed(worker, reason::FAILED, format!("error making pod data directories: {error}"));
        }
        worker.prepared = true;
        Flow::Continue
    }
}
