//! Keeping the right number of pods active.

use super::{FINALIZER, Jobs, Sync, condition, indexes};
use crate::{ownership, pod_control, pods, template};
use api::k8s::batch::v1::JobCondition;
use api::k8s::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use informer::{Error, Key};
use jiff::Timestamp;
use kube::ResourceExt;
use std::sync::Arc;
use std::time::Duration;

/// Pods created or deleted in one reconcile at most.
const BURST: usize = 500;
const FAILURE_BACKOFF: Duration = Duration::from_secs(10);
const FAILURE_BACKOFF_MAX: Duration = Duration::from_secs(600);

impl Jobs {
    /// Deletes what a finishing job still runs, or brings the number of active pods to what is wanted.
    pub(super) async fn act(&self, key: &Key, sync: &mut Sync) -> Result<(), Error> {
        if sync.finish.is_some() {
            let all = sync.active.clone();
            let removed = self.remove(key, sync, all).await;
            if !sync.active.is_empty() || !sync.complete_view {
                // Finalizers of pods that are not known yet would stay.
                sync.finish = None;
            }
            return removed;
        }
        let managed = sync.complete_view && sync.job.metadata.deletion_timestamp.is_none();
        let outcome = if managed { self.manage(key, sync).await } else { Ok(()) };
        let complete = match sync.spec.completions {
            None => sync.succeeded > 0 && sync.active.is_empty(),
            Some(wanted) => sync.succeeded >= wanted && sync.active.is_empty(),
        };
        if complete {
            sync.finish = Some(condition(
                "SuccessCriteriaMet",
                "True",
                "CompletionsReached",
                "Reached expected number of succeeded pods",
            ));
        } else if managed {
            self.note_suspension(sync);
        }
        outcome
    }

    fn note_suspension(&self, sync: &mut Sync) {
        let suspended = sync.suspended();
        let (status, reason, message) =
            if suspended { ("True", "JobSuspended", "Job suspended") } else { ("False", "JobResumed", "Job resumed") };
        let list = sync.job.status.get_or_insert_default().conditions.get_or_insert_default();
        let known = list.iter().position(|c: &JobCondition| c.type_ == "Suspended");
        match known {
            Some(at) if list[at].status == status => return,
            None if !suspended => return,
            Some(at) => list[at] = condition("Suspended", status, reason, message),
            None => list.push(condition("Suspended", status, reason, message)),
        }
        self.ctx.normal(&sync.job, if suspended { "Suspended" } else { "Resumed" }, message);
        // The deadline counts the time a job was active without a break.
        sync.job.status.get_or_insert_default().start_time = if suspended { None } else { Some(pods::now()) };
    }

    async fn manage(&self, key: &Key, sync: &mut Sync) -> Result<(), Error> {
        let active = sync.active.len();
        let parallelism = usize::try_from(sync.spec.parallelism.unwrap_or(1)).unwrap_or(0);
        let wanted = match sync.spec.completions {
            _ if sync.suspended() => 0,
            None if sync.succeeded > 0 => active,
            None => parallelism,
            Some(total) => usize::try_from(total - sync.succeeded).unwrap_or(0).min(parallelism),
        };
        let surplus = surplus(sync, active.saturating_sub(wanted));
        if !surplus.is_empty() {
            return self.remove(key, sync, surplus).await;
        }
        let terminating = if sync.only_replaces_failed() { usize::try_from(sync.terminating).unwrap_or(0) } else { 0 };
        let missing = wanted.saturating_sub(terminating + active).min(BURST);
        if missing == 0 {
            return Ok(());
        }
        if sync.spec.backoff_limit_per_index.is_none()
            && let Some(pause) = self.pause(key)
        {
            sync.waits(pause);
            return Ok(());
        }
        self.create(key, sync, missing).await
    }

    /// How long to wait after failures before the next pod.
    fn pause(&self, key: &Key) -> Option<Duration> {
        let (failures, last) = self.backoff.lock().get(key).copied().filter(|(n, _)| *n > 0)?;
        pause_after(failures, last, Timestamp::now())
    }

