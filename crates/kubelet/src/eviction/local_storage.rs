//! Limits of local storage: emptyDir sizes, and ephemeral storage of containers and pods.

use super::message::bytes;
use crate::pod::PodExt;
use crate::qos;
use crate::summary::PodStats;
use api::k8s::core::v1::Pod;
use api::quantity::Quantity;

/// Whether a pod has a limit that [`exceeded`] looks at.
pub fn has_limits(pod: &Pod) -> bool {
    let sized = |v: &api::k8s::core::v1::Volume| v.empty_dir.as_ref().is_some_and(|e| e.size_limit.is_some());
    pod.spec().volumes.iter().flatten().any(sized) || qos::pod_limits(pod).contains_key("ephemeral-storage") || {
        pod.spec().containers.iter().any(|c| limit(c).is_some())
    }
}

fn limit(container: &api::k8s::core::v1::Container) -> Option<Quantity> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    Quantity::parse(&limits.get("ephemeral-storage")?.0).ok().filter(|q| q.sign() > 0)
}

/// The message of the first limit that a pod exceeds. `rootfs`: writable layers are on the node's file system.
pub fn exceeded(pod: &Pod, stats: &PodStats, rootfs: bool) -> Option<String> {
    empty_dir(pod, stats).or_else(|| whole_pod(pod, stats)).or_else(|| container(pod, stats, rootfs))
}

fn empty_dir(pod: &Pod, stats: &PodStats) -> Option<String> {
    pod.spec().volumes.iter().flatten().find_map(|volume| {
        let size = Quantity::parse(&volume.empty_dir.as_ref()?.size_limit.as_ref()?.0).ok()?;
        let used = stats.volume.iter().find(|v| v.name == volume.name)?;
        let over = size.sign() > 0 && bytes(used.fs.used_bytes) > size;
        over.then(|| format!("Usage of EmptyDir volume {:?} exceeds the limit {:?}. ", volume.name, size.to_string()))
    })
}

fn whole_pod(pod: &Pod, stats: &PodStats) -> Option<String> {
    let limit = *qos::sum_of_limits(pod).get("ephemeral-storage")?;
    let over = bytes(stats.ephemeral_storage.used_bytes) > limit;
    over.then(|| format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "))
}

fn container(pod: &Pod, stats: &PodStats, rootfs: bool) -> Option<String> {
    stats.containers.iter().find_map(|used| {
        let limit = limit(pod.spec().containers.iter().find(|c| c.name == used.name)?)?;
        let layer = used.rootfs.as_ref().filter(|_| rootfs).map_or(0, |fs| fs.used_bytes);
        let sum = layer + used.logs.as_ref().map_or(0, |fs| fs.used_bytes);
        let text =
            || format!("Container {} exceeded its local ephemeral storage limit {:?}. ", used.name, limit.to_string());
        (bytes(sum) > limit).then(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::{ContainerStats, FsStats, VolumeStats};
    use serde_json::json;

    fn check(empty_dir: u64, layer: u64, logs: u64, expect: Option<&str>) {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
            "containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": "2Mi"}}}]}}))
        .expect("pod");
        assert!(has_limits(&pod));
        let fs = |used_bytes: u64| FsStats { used_bytes, ..FsStats::default() };
        let stats = PodStats {
            containers: vec![ContainerStats {
                name: "c".into(),
                rootfs: Some(fs(layer)),
                logs: Some(fs(logs)),
                ..ContainerStats::default()
            }],
            volume: vec![VolumeStats { fs: fs(empty_dir), name: "v".into(), ..VolumeStats::default() }],
            ephemeral_storage: fs(empty_dir + logs),
            ..PodStats::default()
        };
        assert_eq!(exceeded(&pod, &stats, true).as_deref(), expect);
    }

    #[test]
    fn limits_in_upstreams_words() {
        check(1 << 20, 1 << 20, 0, None);
        check(2 << 20, 0, 0, Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "));
        check(1 << 20, 3 << 20, 0, Some("Container c exceeded its local ephemeral storage limit \"2Mi\". "));
        check(
            1 << 20,
            0,
            2 << 20,
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
        );
    }
}
