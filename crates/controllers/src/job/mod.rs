//! Jobs: run pods to completion.
//!
//! A finished pod is counted exactly once: its UID first goes to `uncountedTerminatedPods`, then the pod
//! loses its finalizer (until when it cannot vanish), then the UID becomes part of a counter.

mod active;
mod failure_policy;
mod indexes;
mod orphans;
mod tracking;

use crate::context::{Context, synced};
use crate::ownership::{self, Claimant, claim, controlled_by};
use crate::pods;
use api::k8s::batch::v1::{Job, JobCondition, JobSpec};
use api::k8s::core::v1::Pod;
use api::selector::LabelSelector;
use indexes::Indexes;
use informer::{Controller, Error, Event, Expectations, Informer, Key, Reconcile, Requeue, WorkQueue};
use jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";

struct Jobs {
    ctx: Context,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    expectations: Arc<Expectations<Key>>,
    /// Pods whose finalizer was removed though the informer still shows it.
    released: Arc<Mutex<HashSet<String>>>,
    /// Failures in a row of each job and when the last one was, for the pause before the next pod.
    backoff: Mutex<HashMap<Key, (u32, Timestamp)>>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let (jobs, pods) = (ctx.informer::<Job>(), ctx.informer::<Pod>());
    let expectations = Arc::new(Expectations::default());
    let released = Arc::new(Mutex::new(HashSet::new()));
    ownership::index(&pods);
    watch_jobs(&jobs, &queue, &expectations);
    watch_pods(&jobs, &pods, &queue, &expectations, &released);
    let orphans = orphans::start(&ctx, &jobs, &pods);
    synced!(jobs, pods);
    let reconciler = Jobs { ctx: ctx.clone(), jobs, pods, expectations, released, backoff: Mutex::default() };
    let jobs = Controller::new("job", queue, reconciler).run(ctx.shutdown());
    tokio::join!(jobs, orphans);
}

fn watch_jobs(jobs: &Informer<Job>, queue: &WorkQueue<Key>, expectations: &Arc<Expectations<Key>>) {
    let (queue, expectations) = (queue.clone(), expectations.clone());
    jobs.on_event(move |event| {
        let key = Key::of(event.object().as_ref());
        if matches!(event, Event::Deleted(_)) {
            expectations.forget(&key);
        }
        queue.add(key);
    });
}

fn watch_pods(
    jobs: &Informer<Job>,
    pods: &Informer<Pod>,
    queue: &WorkQueue<Key>,
    expectations: &Arc<Expectations<Key>>,
    released: &Arc<Mutex<HashSet<String>>>,
) {
    let (jobs, queue, expectations, released) = (jobs.clone(), queue.clone(), expectations.clone(), released.clone());
    pods.on_event(move |event| {
        let pod = event.object();
        if matches!(event, Event::Deleted(_)) || !has_finalizer(pod) {
            released.lock().remove(uid(pod));
        }
        let namespace = pod.namespace().unwrap_or_default();
        let Some(owner) = controlled_by::<Job>(pod.as_ref()) else {
            if ownership::controller_of(pod.as_ref()).is_none() && !matches!(event, Event::Deleted(_)) {
                let adopters = jobs.list_in(&namespace).into_iter();
                let selects =
                    |job: &Arc<Job>| selector(job).is_some_and(|s| s.matches_labels(pod.metadata.labels.as_ref()));
                adopters.filter(selects).for_each(|job| queue.add(Key::of(job.as_ref())));
            }
            return;
        };
        let key = Key::new(namespace, owner.name.clone());
        match event {
            Event::Added(_) => expectations.creation_observed(&key),
            Event::Updated { old, new } if pods::is_deleting(old) || !pods::is_deleting(new) => {}
            _ => expectations.deletion_observed(&key, &Key::of(pod.as_ref())),
        }
        queue.add(key);
    });
}

fn selector(job: &Job) -> Option<LabelSelector> {
    LabelSelector::from_api(job.spec.as_ref()?.selector.as_ref()).filter(|s| !s.0.is_empty())
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or("")
}

fn has_finalizer(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

fn find<'a>(list: &'a Option<Vec<JobCondition>>, kind: &str) -> Option<&'a JobCondition> {
    list.iter().flatten().find(|c| c.type_ == kind && c.status == "True")
}

