//! Completion indexes of Indexed jobs.

use super::active::pause_after;
use super::{Sync, condition, failure_policy, finish_time, has_finalizer};
use crate::pods;
use api::k8s::batch::v1::{JobCondition, JobSpec};
use api::k8s::core::v1::Pod;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// Which indexes have succeeded and failed, counting pods not yet in the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes {
    pub succeeded: BTreeSet<usize>,
    pub failed: BTreeSet<usize>,
}

/// The index of a pod.
pub(super) fn index_of(pod: &Pod) -> Option<usize> {
    pods::annotation(pod, INDEX)?.parse().ok()
}

/// Parses `0,3-5`; what cannot be read is left out.
fn parse(text: &str, completions: usize) -> BTreeSet<usize> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        Some(from..=to.min(completions.saturating_sub(1)))
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Prints `0,3-5`.
pub(super) fn print(set: &BTreeSet<usize>) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for index in set {
        match parts.last_mut() {
            Some((_, to)) if *to + 1 == *index => *to = *index,
            _ => parts.push((*index, *index)),
        }
    }
    let text = parts.into_iter().map(|(from, to)| match to - from {
        0 => from.to_string(),
        1 => format!("{from},{to}"),
        _ => format!("{from}-{to}"),
    });
    text.collect::<Vec<_>>().join(",")
}

fn failures(pod: &Pod, annotation: &str) -> i32 {
    pods::annotation(pod, annotation).and_then(|v| v.parse().ok()).unwrap_or(0)
}

impl Indexes {
    pub fn calculate(sync: &Sync) -> Self {
        let completions = usize::try_from(sync.spec.completions.unwrap_or(0)).unwrap_or(0);
        let status = sync.job.status.clone().unwrap_or_default();
        let mut succeeded = parse(status.completed_indexes.as_deref().unwrap_or(""), completions);
        let mut failed = parse(status.failed_indexes.as_deref().unwrap_or(""), completions);
        let within = |pod: &Arc<Pod>| index_of(pod).filter(|i| *i < completions);
        let done = sync.pods.iter().filter(|p| pods::phase(p) == "Succeeded" && has_finalizer(p));
        succeeded.extend(done.filter_map(within));
        if let Some(limit) = sync.spec.backoff_limit_per_index {
            let lost = sync
                .pods
                .iter()
                .filter(|p| has_finalizer(p) && sync.is_failed(p) && index_is_lost(&sync.spec, p, limit));
            failed.extend(lost.filter_map(within));
        }
        Self { succeeded, failed }
    }

    /// Whether the job ends because of its indexes.
    pub fn judge(&self, spec: &JobSpec) -> Option<JobCondition> {
        let completions = usize::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
        let failure = |reason, message| Some(condition("FailureTarget", "True", reason, message));
        if spec.max_failed_indexes.is_some_and(|max| self.failed.len() > usize::try_from(max).unwrap_or(0)) {
            return failure(
                "MaxFailedIndexesExceeded",
                "Job has exceeded the specified maximal number of failed indexes",
            );
        }
        if !self.failed.is_empty() && self.failed.len() + self.succeeded.len() >= completions {
            return failure("FailedIndexes", "Job has failed indexes");
        }
        let rules = spec.success_policy.as_ref().map(|p| &p.rules)?;
        let met = rules.iter().position(|rule| {
            let wanted = rule.succeeded_indexes.as_deref().map(|text| parse(text, completions));
            let have = wanted.as_ref().map_or(self.succeeded.len(), |w| w.intersection(&self.succeeded).count());
            match (rule.succeeded_count, wanted) {
                (Some(count), _) => have >= usize::try_from(count).unwrap_or(0),
                (None, Some(wanted)) => have >= wanted.len(),
                (None, None) => false,
            }
        })?;
        Some(condition("SuccessCriteriaMet", "True", "SuccessPolicy", &format!("Matched rules at index {met}")))
    }

