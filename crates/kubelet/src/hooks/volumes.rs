//! The pod's volumes: set up before anything runs, brought up to date by every later sync.

use super::{Flow, Hook};
use crate::env::field_ref::Facts;
use crate::events::{EventType, reason};
use crate::{status, volumes, worker::Worker};
use async_trait::async_trait;
use std::time::{Duration, Instant, SystemTime};

/// First and longest delay between attempts, as upstream's volume manager.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(122);

/// The hook.
pub struct Volumes;

#[async_trait]
impl Hook for Volumes {
    async fn sync(&self, worker: &mut Worker) -> Flow {
        let (ctx, pod) = (worker.ctx.clone(), worker.pod.clone());
        let ips = status::pod_ips(&ctx, &pod, &worker.state);
        let allocatable = ctx.allocatable();
        let facts = Facts { pod_ips: &ips, host_ips: &ctx.config.node_ips, allocatable: &allocatable };
        let ending = worker.mailbox.ending.clone();
        let ready = volumes::set_up(&ctx, &pod, &facts, &ending).await;
        if ending.is_cancelled() {
            return Flow::Again;
        }
        match ready {
            Ok(mounted) => {
                if let Some(due) = mounted.values().filter_map(|v| v.renew_at).min() {
                    worker.wake_at(SystemTime::now() + due.saturating_duration_since(Instant::now()));
                }
                worker.volumes = mounted;
                worker.volumes.extend(volumes::image::mounted(&ctx, &pod));
                worker.volume_retry = FIRST_RETRY;
                Flow::Continue
            }
            Err(errors) => {
                // One without words only waits, and is woken.
                for error in errors.into_iter().filter(|e| !e.is_empty()) {
                    ctx.recorder.pod(&pod, EventType::Warning, reason::FAILED_MOUNT, error);
                }
                let retry = worker.volume_retry.max(FIRST_RETRY);
                worker.wake_at(SystemTime::now() + retry);
                worker.volume_retry = (retry * 2).min(LONGEST_RETRY);
                // What runs goes on with the volumes it has; nothing new starts without them.
                if worker.volumes.is_empty() { Flow::Wait } else { Flow::Continue }
            }
        }
    }
}