/// Complete or Failed.
pub(crate) fn is_finished(job: &Job) -> bool {
    let conditions = job.status.as_ref().map(|s| &s.conditions);
    conditions.is_some_and(|list| find(list, "Complete").or(find(list, "Failed")).is_some())
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> JobCondition {
    JobCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(pods::now()),
        last_transition_time: Some(pods::now()),
    }
}

/// One reconcile of a job.
struct Sync {
    job: Job,
    spec: JobSpec,
    pods: Vec<Arc<Pod>>,
    active: Vec<Arc<Pod>>,
    ready: i32,
    terminating: i32,
    succeeded: i32,
    failed: i32,
    indexes: Option<Indexes>,
    /// Why the job ends: `FailureTarget` or `SuccessCriteriaMet`.
    finish: Option<JobCondition>,
    /// Whether all pods are known to be seen.
    complete_view: bool,
    wait: Option<Duration>,
}

impl Sync {
    fn suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    /// Whether a pod that is being deleted is replaced (and counted as failed) only once it has failed.
    fn only_replaces_failed(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed") || self.spec.pod_failure_policy.is_some()
    }

    fn is_failed(&self, pod: &Pod) -> bool {
        pods::phase(pod) == "Failed"
            || (!self.only_replaces_failed() && pods::is_deleting(pod) && pods::phase(pod) != "Succeeded")
    }

    fn waits(&mut self, delay: Duration) {
        self.wait = Some(self.wait.map_or(delay, |known| known.min(delay)));
    }
}

impl Reconcile for Jobs {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(shared) = self.jobs.get_key(key) else {
            self.expectations.forget(key);
            self.backoff.lock().remove(key);
            return Ok(Requeue::Done);
        };
        let managed = shared
            .spec
            .as_ref()
            .and_then(|s| s.managed_by.as_deref())
            .is_none_or(|by| by == "kubernetes.io/job-controller");
        let Some(selector) = selector(&shared).filter(|_| managed && !is_finished(&shared)) else {
            return Ok(Requeue::Done);
        };
        let complete_view = self.expectations.satisfied(key);
        let claimant = Claimant { owner: shared.as_ref(), selector: &selector, finalizers: &[FINALIZER] };
        let pods = claim(&self.ctx, &claimant, &self.pods).await?;
        let mut sync = self.begin(key, &shared, pods, complete_view);
        self.judge(&mut sync);
        let outcome = self.act(key, &mut sync).await;
        self.track(key, &mut sync).await?;
        outcome?;
        Ok(sync.wait.map_or(Requeue::Done, Requeue::After))
    }
}

