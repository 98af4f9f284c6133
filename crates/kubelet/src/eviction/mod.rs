//! Eviction: pods go, in upstream's order, before the node runs out of memory, disk, inodes or processes.
//!
//! The flow: look at the node ([`threshold`]) → conditions of the node → limits of local storage
//! ([`local_storage`]) → images and dead containers are removed → the first of the [`ranking`] is ended.
//!
//! Memory tells by itself when it runs low (v1: a threshold on the cgroup's usage, v2: its pressure). Disk space,
//! inodes and processes have no such event in Linux: they are looked at every ten seconds, as upstream does.

pub mod local_storage;
pub mod message;
pub mod ranking;
pub mod threshold;

use crate::context::Context;
use crate::events::{EventType, reason};
use crate::kubelet::Pods;
use crate::mailbox::Failure;
use crate::pod::PodExt;
use crate::summary::{NodeStats, build};
use parking_lot::Mutex;
use ranking::Candidate;
use std::sync::Arc;
use std::time::{Duration, Instant};
use threshold::{History, Observation, Observations, Signal, Threshold};
use tokio::sync::Notify;

/// Upstream's monitoring period.
const LOOK: Duration = Duration::from_secs(10);
/// How long the manager waits for an evicted pod to be gone.
const CLEANUP: Duration = Duration::from_secs(30);
/// How often the mark on memory usage follows the file cache.
const REFRESH: Duration = Duration::from_secs(10);

/// The manager's state that others ask about.
#[derive(Default)]
pub struct Eviction {
    conditions: Mutex<Vec<&'static str>>,
    counts: Mutex<std::collections::BTreeMap<&'static str, u64>>,
}

impl Eviction {
    /// Pressure conditions of the node that hold.
    pub fn conditions(&self) -> Vec<&'static str> {
        self.conditions.lock().clone()
    }

    /// Evictions by signal.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.counts.lock().iter().map(|(k, v)| (*k, *v)).collect()
    }

    fn count(&self, signal: &'static str) {
        *self.counts.lock().entry(signal).or_default() += 1;
    }
}

struct Manager {
    ctx: Arc<Context>,
    pods: Arc<Pods>,
    /// Has the node's status written.
    look: Arc<Notify>,
    thresholds: Vec<Threshold>,
    history: History,
}

/// Runs until dropped.
pub async fn run(ctx: Arc<Context>, pods: Arc<Pods>, look: Arc<Notify>) {
    // Validated when the configuration was read.
    let thresholds = threshold::parse(&ctx.config.settings).unwrap_or_default();
    let low = Arc::new(Notify::new());
    let watch = |signal, cgroup| watch_memory(ctx.clone(), hard(&thresholds, signal), cgroup, low.clone());
    let watches = futures::future::join(watch(Signal::Memory, "/"), watch(Signal::AllocatableMemory, "/kubepods"));
    let mut manager = Manager { ctx, pods, look, thresholds, history: History::default() };
    let control = async {
        loop {
            let evicted = manager.synchronize().await;
            manager.wait_for_cleanup(&evicted).await;
            if evicted.is_empty() {
                let _ = tokio::time::timeout(manager.pause(), low.notified()).await;
            }
        }
    };
    tokio::join!(control, watches);
}

fn hard(thresholds: &[Threshold], signal: Signal) -> Option<Threshold> {
    thresholds.iter().find(|t| t.signal == signal && t.is_hard()).cloned()
}

