//! The pod's devices and claims: given before anything of it is made.

use super::{Flow, Hook};
use crate::events::EventType;
use crate::pod::PodExt;
use crate::worker::Worker;
use async_trait::async_trait;
use std::time::{Duration, SystemTime};

const RETRY: Duration = Duration::from_secs(10);

/// The hook.
pub struct Devices;

#[async_trait]
impl Hook for Devices {
    async fn sync(&self, worker: &mut Worker) -> Flow {
        let (ctx, pod) = (worker.ctx.clone(), worker.pod.clone());
        let near = |container: &str| ctx.managers.affinity(pod.uid(), container);
        if let Err(error) = ctx.plugins.devices.allocate(&pod, &near).await {
            // What runs keeps what it has; a pod that has nothing yet is rejected, as its admission would have.
            if worker.state.newest_sandbox().is_some() {
                return Flow::Continue;
            }
            let (reason, why) = ("UnexpectedAdmissionError", error.to_string());
            ctx.recorder.pod(&pod, EventType::Warning, reason, why.clone());
            worker.failure = Some((reason.to_owned(), format!("Pod was rejected: {why}")));
            return Flow::Again;
        }
        if let Err(why) = ctx.plugins.dra.prepare(&ctx, &pod).await {
            if worker.state.newest_sandbox().is_some() {
                return Flow::Continue;
            }
            ctx.recorder.pod(&pod, EventType::Warning, "FailedPrepareDynamicResources", why);
            worker.wake_at(SystemTime::now() + RETRY);
            return Flow::Wait;
        }
        Flow::Continue
    }
}