    async fn create(&self, key: &Key, sync: &mut Sync, missing: usize) -> Result<(), Error> {
        let wanted: Vec<Option<usize>> = match &sync.indexes {
            None => vec![None; missing],
            Some(known) => {
                let (ready, wait) = known.pending(sync, missing);
                if let Some(wait) = wait {
                    sync.waits(wait);
                }
                ready.into_iter().map(Some).collect()
            }
        };
        let pods: Vec<Pod> = wanted.iter().map(|index| self.pod(sync, *index)).collect();
        self.expectations.expect_creations(key, pods.len());
        let (created, error) = pod_control::slow_start(pods.len(), |at| {
            let (job, pod) = (&sync.job, &pods[at]);
            async move { pod_control::create(&self.ctx, job, pod).await.map(drop) }
        })
        .await;
        self.expectations.creations_skipped(key, pods.len() - created);
        // They count as active although the informer does not show them yet.
        sync.active.extend(pods.into_iter().take(created).map(Arc::new));
        match error {
            Some(error) if !ownership::is_namespace_terminating(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn pod(&self, sync: &Sync, index: Option<usize>) -> Pod {
        let name = sync.job.name_any();
        let owner = ownership::reference_to(&sync.job);
        let Some(index) = index else {
            let mut pod = template::pod(&sync.spec.template, &name, owner);
            pod.metadata.finalizers.get_or_insert_default().push(FINALIZER.into());
            return pod;
        };
        let mut pod = template::pod(&sync.spec.template, &format!("{name}-{index}"), owner);
        pod.metadata.finalizers.get_or_insert_default().push(FINALIZER.into());
        let number = index.to_string();
        pod.metadata.annotations.get_or_insert_default().insert(indexes::INDEX.into(), number.clone());
        pod.metadata.labels.get_or_insert_default().insert(indexes::INDEX.into(), number);
        if let Some(known) = &sync.indexes {
            known.annotate_failures(sync, index, &mut pod);
        }
        if let Some(spec) = &mut pod.spec {
            spec.hostname = Some(format!("{name}-{index}"));
            spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(add_index);
        }
        pod
    }

    async fn remove(&self, key: &Key, sync: &mut Sync, victims: Vec<Arc<Pod>>) -> Result<(), Error> {
        self.expectations.expect_deletions(key, victims.iter().map(|p| Key::of(p.as_ref())));
        let mut first = Ok(());
        for pod in victims {
            match pod_control::delete(&self.ctx, &sync.job, &pod).await {
                Ok(()) => {
                    sync.active.retain(|p| p.metadata.uid != pod.metadata.uid);
                    sync.terminating += 1;
                    sync.ready -= i32::from(pods::is_ready(&pod));
                }
                Err(error) => {
                    self.expectations.deletion_observed(key, &Key::of(pod.as_ref()));
                    first = first.and(Err(error.into()));
                }
            }
        }
        first
    }
}

/// Pods to delete: indexes out of range or taken twice, then the least advanced.
fn surplus(sync: &Sync, at_least: usize) -> Vec<Arc<Pod>> {
    let mut out = Vec::new();
    let mut rest = sync.active.clone();
    if sync.indexes.is_some() {
        let completions = usize::try_from(sync.spec.completions.unwrap_or(0)).unwrap_or(0);
        let mut seen = std::collections::HashSet::new();
        rest.sort_by_key(|p| std::cmp::Reverse(progress(p)));
        let misplaced = |p: &mut Arc<Pod>| indexes::index_of(p).is_none_or(|i| i >= completions || !seen.insert(i));
        out.extend(rest.extract_if(.., misplaced));
    }
    rest.sort_by_key(|p| progress(p));
    out.extend(rest.into_iter().take(at_least.saturating_sub(out.len())));
    out.truncate(BURST);
    out
}

fn progress(pod: &Pod) -> (bool, bool, bool, std::cmp::Reverse<Option<Timestamp>>) {
    let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    (!pods::node_name(pod).is_empty(), pods::phase(pod) == "Running", pods::is_ready(pod), std::cmp::Reverse(created))
}

/// The rest of the pause after `failures` failures in a row, the last of which was at `last`.
pub(super) fn pause_after(failures: u32, last: Timestamp, now: Timestamp) -> Option<Duration> {
    let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let pause = FAILURE_BACKOFF.saturating_mul(factor).min(FAILURE_BACKOFF_MAX);
    let due = last.checked_add(pause).ok()?;
    Some(pods::until(due, now)).filter(|left| !left.is_zero())
}

fn add_index(container: &mut Container) {
    const NAME: &str = "JOB_COMPLETION_INDEX";
    let list = container.env.get_or_insert_default();
    if list.iter().any(|e| e.name == NAME) {
        return;
    }
    let field =
        ObjectFieldSelector { field_path: format!("metadata.labels['{}']", indexes::INDEX), ..Default::default() };
    let value_from = Some(EnvVarSource { field_ref: Some(field), ..Default::default() });
    list.push(EnvVar { name: NAME.into(), value_from, ..Default::default() });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let at = |s: &str| s.parse::<Timestamp>().expect("time");
        let last = at("2026-01-01T00:00:00Z");
        for (failures, now, want) in [
            (1, "2026-01-01T00:00:04Z", Some(6)),
            (2, "2026-01-01T00:00:04Z", Some(16)),
            (1, "2026-01-01T00:00:10Z", None),
            (40, "2026-01-01T00:00:00Z", Some(600)),
        ] {
            assert_eq!(pause_after(failures, last, at(now)).map(|d| d.as_secs()), want, "{failures} {now}");
        }
    }
}
