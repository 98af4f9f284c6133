//! Deletes finished Jobs when their `ttlSecondsAfterFinished` is over.

use crate::context::{Context, synced};
use crate::ownership::is_not_found;
use crate::pods;
use api::k8s::batch::v1::Job;
use informer::{Controller, Error, Informer, Key, Reconcile, Requeue, WorkQueue};
use jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, Preconditions};

struct TtlAfterFinished {
    ctx: Context,
    jobs: Informer<Job>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let jobs = ctx.informer::<Job>();
    let enqueue = queue.clone();
    jobs.on_event(move |event| {
        if expiry(event.object()).is_some() {
            enqueue.add(Key::of(event.object().as_ref()));
        }
    });
    synced!(jobs);
    let reconciler = TtlAfterFinished { ctx: ctx.clone(), jobs };
    Controller::new("ttl-after-finished", queue, reconciler).run(ctx.shutdown()).await;
}

/// When a finished job is to be deleted.
fn expiry(job: &Job) -> Option<Timestamp> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let finished =
        conditions.iter().find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    finished.last_transition_time.as_ref()?.0.checked_add(SignedDuration::from_secs(i64::from(ttl))).ok()
}

impl Reconcile for TtlAfterFinished {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(job) = self.jobs.get_key(key).filter(|j| j.metadata.deletion_timestamp.is_none()) else {
            return Ok(Requeue::Done);
        };
        let Some(due) = expiry(&job) else { return Ok(Requeue::Done) };
        let now = Timestamp::now();
        if due > now {
            return Ok(Requeue::After(pods::until(due, now)));
        }
        // Guarded by the version that was looked at: the TTL may have been changed meanwhile.
        let guard =
            Preconditions { uid: job.metadata.uid.clone(), resource_version: job.metadata.resource_version.clone() };
        let params = DeleteParams::foreground().preconditions(guard);
        match self.ctx.api::<Job>(&key.namespace).delete(&key.name, &params).await {
            Err(error) if !is_not_found(&error) => Err(error.into()),
            _ => Ok(Requeue::Done),
        }
    }
}