impl Jobs {
    fn begin(&self, key: &Key, shared: &Job, pods: Vec<Arc<Pod>>, complete_view: bool) -> Sync {
        let mut job = shared.clone();
        let status = job.status.get_or_insert_default();
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default().clone();
        let suspended = shared.spec.as_ref().is_some_and(|s| s.suspend == Some(true));
        if status.start_time.is_none() && !suspended {
            status.start_time = Some(pods::now());
        }
        let active: Vec<Arc<Pod>> = pods.iter().filter(|p| pods::is_active(p)).cloned().collect();
        let mut sync = Sync {
            spec: job.spec.clone().unwrap_or_default(),
            ready: active.iter().filter(|p| pods::is_ready(p)).count() as i32,
            terminating: pods.iter().filter(|p| pods::is_terminating(p)).count() as i32,
            succeeded: 0,
            failed: 0,
            indexes: None,
            finish: None,
            wait: None,
            complete_view,
            active,
            pods,
            job,
        };
        let (succeeded, failed) = self.new_finished(&sync, uncounted.succeeded.as_deref(), uncounted.failed.as_deref());
        self.note_failures(key, &succeeded, &failed);
        let status = sync.job.status.clone().unwrap_or_default();
        let count = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len) as i32;
        sync.succeeded = status.succeeded.unwrap_or(0) + succeeded.len() as i32 + count(&uncounted.succeeded);
        let counted = failed.iter().filter(|p| failure_policy::counts(&sync.spec, p)).count() as i32;
        sync.failed = status.failed.unwrap_or(0) + counted + count(&uncounted.failed);
        if sync.is_indexed() {
            let indexes = Indexes::calculate(&sync);
            sync.succeeded = indexes.succeeded.len() as i32;
            sync.indexes = Some(indexes);
        }
        sync
    }

    /// Pods that finished and are in no count yet.
    fn new_finished(
        &self,
        sync: &Sync,
        succeeded: Option<&[String]>,
        failed: Option<&[String]>,
    ) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
        let released = self.released.lock();
        let known = |list: Option<&[String]>, pod: &Pod| list.is_some_and(|l| l.iter().any(|id| id == uid(pod)));
        let fresh = |pod: &&Arc<Pod>| has_finalizer(pod) && !released.contains(uid(pod));
        let fresh: Vec<&Arc<Pod>> = sync.pods.iter().filter(fresh).collect();
        let done = |pod: &&&Arc<Pod>| pods::phase(pod) == "Succeeded" && !known(succeeded, pod);
        let lost = |pod: &&&Arc<Pod>| sync.is_failed(pod) && !known(failed, pod);
        (
            fresh.iter().filter(done).map(|p| (*p).clone()).collect(),
            fresh.iter().filter(lost).map(|p| (*p).clone()).collect(),
        )
    }

    /// Counts failures in a row; a success ends the row.
    fn note_failures(&self, key: &Key, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) {
        let mut backoff = self.backoff.lock();
        if !succeeded.is_empty() {
            backoff.remove(key);
        }
        if let Some(last) = failed.iter().map(|p| finish_time(p)).max() {
            let entry = backoff.entry(key.clone()).or_insert((0, last));
            *entry = (entry.0 + failed.len() as u32, last.max(entry.1));
        }
    }

    /// Decides whether the job is to end, and why.
    fn judge(&self, sync: &mut Sync) {
        let conditions = sync.job.status.as_ref().and_then(|s| s.conditions.clone());
        let earlier = find(&conditions, "SuccessCriteriaMet").or(find(&conditions, "FailureTarget")).cloned();
        let failure = |reason: &str, message: &str| Some(condition("FailureTarget", "True", reason, message));
        let limit = sync.spec.backoff_limit.unwrap_or(6);
        sync.finish = earlier
            .or_else(|| {
                failure_policy::fail_job(&sync.spec, &sync.pods)
                    .and_then(|message| failure("PodFailurePolicy", &message))
            })
            .or_else(|| {
                let exceeded = sync.failed > limit || restarts_exceed(sync, limit);
                exceeded.then(|| failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"))?
            })
            .or_else(|| {
                self.past_deadline(sync)
                    .then(|| failure("DeadlineExceeded", "Job was active longer than specified deadline"))?
            })
            .or_else(|| sync.indexes.as_ref()?.judge(&sync.spec));
        let left = deadline(sync).filter(|_| sync.finish.is_none());
        if let Some(left) = left {
            sync.waits(left);
        }
    }

    fn past_deadline(&self, sync: &Sync) -> bool {
        deadline(sync).is_some_and(|left| left.is_zero())
    }
}

/// Time left until `activeDeadlineSeconds`.
fn deadline(sync: &Sync) -> Option<Duration> {
    let seconds = sync.spec.active_deadline_seconds.filter(|_| !sync.suspended())?;
    let start = sync.job.status.as_ref()?.start_time.as_ref()?.0;
    let due = start.checked_add(jiff::SignedDuration::from_secs(seconds)).ok()?;
    Some(pods::until(due, Timestamp::now()))
}

/// With `restartPolicy: OnFailure` the restarts of running pods count.
fn restarts_exceed(sync: &Sync, limit: i32) -> bool {
    let on_failure = sync.spec.template.spec.as_ref().is_some_and(|s| s.restart_policy.as_deref() == Some("OnFailure"));
    let running = sync.pods.iter().filter(|p| matches!(pods::phase(p), "Running" | "Pending"));
    let restarts: i32 = running.map(|p| pods::restarts(p)).sum();
    on_failure && if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// When the pod's last container ended, or it was deleted.
fn finish_time(pod: &Pod) -> Timestamp {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let ended = statuses.filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|t| t.0)).max();
    ended.or_else(|| pod.metadata.deletion_timestamp.as_ref().map(|t| t.0)).unwrap_or_else(Timestamp::now)
}
