//! A Deployment's status and conditions, computed from its ReplicaSets.

use super::{Deployments, Sets, replicas, rolling, spec};
use crate::pods;
use api::k8s::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetStatus};
use informer::{Error, Requeue};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::PostParams;
use std::time::Duration;

pub(super) fn condition<'a>(deployment: &'a Deployment, kind: &str) -> Option<&'a DeploymentCondition> {
    deployment.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// Whether lack of progress is to be reported.
pub(super) fn has_deadline(deployment: &Deployment) -> bool {
    spec(deployment).progress_deadline_seconds.is_some_and(|seconds| seconds != i32::MAX)
}

/// Sets a condition on the Deployment itself.
pub(super) fn set_condition(deployment: &mut Deployment, kind: &str, value: &str, reason: &str, message: &str) {
    put(deployment.status.get_or_insert_default(), kind, value, reason, message);
}

/// Sets a condition unless status and reason are the same already; keeps the transition time while the status holds.
fn put(status: &mut DeploymentStatus, kind: &str, value: &str, reason: &str, message: &str) {
    let list = status.conditions.get_or_insert_default();
    let at = list.iter().position(|c| c.type_ == kind);
    if at.is_some_and(|at| list[at].status == value && list[at].reason.as_deref() == Some(reason)) {
        return;
    }
    let now = pods::now();
    let since = at.map(|at| list.remove(at)).filter(|c| c.status == value).and_then(|c| c.last_transition_time);
    list.push(DeploymentCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(now.clone()),
        last_transition_time: since.or(Some(now)),
    });
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(list) = &mut status.conditions {
        list.retain(|c| c.type_ != kind);
    }
}

fn number(value: Option<i32>) -> i32 {
    value.unwrap_or(0)
}

/// Every pod is of the newest template and available.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = replicas(deployment);
    number(status.updated_replicas) == wanted
        && number(status.replicas) == wanted
        && number(status.available_replicas) == wanted
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

fn is_observed(set: &ReplicaSet) -> bool {
    let observed = set.status.as_ref().map(|status| status.observed_generation.unwrap_or(0));
    observed.is_some_and(|generation| generation >= set.metadata.generation.unwrap_or(0))
}

fn calculate(deployment: &Deployment, sets: &Sets) -> DeploymentStatus {
    let sum =
        |pick: &dyn Fn(&ReplicaSetStatus) -> i32| sets.all().filter_map(|s| s.status.as_ref()).map(pick).sum::<i32>();
    let total = sum(&|s| s.replicas);
    let available = sum(&|s| number(s.available_replicas));
    let updated = sets.new.as_ref().and_then(|s: &ReplicaSet| s.status.as_ref()).map_or(0, |s| s.replicas);
    let known = sets.all().all(|s| s.status.as_ref().is_some_and(|s| s.terminating_replicas.is_some()));
    let old = deployment.status.clone().unwrap_or_default();
    let some = |n: i32| Some(n).filter(|n| *n != 0);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(total),
        updated_replicas: some(updated),
        ready_replicas: some(sum(&|s| number(s.ready_replicas))),
        available_replicas: some(available),
        unavailable_replicas: some((sets.total() - available).max(0)),
        terminating_replicas: known.then(|| sum(&|s| number(s.terminating_replicas))),
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    if available >= replicas(deployment) - rolling::max_unavailable(deployment) {
        put(&mut status, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.");
    } else {
        put(
            &mut status,
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        );
    }
    status
}

fn is_progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let left = |s: &DeploymentStatus| number(s.replicas) - number(s.updated_replicas);
    number(new.updated_replicas) > number(old.updated_replicas)
        || left(new) < left(old)
        || number(new.ready_replicas) > number(old.ready_replicas)
        || number(new.available_replicas) > number(old.available_replicas)
}

