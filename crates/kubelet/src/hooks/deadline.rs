//! `activeDeadlineSeconds`: how long a pod may be active on its node.

use super::{Flow, Hook};
use crate::events::{EventType, reason};
use crate::pod::PodExt;
use crate::worker::Worker;
use async_trait::async_trait;
use std::time::{Duration, SystemTime};

const MESSAGE: &str = "Pod was active on the node longer than the specified deadline";

/// The hook.
pub struct Deadline;

#[async_trait]
impl Hook for Deadline {
    async fn sync(&self, worker: &mut Worker) -> Flow {
        let Some(seconds) = worker.pod.spec().active_deadline_seconds.and_then(|s| u64::try_from(s).ok()) else {
            return Flow::Continue;
        };
        let Some(start) = worker.status.start_time.as_ref().map(|t| SystemTime::from(t.0)) else {
            return Flow::Continue;
        };
        let due = start + Duration::from_secs(seconds);
        if due > SystemTime::now() {
            worker.wake_at(due);
            return Flow::Continue;
        }
        worker.ctx.recorder.pod(&worker.pod, EventType::Normal, reason::DEADLINE_EXCEEDED, MESSAGE);
        worker.failure = Some((reason::DEADLINE_EXCEEDED.into(), MESSAGE.into()));
        Flow::Wait
    }
}
