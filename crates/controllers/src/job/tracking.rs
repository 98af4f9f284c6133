//! Writing a job's status, and counting each finished pod once.

use super::{FINALIZER, Jobs, Sync, condition, failure_policy, has_finalizer, indexes, uid};
use crate::ownership::is_not_found;
use crate::{context::Context, pods};
use api::k8s::batch::v1::{Job, JobCondition, JobStatus};
use api::k8s::core::v1::Pod;
use informer::{Error, Key};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;

/// Uncounted pods in a status at most.
const MAX_UNCOUNTED: usize = 500;

/// Takes the job's finalizer from a pod; one that is gone is fine.
pub(super) async fn remove_finalizer(ctx: &Context, pod: &Pod) -> Result<(), kube::Error> {
    let rest: Vec<&String> = pod.metadata.finalizers.iter().flatten().filter(|f| *f != FINALIZER).collect();
    let finalizers = if rest.is_empty() { json!(null) } else { json!(rest) };
    let patch = Patch::Merge(json!({"metadata": {"uid": pod.metadata.uid, "finalizers": finalizers}}));
    let api = ctx.api::<Pod>(&pod.namespace().unwrap_or_default());
    match api.patch(&pod.name_any(), &PatchParams::default(), &patch).await {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

fn number(count: i32) -> Option<i32> {
    Some(count).filter(|n| *n != 0)
}

impl Jobs {
    /// Writes status, releases finished pods, counts them, and ends the job where that is due.
    pub(super) async fn track(&self, key: &Key, sync: &mut Sync) -> Result<(), Error> {
        let before = self.jobs.get_key(key).and_then(|j| j.status.clone()).unwrap_or_default();
        let (active, ready, terminating) = (sync.active.len() as i32, sync.ready, sync.terminating);
        let status = sync.job.status.get_or_insert_default();
        (status.active, status.ready, status.terminating) = (number(active), Some(ready), Some(terminating));
        let held = self.held(sync);
        count_released(sync.job.status.get_or_insert_default(), &held);
        let (release, all) = self.collect(sync);
        note_interim(sync);
        self.flush(sync, &before).await?;
        let written = sync.job.status.clone().unwrap_or_default();
        let done = self.release(release).await;
        let still_held = held.difference(&done.iter().cloned().collect()).cloned().collect();
        count_released(sync.job.status.get_or_insert_default(), &still_held);
        if all && self.finish(sync) {
            self.tell_finished(sync);
        }
        self.flush(sync, &written).await
    }

    /// UIDs of pods that still have the finalizer.
    fn held(&self, sync: &Sync) -> HashSet<String> {
        let released = self.released.lock();
        let held = sync.pods.iter().filter(|p| has_finalizer(p) && !released.contains(uid(p)));
        held.map(|p| uid(p).to_owned()).collect()
    }

    /// Notes newly finished pods as uncounted; returns those to release, and whether that is all.
    fn collect(&self, sync: &mut Sync) -> (Vec<Arc<Pod>>, bool) {
        let held = self.held(sync);
        let ends = sync.job.metadata.deletion_timestamp.is_some() || sync.finish.is_some();
        let failing = sync.finish.as_ref().is_some_and(|c| c.type_ == "FailureTarget");
        let completions = usize::try_from(sync.spec.completions.unwrap_or(0)).unwrap_or(0);
        let mut status = sync.job.status.clone().unwrap_or_default();
        let mut release = Vec::new();
        let mut all = true;
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        let (succeeded, failed) =
            (uncounted.succeeded.get_or_insert_default(), uncounted.failed.get_or_insert_default());
        for pod in sync.pods.iter().filter(|p| held.contains(uid(p))) {
            let (done, lost) = (pods::phase(pod) == "Succeeded", sync.is_failed(pod));
            if !(ends || done || (lost && !indexes::awaits_successor(sync, pod))) {
                continue;
            }
            if succeeded.len() + failed.len() >= MAX_UNCOUNTED {
                all = false;
                break;
            }
            let (id, in_range) = (uid(pod).to_owned(), indexes::index_of(pod).is_some_and(|i| i < completions));
            if done && !failed.contains(&id) {
                if sync.indexes.is_none() && !succeeded.contains(&id) {
                    succeeded.push(id);
                }
            } else if (lost || failing)
                && !failed.contains(&id)
                && (sync.indexes.is_none() || in_range)
                && failure_policy::counts(&sync.spec, pod)
            {
                failed.push(id);
            }
            release.push(pod.clone());
        }
        if let Some(known) = &sync.indexes {
            status.succeeded = number(known.succeeded.len() as i32);
            status.completed_indexes = Some(indexes::print(&known.succeeded)).filter(|t| !t.is_empty());
            status.failed_indexes = sync.spec.backoff_limit_per_index.map(|_| indexes::print(&known.failed));
        }
        tidy(&mut status);
        sync.job.status = Some(status);
        (release, all)
    }

    async fn release(&self, pods: Vec<Arc<Pod>>) -> Vec<String> {
        let mut done = Vec::new();
        for pod in pods {
            match remove_finalizer(&self.ctx, &pod).await {
                Ok(()) => {
                    // The informer may have seen it already; then this entry goes with the pod.
                    let present = self
                        .pods
                        .get_key(&Key::of(pod.as_ref()))
                        .is_some_and(|p| p.metadata.uid == pod.metadata.uid && has_finalizer(&p));
                    if present {
                        self.released.lock().insert(uid(&pod).to_owned());
                    }
                    done.push(uid(&pod).to_owned());
                }
                Err(error) => tracing::debug!(pod = pod.name_any(), %error, "finalizer was not removed"),
            }
        }
        done
    }

    /// Turns the interim condition into the final one, once nothing is uncounted or terminating.
    fn finish(&self, sync: &mut Sync) -> bool {
        let Some(finish) = &sync.finish else { return false };
        let status = sync.job.status.get_or_insert_default();
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let open = uncounted.succeeded.as_ref().map_or(0, Vec::len) + uncounted.failed.as_ref().map_or(0, Vec::len);
        if open > 0 || sync.terminating > 0 {
            return false;
        }
        let kind = if finish.type_ == "FailureTarget" { "Failed" } else { "Complete" };
        let (reason, message) = (finish.reason.as_deref().unwrap_or(""), finish.message.as_deref().unwrap_or(""));
        status.conditions.get_or_insert_default().push(condition(kind, "True", reason, message));
        if kind == "Complete" {
            status.completion_time = Some(pods::now());
        }
        true
    }

    fn tell_finished(&self, sync: &Sync) {
        let Some(finish) = &sync.finish else { return };
        let succeeded = sync.job.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0);
        if finish.type_ == "FailureTarget" {
            self.ctx.warning(
                &sync.job,
                finish.reason.as_deref().unwrap_or(""),
                finish.message.clone().unwrap_or_default(),
            );
            return;
        }
        if sync.spec.completions.is_some_and(|wanted| succeeded > wanted) {
            self.ctx.warning(
                &sync.job,
                "TooManySucceededPods",
                "Too many succeeded pods running after completion count reached",
            );
        }
        self.ctx.normal(&sync.job, "Completed", "Job completed");
    }

    async fn flush(&self, sync: &mut Sync, before: &JobStatus) -> Result<(), Error> {
        if sync.job.status.as_ref() == Some(before) {
            return Ok(());
        }
        let api = self.ctx.api::<Job>(&sync.job.namespace().unwrap_or_default());
        sync.job = api.replace_status(&sync.job.name_any(), &PostParams::default(), &sync.job).await?;
        Ok(())
    }
}

/// Adds the interim condition to the status unless it is there.
fn note_interim(sync: &mut Sync) {
    let Some(finish) = sync.finish.clone() else { return };
    let list = sync.job.status.get_or_insert_default().conditions.get_or_insert_default();
    if !list.iter().any(|c: &JobCondition| c.type_ == finish.type_ && c.status == "True") {
        list.push(finish);
    }
}

/// Moves uncounted pods that have lost their finalizer into the counters.
fn count_released(status: &mut JobStatus, held: &HashSet<String>) {
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
    let count = |list: &mut Option<Vec<String>>| {
        list.as_mut().map_or(0, |l| l.extract_if(.., |id| !held.contains(id)).count() as i32)
    };
    let (succeeded, failed) = (count(&mut uncounted.succeeded), count(&mut uncounted.failed));
    status.succeeded = number(status.succeeded.unwrap_or(0) + succeeded);
    status.failed = number(status.failed.unwrap_or(0) + failed);
    tidy(status);
}

/// Empty lists are absent, as the server stores them.
fn tidy(status: &mut JobStatus) {
    if let Some(uncounted) = &mut status.uncounted_terminated_pods {
        for list in [&mut uncounted.succeeded, &mut uncounted.failed] {
            if list.as_ref().is_some_and(Vec::is_empty) {
                *list = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_pods_are_counted_once() {
        let mut status: JobStatus = serde_json::from_value(
            json!({"succeeded": 1, "uncountedTerminatedPods": {"succeeded": ["a", "b"], "failed": ["c"]}}),
        )
        .expect("status");
        count_released(&mut status, &HashSet::from(["b".to_owned()]));
        count_released(&mut status, &HashSet::from(["b".to_owned()]));
        let got = serde_json::to_value(&status).expect("json");
        assert_eq!(got, json!({"succeeded": 2, "failed": 1, "uncountedTerminatedPods": {"succeeded": ["b"]}}));
    }
}