/// Wakes the manager when the kernel says that memory of a cgroup runs low.
async fn watch_memory(ctx: Arc<Context>, threshold: Option<Threshold>, cgroup: &str, low: Arc<Notify>) {
    let Some(threshold) = threshold else { return std::future::pending().await };
    let capacity = match threshold.signal {
        Signal::AllocatableMemory => ctx.allocatable_of_pods().get("memory").map_or(0, |q| q.value()),
        _ => ctx.machine.memory_bytes(),
    };
    loop {
        let used = ctx.config.runtime.cgroup_stats(cgroup).await.unwrap_or_default();
        let cache = used.memory_usage.saturating_sub(used.memory_working_set);
        let mark = capacity - threshold.quantity(capacity, false).value();
        let mark = u64::try_from(mark).unwrap_or(0).saturating_add(cache);
        match ctx.config.runtime.watch_memory(cgroup, mark).await {
            Ok(Some(mut events)) => {
                // The mark is a usage with file cache, which changes: it is set anew from time to time.
                if let Ok(Some(())) = tokio::time::timeout(REFRESH, events.recv()).await {
                    low.notify_one();
                    // What is low stays low for a while: one look per second is enough.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Ok(None) => return std::future::pending().await,
            Err(error) => {
                tracing::info!(%error, "memory pressure is only looked at from time to time");
                return std::future::pending().await;
            }
        }
    }
}

/// What there is of everything.
pub fn observe(node: &NodeStats) -> Observations {
    let mut out = Observations::new();
    let mut put = |signal: Signal, available: u64, capacity: u64| {
        let of = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        out.insert(signal, Observation { available: of(available), capacity: of(capacity) });
    };
    if let Some(available) = node.memory.available_bytes {
        put(Signal::Memory, available, available + node.memory.working_set_bytes);
    }
    let of_pods = node.system_containers.iter().find(|c| c.name == "pods").map(|c| &c.memory);
    if let Some((memory, available)) = of_pods.and_then(|m| Some((m, m.available_bytes?))) {
        put(Signal::AllocatableMemory, available, available + memory.working_set_bytes);
    }
    let disks = [
        (Signal::NodeFs, Signal::NodeFsInodes, &node.fs),
        (Signal::ImageFs, Signal::ImageFsInodes, &node.runtime.image_fs),
        (Signal::ContainerFs, Signal::ContainerFsInodes, &node.runtime.container_fs),
    ];
    for (space, inodes, fs) in disks {
        let Some(fs) = fs else { continue };
        put(space, fs.available_bytes, fs.capacity_bytes);
        // A file system that counts no inodes (btrfs) cannot run out of them.
        if fs.inodes > 0 {
            put(inodes, fs.inodes_free, fs.inodes);
        }
    }
    if let Some(limit) = &node.rlimit {
        put(Signal::Pid, limit.maxpid.saturating_sub(limit.curproc), limit.maxpid);
    }
    out
}

/// Whether images, and writable layers, are on other file systems than the pods' directories.
fn dedicated(node: &NodeStats) -> (bool, bool) {
    let device = |fs: &Option<crate::summary::FsStats>| fs.as_ref().map(|f| f.device);
    let (root, image) = (device(&node.fs), device(&node.runtime.image_fs));
    let container = device(&node.runtime.container_fs);
    (image != root, image != root && container != image)
}

impl Manager {
    fn pause(&self) -> Duration {
        let period = self.ctx.config.settings.eviction_pressure_transition_period;
        self.history
            .next_change(period, Instant::now())
            .map_or(LOOK, |next| next.min(LOOK))
            .max(Duration::from_millis(100))
    }

    /// One look; the pods that were evicted.
    async fn synchronize(&mut self) -> Vec<String> {
        let node = build::node(&self.ctx).await;
        let (seen, now) = (observe(&node), Instant::now());
        let due = self.history.observe(&self.thresholds, &seen, now);
        self.tell(now);
        let (image_fs, container_fs) = dedicated(&node);
        if self.ctx.config.settings.local_storage_capacity_isolation {
            let evicted = self.enforce_local_storage(!image_fs).await;
            if !evicted.is_empty() {
                return evicted;
            }
        }
        // Memory before all else.
        let memory = |t: &&Threshold| t.signal.resource() == "memory";
        let Some(threshold) = due.iter().find(memory).or(due.first()).cloned() else { return Vec::new() };
        let (signal, resource) = (threshold.signal, threshold.signal.resource());
        let about = self.ctx.node.read().clone();
        let text = format!("Attempting to reclaim {resource}");
        self.ctx.recorder.node(&about, EventType::Warning, reason::EVICTION_THRESHOLD_MET, text);
        if self.reclaim(signal, image_fs, container_fs).await {
            return Vec::new();
        }
        let mut candidates = self.candidates().await;
        ranking::rank(&mut candidates, signal, ranking::measured(signal, image_fs, container_fs));
        for (pod, stats) in candidates {
            let (text, annotations) = message::pressure(signal, &pod, stats.as_ref(), &due, &seen);
            let grace = if threshold.is_hard() { 1 } else { self.soft_grace(&pod) };
            let condition = Some(("TerminationByKubelet".to_owned(), text.clone()));
            if self.evict(&pod, text, annotations, grace, condition) {
                self.ctx.eviction.count(signal.name());
                return vec![pod.uid().to_owned()];
            }
        }
        tracing::warn!(resource, "no pod can be evicted");
        Vec::new()
    }

    fn tell(&self, now: Instant) {
        let conditions = self.history.conditions(self.ctx.config.settings.eviction_pressure_transition_period, now);
        let changed = {
            let mut known = self.ctx.eviction.conditions.lock();
            let changed = *known != conditions;
            *known = conditions;
            changed
        };
        if changed {
            self.look.notify_one();
        }
    }

    fn soft_grace(&self, pod: &api::k8s::core::v1::Pod) -> i64 {
        let most = self.ctx.config.settings.eviction_max_pod_grace_period;
        pod.spec().termination_grace_period_seconds.map_or(most, |own| own.min(most))
    }

    async fn candidates(&self) -> Vec<Candidate> {
        let mut out = Vec::new();
        for pod in self.pods.active() {
            let stats = build::pod_stats(&self.ctx, &pod, build::RELAXED).await;
            out.push((pod, stats));
        }
        out
    }

    async fn enforce_local_storage(&self, rootfs: bool) -> Vec<String> {
        let mut evicted = Vec::new();
        for pod in self.pods.active().into_iter().filter(|p| local_storage::has_limits(p)) {
            let Some(stats) = build::pod_stats(&self.ctx, &pod, LOOK).await else { continue };
            let Some(text) = local_storage::exceeded(&pod, &stats, rootfs) else { continue };
            let signal = if text.starts_with("Usage") {
                "emptydirfs.limit"
            } else if text.starts_with("Pod") {
                "ephemeralpodfs.limit"
            } else {
                "ephemeralcontainerfs.limit"
            };
            if self.evict(&pod, text, Default::default(), 1, None) {
                self.ctx.eviction.count(signal);
                evicted.push(pod.uid().to_owned());
            }
        }
        evicted
    }

    /// Removes what nobody needs; whether that is enough.
    async fn reclaim(&self, signal: Signal, image_fs: bool, container_fs: bool) -> bool {
        let (images, containers) = match signal {
            Signal::Memory | Signal::AllocatableMemory | Signal::Pid => return false,
            Signal::NodeFs | Signal::NodeFsInodes if image_fs && !container_fs => return false,
            Signal::ImageFs | Signal::ImageFsInodes if container_fs => (true, false),
            _ if container_fs => (false, true),
            _ => (true, true),
        };
        if containers {
            self.pods.each(|mailbox| mailbox.collect());
        }
        if images && let Err(error) = self.ctx.image_gc.delete_unused(&self.ctx).await {
            tracing::warn!(error, "cannot remove unused images");
        }
        let seen = observe(&build::node(&self.ctx).await);
        threshold::met(&self.thresholds, &seen, true).is_empty()
    }

    fn evict(
        &self,
        pod: &api::k8s::core::v1::Pod,
        text: String,
        annotations: crate::configuration::Strings,
        grace: i64,
        condition: Option<(String, String)>,
    ) -> bool {
        if crate::pod::is_critical(pod) {
            tracing::warn!(pod = crate::format::pod(pod), "a critical pod is not evicted");
            return false;
        }
        let Some(mailbox) = self.pods.get(pod.uid()) else { return false };
        self.ctx.recorder.annotated_pod(pod, annotations, EventType::Warning, reason::EVICTED, text.clone());
        mailbox.fail(Failure {
            reason: reason::EVICTED.into(),
            message: text,
            grace: Some(Duration::from_secs(u64::try_from(grace).unwrap_or(0))),
            disruption: condition,
        });
        true
    }

    /// Waits until the evicted pods' resources are free.
    async fn wait_for_cleanup(&self, evicted: &[String]) {
        let gone = async {
            for uid in evicted {
                if let Some(mailbox) = self.pods.get(uid) {
                    mailbox.stopped.cancelled().await;
                }
            }
        };
        let _ = tokio::time::timeout(CLEANUP, gone).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::{FsStats, MemoryStats};

    #[test]
    fn observations_of_the_node() {
        let fs = FsStats { available_bytes: 10, capacity_bytes: 100, inodes: 0, ..FsStats::default() };
        let memory = MemoryStats { available_bytes: Some(5), working_set_bytes: 7, ..MemoryStats::default() };
        let node = NodeStats { memory, fs: Some(fs), ..NodeStats::default() };
        let seen = observe(&node);
        assert_eq!(seen[&Signal::Memory], Observation { available: 5, capacity: 12 });
        assert_eq!(seen[&Signal::NodeFs], Observation { available: 10, capacity: 100 });
        assert!(!seen.contains_key(&Signal::NodeFsInodes), "no inodes are counted");
    }
}