    /// The first indexes that need a pod and may have one now, and when the next may.
    pub fn pending(&self, sync: &Sync, count: usize) -> (Vec<usize>, Option<Duration>) {
        let completions = usize::try_from(sync.spec.completions.unwrap_or(0)).unwrap_or(0);
        let taken: BTreeSet<usize> = sync.active.iter().filter_map(|p| index_of(p)).collect();
        let leaving = |p: &&Arc<Pod>| sync.only_replaces_failed() && pods::is_terminating(p);
        let leaving: BTreeSet<usize> = sync.pods.iter().filter(leaving).filter_map(|p| index_of(p)).collect();
        let free = |i: &usize| ![&taken, &leaving, &self.succeeded, &self.failed].iter().any(|set| set.contains(i));
        let candidates = (0..completions).filter(free).take(count);
        if sync.spec.backoff_limit_per_index.is_none() {
            return (candidates.collect(), None);
        }
        let now = Timestamp::now();
        let wait = |index: &usize| {
            let (failed, last) = last_failure(sync, *index)?;
            pause_after(u32::try_from(failed).unwrap_or(1), last, now)
        };
        let (ready, waiting): (Vec<usize>, Vec<usize>) = candidates.partition(|i| wait(i).is_none());
        let soonest = waiting.iter().filter_map(wait).min();
        (ready, soonest)
    }

    /// Gives a pod the number of failures its index had before.
    pub fn annotate_failures(&self, sync: &Sync, index: usize, pod: &mut Pod) {
        if sync.spec.backoff_limit_per_index.is_none() {
            return;
        }
        let before = sync.pods.iter().filter(|p| index_of(p) == Some(index) && sync.is_failed(p));
        let (mut counted, mut ignored) = (0, 0);
        if let Some(last) = before.max_by_key(|p| failures(p, FAILURES) + failures(p, IGNORED_FAILURES)) {
            let counts = failure_policy::counts(&sync.spec, last);
            counted = failures(last, FAILURES) + i32::from(counts);
            ignored = failures(last, IGNORED_FAILURES) + i32::from(!counts);
        }
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(FAILURES.into(), counted.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED_FAILURES.into(), ignored.to_string());
        }
    }
}

/// How often an index failed in a row, and when last.
fn last_failure(sync: &Sync, index: usize) -> Option<(i32, Timestamp)> {
    let lost = sync.pods.iter().filter(|p| index_of(p) == Some(index) && sync.is_failed(p));
    lost.map(|p| (failures(p, FAILURES) + failures(p, IGNORED_FAILURES) + 1, finish_time(p))).max()
}

/// Whether a pod's failure is one too many for its index.
fn index_is_lost(spec: &JobSpec, pod: &Pod, limit: i32) -> bool {
    failure_policy::fails_index(spec, pod) || (failure_policy::counts(spec, pod) && failures(pod, FAILURES) >= limit)
}

/// Whether the pod keeps its finalizer until its index has a successor, which learns the failures from it.
pub(super) fn awaits_successor(sync: &Sync, pod: &Pod) -> bool {
    let (Some(indexes), Some(index), Some(_)) = (&sync.indexes, index_of(pod), sync.spec.backoff_limit_per_index)
    else {
        return false;
    };
    let successor = |p: &Arc<Pod>| {
        index_of(p) == Some(index)
            && p.metadata.uid != pod.metadata.uid
            && failures(p, FAILURES) + failures(p, IGNORED_FAILURES)
                > failures(pod, FAILURES) + failures(pod, IGNORED_FAILURES)
    };
    !indexes.failed.contains(&index) && !indexes.succeeded.contains(&index) && !sync.pods.iter().any(successor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_lists_parse_and_print() {
        for (text, want) in
            [("", ""), ("0", "0"), ("0,1", "0,1"), ("0,1,2,5", "0-2,5"), ("0-2,4-9", "0-2,4-7"), ("x,3", "3")]
        {
            assert_eq!(print(&parse(text, 8)), want, "{text}");
        }
    }

    #[test]
    fn success_policy_and_failed_indexes_end_a_job() {
        let spec: JobSpec = serde_json::from_value(serde_json::json!({"completions": 3, "template": {},
            "successPolicy": {"rules": [{"succeededIndexes": "0", "succeededCount": 1}]}}))
        .expect("spec");
        let check = |succeeded: &[usize], failed: &[usize], want: Option<&str>| {
            let indexes =
                Indexes { succeeded: succeeded.iter().copied().collect(), failed: failed.iter().copied().collect() };
            assert_eq!(indexes.judge(&spec).and_then(|c| c.reason).as_deref(), want);
        };
        check(&[1, 2], &[], None);
        check(&[0], &[], Some("SuccessPolicy"));
        check(&[1, 2], &[0], Some("FailedIndexes"));
    }
}