/// How long until the Progressing condition of `status` times out; zero when it has.
fn deadline(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let seconds = spec(deployment).progress_deadline_seconds.filter(|_| has_deadline(deployment))?;
    let progressing = status.conditions.iter().flatten().find(|c| c.type_ == "Progressing")?;
    match progressing.reason.as_deref() {
        Some("NewReplicaSetAvailable") => None,
        Some("ProgressDeadlineExceeded") => Some(Duration::ZERO),
        _ => {
            let from = progressing.last_update_time.as_ref()?.0;
            Some(pods::until(from.checked_add(SignedDuration::from_secs(i64::from(seconds))).ok()?, now))
        }
    }
}

/// Updates the Progressing condition of a rollout.
fn judge_progress(deployment: &Deployment, sets: &Sets, status: &mut DeploymentStatus) {
    let old = deployment.status.clone().unwrap_or_default();
    let reason = condition(deployment, "Progressing").and_then(|c| c.reason.clone());
    let settled = status.replicas == status.updated_replicas && reason.as_deref() == Some("NewReplicaSetAvailable");
    if settled {
        return;
    }
    let subject = match &sets.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.name_any()),
        None => format!("Deployment \"{}\"", deployment.name_any()),
    };
    // A set that its own controller has not seen yet counts no pods: that says nothing of the rollout.
    if is_complete(deployment, status) && sets.new.as_ref().is_none_or(is_observed) {
        put(
            status,
            "Progressing",
            "True",
            "NewReplicaSetAvailable",
            &format!("{subject} has successfully progressed."),
        );
    } else if is_progressing(&old, status) {
        let text = format!("{subject} is progressing.");
        // The time of the last progress counts, so the condition is renewed even where it says the same.
        let since = condition(deployment, "Progressing")
            .filter(|c| c.status == "True")
            .and_then(|c| c.last_transition_time.clone());
        remove(status, "Progressing");
        put(status, "Progressing", "True", "ReplicaSetUpdated", &text);
        if let (Some(since), Some(last)) = (since, status.conditions.as_mut().and_then(|list| list.last_mut())) {
            last.last_transition_time = Some(since);
        }
    } else if deadline(deployment, status, Timestamp::now()) == Some(Duration::ZERO) {
        put(
            status,
            "Progressing",
            "False",
            "ProgressDeadlineExceeded",
            &format!("{subject} has timed out progressing."),
        );
    }
}

/// Takes a ReplicaFailure condition over from the ReplicaSets.
fn judge_failure(sets: &Sets, status: &mut DeploymentStatus) {
    let failure = |set: &ReplicaSet| {
        set.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "ReplicaFailure").cloned()
    };
    let found = sets.new.iter().chain(&sets.old).find_map(failure);
    match found {
        Some(c) => {
            put(status, &c.type_, &c.status, c.reason.as_deref().unwrap_or(""), c.message.as_deref().unwrap_or(""))
        }
        None => remove(status, "ReplicaFailure"),
    }
}

impl Deployments {
    /// Writes status (and metadata) of a Deployment.
    pub(super) async fn write_status(&self, deployment: &Deployment) -> Result<Deployment, Error> {
        let api = self.ctx.api::<Deployment>(&deployment.namespace().unwrap_or_default());
        Ok(api.replace_status(&deployment.name_any(), &PostParams::default(), deployment).await?)
    }

    /// The status of a Deployment that does not roll out: scaled, paused or being deleted.
    pub(super) async fn sync_status_only(&self, deployment: &Deployment, sets: &Sets) -> Result<Requeue, Error> {
        let status = calculate(deployment, sets);
        self.write_if_changed(deployment, status).await
    }

    pub(super) async fn sync_rollout_status(&self, deployment: &Deployment, sets: &Sets) -> Result<Requeue, Error> {
        let mut status = calculate(deployment, sets);
        if has_deadline(deployment) {
            judge_progress(deployment, sets, &mut status);
        } else {
            remove(&mut status, "Progressing");
        }
        judge_failure(sets, &mut status);
        self.write_if_changed(deployment, status).await
    }

