//! Pods that wait: active, backing off, unschedulable, gated.

use crate::framework::{ClusterEvent, QueueSort, SortKey};
use crate::pod_info::uid;
use crate::profile::Profile;
use api::k8s::core::v1::Pod;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const BACKOFF_START: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A pod that no event helped is tried again after this long all the same.
const FLUSH_AFTER: Duration = Duration::from_secs(5 * 60);

/// A pod and its history in the queue.
#[derive(Clone, Debug)]
pub(crate) struct QueuedPod {
    pub pod: Arc<Pod>,
    pub attempts: u32,
    pub added: Instant,
    /// Plugins that rejected it last; empty after an error.
    pub rejected_by: Vec<&'static str>,
}

#[derive(Debug)]
enum Place {
    Active,
    /// Until then; `error` after a failure that events say nothing about.
    Backoff {
        until: Instant,
        error: bool,
    },
    Unschedulable {
        since: Instant,
    },
    Gated,
}

struct Entry {
    queued: QueuedPod,
    place: Place,
    /// Order of arrival in the active queue, to break ties.
    sequence: u64,
}

/// The scheduling queue; owned by the scheduling task.
pub(crate) struct SchedulingQueue {
    sort: Arc<dyn QueueSort>,
    entries: HashMap<String, Entry>,
    /// Active pods in the order of the sort plugin, then of arrival.
    active: BTreeMap<(SortKey, u64), String>,
    sequence: u64,
}

impl SchedulingQueue {
    pub fn new(sort: Arc<dyn QueueSort>) -> Self {
        let (entries, active) = Default::default();
        Self { sort, entries, active, sequence: 0 }
    }

    /// Puts a new pod, or a newer state of a known one, where it belongs.
    pub fn set(&mut self, pod: Arc<Pod>, profile: &Profile) {
        let id = uid(&pod).to_owned();
        let gated = profile.pre_enqueue.iter().any(|plugin| plugin.pre_enqueue(&pod).is_err());
        let Some(mut entry) = self.take(&id) else {
            let queued = QueuedPod { pod, attempts: 0, added: Instant::now(), rejected_by: Vec::new() };
            return self.put(queued, if gated { Place::Gated } else { Place::Active });
        };
        let changed = !same_for_scheduling(&entry.queued.pod, &pod);
        entry.queued.pod = pod;
        let helps =
            |q: &QueuedPod| q.rejected_by.iter().any(|name| profile.hint(name, &q.pod, &ClusterEvent::PodUpdated));
        let place = match entry.place {
            _ if gated => Place::Gated,
            Place::Gated => Place::Active,
            Place::Unschedulable { .. } if changed && helps(&entry.queued) => Place::Active,
            place => place,
        };
        self.put(entry.queued, place);
    }

    pub fn remove(&mut self, id: &str) {
        self.take(id);
    }

    /// The next pod to schedule. A pod whose back-off an event began may go early when nothing else waits.
    pub fn pop(&mut self) -> Option<QueuedPod> {
        self.wake(Instant::now());
        let id = self.active.first_key_value().map(|(_, id)| id.clone()).or_else(|| {
            let waiting = self.entries.iter().filter(|(_, e)| matches!(e.place, Place::Backoff { error: false, .. }));
            waiting.min_by_key(|(_, e)| self.sort.key(&e.queued)).map(|(id, _)| id.clone())
        })?;
        let mut queued = self.take(&id)?.queued;
        queued.attempts += 1;
        Some(queued)
    }

    /// Puts a pod back that fits nowhere, or (rejected by nobody) whose scheduling failed.
    pub fn put_back(&mut self, mut queued: QueuedPod, rejected_by: Vec<&'static str>) {
        let now = Instant::now();
        queued.rejected_by = rejected_by;
        let place = match queued.rejected_by.is_empty() {
            true => Place::Backoff { until: now + backoff(queued.attempts), error: true },
            false => Place::Unschedulable { since: now },
        };
        self.put(queued, place);
    }

