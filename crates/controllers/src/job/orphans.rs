//! Pods that keep a job's finalizer though no job will count them: the job is gone, or has finished.

use super::tracking::remove_finalizer;
use super::{has_finalizer, is_finished};
use crate::context::Context;
use crate::ownership::{self, controlled_by};
use api::k8s::batch::v1::Job;
use api::k8s::core::v1::Pod;
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::ResourceExt;

struct Orphans {
    ctx: Context,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
}

pub(super) fn start(ctx: &Context, jobs: &Informer<Job>, pods: &Informer<Pod>) -> impl Future<Output = ()> + use<> {
    let queue = WorkQueue::new();
    let (enqueue, owned) = (queue.clone(), pods.clone());
    jobs.on_event(move |event| {
        let job = event.object();
        if matches!(event, Event::Deleted(_)) || is_finished(job) {
            let pods = ownership::owned(&owned, job.metadata.uid.as_deref().unwrap_or(""));
            pods.iter().filter(|p| has_finalizer(p)).for_each(|p| enqueue.add(Key::of(p.as_ref())));
        }
    });
    let (enqueue, known) = (queue.clone(), jobs.clone());
    pods.on_event(move |event| {
        if has_finalizer(event.object()) && !matches!(event, Event::Deleted(_)) && is_orphan(&known, event.object()) {
            enqueue.add(Key::of(event.object().as_ref()));
        }
    });
    let reconciler = Orphans { ctx: ctx.clone(), jobs: jobs.clone(), pods: pods.clone() };
    let shutdown = ctx.shutdown();
    async move {
        reconciler.jobs.synced().await;
        reconciler.pods.synced().await;
        Controller::new("job-orphans", queue, reconciler).workers(2).run(shutdown).await;
    }
}

/// Whether no unfinished job counts the pod.
fn is_orphan(jobs: &Informer<Job>, pod: &Pod) -> bool {
    let Some(owner) = controlled_by::<Job>(pod) else { return ownership::controller_of(pod).is_none() };
    let job = jobs.get(&pod.namespace().unwrap_or_default(), &owner.name);
    job.is_none_or(|job| job.metadata.uid.as_deref() != Some(owner.uid.as_str()) || is_finished(&job))
}

impl Reconcile for Orphans {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(pod) = self.pods.get_key(key) else { return Ok(Requeue::Done) };
        if !has_finalizer(&pod) || !is_orphan(&self.jobs, &pod) {
            return Ok(Requeue::Done);
        }
        // A pod without a controller may be about to be adopted.
        let claimed = self.jobs.list_in(&key.namespace).into_iter().any(|job| {
            !is_finished(&job) && super::selector(&job).is_some_and(|s| s.matches_labels(pod.metadata.labels.as_ref()))
        });
        if ownership::controller_of(pod.as_ref()).is_none() && claimed {
            return Ok(Requeue::Done);
        }
        remove_finalizer(&self.ctx, &pod).await?;
        Ok(Requeue::Done)
    }
}