    async fn write_if_changed(&self, deployment: &Deployment, status: DeploymentStatus) -> Result<Requeue, Error> {
        let new = Deployment { status: Some(status.clone()), ..deployment.clone() };
        // Compared with what the server has: revision and conditions were only noted so far.
        let key = informer::Key::of(deployment);
        if self.deployments.get_key(&key).is_none_or(|known| *known != new) {
            self.write_status(&new).await?;
        }
        let wait = deadline(deployment, &status, Timestamp::now()).filter(|wait| !wait.is_zero());
        let complete = is_complete(deployment, &status);
        Ok(wait.filter(|_| !complete).map_or(Requeue::Done, |wait| Requeue::After(wait + Duration::from_secs(1))))
    }

    /// Notes pausing and resuming, which stop and restart the progress deadline.
    pub(super) fn check_paused(&self, deployment: &mut Deployment) {
        let reason = condition(deployment, "Progressing").and_then(|c| c.reason.clone()).unwrap_or_default();
        if !has_deadline(deployment) || reason == "ProgressDeadlineExceeded" {
            return;
        }
        match (spec(deployment).paused == Some(true), reason == "DeploymentPaused") {
            (true, false) => {
                set_condition(deployment, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused")
            }
            (false, true) => {
                set_condition(deployment, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed")
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rolling::tests::{deployment, set};
    use super::*;

    fn reasons(status: &DeploymentStatus) -> Vec<String> {
        status
            .conditions
            .iter()
            .flatten()
            .map(|c| format!("{}={} {}", c.type_, c.status, c.reason.clone().unwrap_or_default()))
            .collect()
    }

    #[test]
    fn a_set_that_nobody_has_seen_is_not_complete() {
        let mut d = deployment(0, "25%", "25%");
        d.spec.get_or_insert_default().progress_deadline_seconds = Some(600);
        let mut new = set(0, 0);
        let check = |new: &ReplicaSet, want: &[&str]| {
            let sets = Sets { new: Some(new.clone()), old: vec![] };
            let mut status = calculate(&d, &sets);
            judge_progress(&d, &sets, &mut status);
            assert_eq!(reasons(&status), want);
        };
        check(&new, &["Available=True MinimumReplicasAvailable", "Progressing=True NewReplicaSetAvailable"]);
        new.status = None;
        check(&new, &["Available=True MinimumReplicasAvailable"]);
    }

    #[test]
    fn conditions_follow_the_replica_sets() {
        let mut d = deployment(2, "25%", "25%");
        d.spec.get_or_insert_default().progress_deadline_seconds = Some(600);
        let check = |d: &Deployment, sets: &Sets, want: &[&str]| {
            let mut status = calculate(d, sets);
            judge_progress(d, sets, &mut status);
            assert_eq!(reasons(&status), want);
            status
        };
        let sets = Sets { new: Some(set(2, 0)), old: vec![] };
        let status =
            check(&d, &sets, &["Available=False MinimumReplicasUnavailable", "Progressing=True ReplicaSetUpdated"]);
        assert_eq!((status.unavailable_replicas, status.updated_replicas), (Some(2), Some(2)));
        d.status = Some(status);
        let sets = Sets { new: Some(set(2, 2)), old: vec![] };
        check(&d, &sets, &["Available=True MinimumReplicasAvailable", "Progressing=True NewReplicaSetAvailable"]);
        let old: jiff::Timestamp = "2020-01-01T00:00:00Z".parse().expect("time");
        let progressing =
            d.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten()).last().expect("condition");
        progressing.last_update_time = Some(api::machinery::apis::meta::v1::Time(old));
        let sets = Sets { new: Some(set(2, 0)), old: vec![] };
        check(&d, &sets, &["Available=False MinimumReplicasUnavailable", "Progressing=False ProgressDeadlineExceeded"]);
    }
}