    /// Moves the pods that an event may help.
    pub fn on_event(&mut self, event: &ClusterEvent, profile: &Profile) {
        let helped = self.entries.iter().filter(|(_, entry)| {
            matches!(entry.place, Place::Unschedulable { .. })
                && entry.queued.rejected_by.iter().any(|name| profile.hint(name, &entry.queued.pod, event))
        });
        let ids: Vec<String> = helped.map(|(id, _)| id.clone()).collect();
        for id in ids {
            let Some(Entry { queued, place: Place::Unschedulable { since }, .. }) = self.take(&id) else { continue };
            let until = since + backoff(queued.attempts);
            let place = if until <= Instant::now() { Place::Active } else { Place::Backoff { until, error: false } };
            self.put(queued, place);
        }
    }

    /// When the next pod becomes active by itself.
    pub fn next_wake(&self) -> Option<Instant> {
        let due = |entry: &Entry| match entry.place {
            Place::Backoff { until, .. } => Some(until),
            Place::Unschedulable { since } => Some(since + FLUSH_AFTER),
            Place::Active | Place::Gated => None,
        };
        self.entries.values().filter_map(due).min()
    }

    /// Nominated pods that wait, for filters to leave room for.
    pub fn nominated(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.entries.values().map(|e| &e.queued.pod).filter(|p| !crate::pod_info::nominated_node(p).is_empty())
    }

    fn wake(&mut self, now: Instant) {
        let due = self.entries.iter().filter(|(_, e)| match e.place {
            Place::Backoff { until, .. } => until <= now,
            Place::Unschedulable { since } => since + FLUSH_AFTER <= now,
            Place::Active | Place::Gated => false,
        });
        for id in due.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            if let Some(entry) = self.take(&id) {
                self.put(entry.queued, Place::Active);
            }
        }
    }

    fn take(&mut self, id: &str) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        if matches!(entry.place, Place::Active) {
            self.active.remove(&(self.sort.key(&entry.queued), entry.sequence));
        }
        Some(entry)
    }

    fn put(&mut self, queued: QueuedPod, place: Place) {
        self.sequence += 1;
        let id = uid(&queued.pod).to_owned();
        if matches!(place, Place::Active) {
            self.active.insert((self.sort.key(&queued), self.sequence), id.clone());
        }
        self.entries.insert(id, Entry { queued, place, sequence: self.sequence });
    }
}

fn backoff(attempts: u32) -> Duration {
    BACKOFF_START.saturating_mul(1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX)).min(BACKOFF_MAX)
}

/// Whether two states of a pod are the same to the scheduler: its status (which we write) does not count.
fn same_for_scheduling(a: &Pod, b: &Pod) -> bool {
    let meta =
        |p: &Pod| (p.metadata.labels.clone(), p.metadata.annotations.clone(), p.metadata.deletion_timestamp.clone());
    a.spec == b.spec && meta(a) == meta(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::k8s::core::v1::PersistentVolume;
    use serde_json::json;
    use std::any::TypeId;

    fn pod(name: &str, priority: i32, gates: bool) -> Arc<Pod> {
        let gates = if gates { json!([{"name": "g"}]) } else { json!([]) };
        let spec = json!({"priority": priority, "schedulingGates": gates, "containers": []});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "spec": spec})).expect("pod"))
    }

    fn names(queue: &mut SchedulingQueue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop()).map(|q| uid(&q.pod).to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn pods_leave_by_priority_then_age_and_gated_ones_stay() {
        let profile = Profile::new();
        let mut queue = SchedulingQueue::new(profile.queue_sort.clone());
        for (name, priority, gated) in [("a", 0, false), ("b", 5, false), ("c", 0, false), ("d", 9, true)] {
            queue.set(pod(name, priority, gated), &profile);
        }
        assert_eq!(names(&mut queue), ["b", "a", "c"]);
        queue.set(pod("d", 9, false), &profile);
        assert_eq!(names(&mut queue), ["d"]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_helpful_events_and_time_move_unschedulable_pods() {
        let profile = Profile::new();
        let mut queue = SchedulingQueue::new(profile.queue_sort.clone());
        queue.set(pod("a", 0, false), &profile);
        let queued = queue.pop().expect("pod");
        queue.put_back(queued, vec!["NodeResourcesFit"]);
        queue.on_event(&ClusterEvent::Changed(TypeId::of::<PersistentVolume>()), &profile);
        assert!(queue.pop().is_none());
        queue.on_event(&ClusterEvent::AssignedPodDeleted, &profile);
        let queued = queue.pop().expect("moved");
        assert_eq!(queued.attempts, 2);
        queue.put_back(queued, vec![]);
        assert!(queue.pop().is_none());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(queue.pop().is_some());
    }
}
