//! Which pod goes first: exceeding its requests, then the lower priority, then the larger excess.

use super::threshold::Signal;
use crate::pod::PodExt;
use crate::qos;
use crate::summary::{FsStats, PodStats};
use api::k8s::core::v1::Pod;
use std::cmp::Reverse;
use std::sync::Arc;

/// A pod and what it uses; one without figures goes first.
pub type Candidate = (Arc<Pod>, Option<PodStats>);

/// What of a pod's disk use counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Writable layers.
    pub rootfs: bool,
    /// Logs.
    pub logs: bool,
    /// Local volumes.
    pub volumes: bool,
}

/// What counts for a signal, given whether images and layers are on a disk of their own.
pub fn measured(signal: Signal, image_fs: bool, container_fs: bool) -> Measured {
    let node =
        matches!(signal, Signal::NodeFs | Signal::NodeFsInodes | Signal::ContainerFs | Signal::ContainerFsInodes);
    match (image_fs, container_fs) {
        (false, _) => Measured { rootfs: true, logs: true, volumes: true },
        (true, false) => {
            let own = matches!(signal, Signal::NodeFs | Signal::NodeFsInodes);
            Measured { rootfs: !own, logs: own, volumes: own }
        }
        (true, true) => Measured { rootfs: node, logs: node, volumes: node },
    }
}

/// Puts the pod that is to go first at the front.
pub fn rank(candidates: &mut [Candidate], signal: Signal, measured: Measured) {
    candidates.sort_by_cached_key(|(pod, stats)| {
        let Some(stats) = stats else { return (false, false, 0, Reverse(0)) };
        let priority = pod.spec().priority.unwrap_or(0);
        let request = |name: &str| qos::pod_requests(pod).get(name).map_or(0, |q| i128::from(q.value()));
        let (used, requested, unit) = match signal.resource() {
            "memory" => (i128::from(stats.memory.working_set_bytes), request("memory"), true),
            "pids" => return (true, false, priority, Reverse(i128::from(stats.process_stats.process_count))),
            // Nobody requests inodes; upstream then subtracts the request for storage all the same.
            "inodes" => (disk(pod, stats, measured, |fs| fs.inodes_used), request("ephemeral-storage"), false),
            _ => (disk(pod, stats, measured, |fs| fs.used_bytes), request("ephemeral-storage"), true),
        };
        let exceeds = if unit { used > requested } else { used > 0 };
        (true, !exceeds, priority, Reverse(used - requested))
    });
}

fn disk(pod: &Pod, stats: &PodStats, measured: Measured, of: impl Fn(&FsStats) -> u64) -> i128 {
    let mut sum = 0;
    for container in &stats.containers {
        for (counts, fs) in [(measured.rootfs, &container.rootfs), (measured.logs, &container.logs)] {
            sum += fs.as_ref().filter(|_| counts).map_or(0, |fs| i128::from(of(fs)));
        }
    }
    let names = pod.spec().volumes.iter().flatten();
    let local = names.filter(|v| v.host_path.is_some() || crate::summary::build::is_local(v)).map(|v| &v.name);
    let local: Vec<&String> = local.collect();
    let volumes = stats.volume.iter().filter(|v| measured.volumes && local.contains(&&v.name));
    sum + volumes.map(|v| i128::from(of(&v.fs))).sum::<i128>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::{ContainerStats, MemoryStats, ProcessStats, VolumeStats};
    use serde_json::json;

    fn candidate(name: &str, priority: i32, request: &str, used: u64) -> Candidate {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"priority": priority,
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{"name": "c", "resources": {"requests": {"memory": request, "ephemeral-storage": request}}}]}}))
        .expect("pod");
        let fs = |used_bytes: u64| FsStats { used_bytes, ..FsStats::default() };
        let stats = PodStats {
            memory: MemoryStats { working_set_bytes: used, ..MemoryStats::default() },
            process_stats: ProcessStats { process_count: used },
            containers: vec![ContainerStats { logs: Some(fs(used)), rootfs: Some(fs(1)), ..ContainerStats::default() }],
            volume: vec![VolumeStats { fs: fs(used), name: "v".into(), ..VolumeStats::default() }],
            ..PodStats::default()
        };
        (Arc::new(pod), Some(stats))
    }

    fn check(mut candidates: Vec<Candidate>, signal: Signal, measured: Measured, expect: &[&str]) {
        rank(&mut candidates, signal, measured);
        let got: Vec<_> = candidates.iter().map(|(p, _)| p.name().to_owned()).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn excess_then_priority_then_size() {
        let all = || {
            vec![
                candidate("within", 0, "100", 90),
                candidate("high", 10, "0", 500),
                candidate("small", 0, "100", 110),
                candidate("large", 0, "100", 200),
            ]
        };
        let any = Measured { rootfs: true, logs: true, volumes: true };
        check(all(), Signal::Memory, any, &["large", "small", "high", "within"]);
        check(all(), Signal::Pid, any, &["large", "small", "within", "high"]);
        let mut unknown = all();
        unknown[0].1 = None;
        check(unknown, Signal::Memory, any, &["within", "large", "small", "high"]);
        let logs = Measured { rootfs: false, logs: true, volumes: false };
        check(all(), Signal::NodeFs, logs, &["large", "small", "high", "within"]);
    }

    #[test]
    fn what_counts_where() {
        assert_eq!(measured(Signal::NodeFs, true, false), Measured { rootfs: false, logs: true, volumes: true });
        assert_eq!(measured(Signal::ImageFs, true, false), Measured { rootfs: true, logs: false, volumes: false });
        assert!(measured(Signal::NodeFs, true, true).rootfs && !measured(Signal::ImageFs, true, true).rootfs);
    }
}
