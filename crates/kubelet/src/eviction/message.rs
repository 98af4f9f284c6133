//! What an evicted pod and its event say.

use super::threshold::{Observations, Signal, Threshold};
use crate::configuration::Strings;
use crate::pod::PodExt;
use crate::summary::{ContainerStats, PodStats};
use api::k8s::core::v1::{Container, Pod};
use api::quantity::{Format, Quantity};

/// Text and annotations of an eviction for want of a resource.
pub fn pressure(
    signal: Signal,
    pod: &Pod,
    stats: Option<&PodStats>,
    thresholds: &[Threshold],
    seen: &Observations,
) -> (String, Strings) {
    let resource = signal.resource();
    let mut text = format!("The node was low on resource: {resource}. ");
    let known = thresholds.iter().filter(|t| t.signal.resource() == resource);
    if let Some((threshold, at)) = known.filter_map(|t| Some((t, seen.get(&t.signal)?))).next() {
        let available = Quantity::from_units(at.available, threshold.signal.format());
        text += &format!("Threshold quantity: {}, available: {available}. ", threshold.quantity(at.capacity, false));
    }
    let Some(stats) = stats else { return (text, Strings::new()) };
    let mut annotations = Strings::new();
    let own = pod.spec().resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("memory"));
    if let Some(request) = own.filter(|_| resource == "memory") {
        let usage = bytes(stats.memory.working_set_bytes);
        let name = pod.name();
        text +=
            &format!("Pod {name} was using {usage}, request is {}, has larger consumption of {resource}. ", request.0);
        annotations.insert("offending_pod".into(), name.to_owned());
        annotations.insert("offending_pod_usage".into(), usage.to_string());
    }
    let (mut names, mut amounts) = (Vec::new(), Vec::new());
    let spec = pod.spec();
    for container in &stats.containers {
        let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let Some(of) = all.into_iter().find(|c| c.name == container.name) else { continue };
        let Some(usage) = usage(resource, container) else { continue };
        let request = request(of, resource);
        if usage > request {
            let name = &of.name;
            text += &format!(
                "Container {name} was using {usage}, request is {request}, has larger consumption of {resource}. "
            );
            names.push(name.clone());
            amounts.push(usage.to_string());
        }
    }
    annotations.insert("offending_containers".into(), names.join(","));
    annotations.insert("offending_containers_usage".into(), amounts.join(","));
    annotations.insert("starved_resource".into(), resource.to_owned());
    (text, annotations)
}

/// Bytes as a quantity.
pub fn bytes(value: u64) -> Quantity {
    Quantity::from_units(i64::try_from(value).unwrap_or(i64::MAX), Format::BinarySi)
}

fn usage(resource: &str, container: &ContainerStats) -> Option<Quantity> {
    match resource {
        "memory" => Some(bytes(container.memory.working_set_bytes)),
        "ephemeral-storage" => Some(bytes(container.rootfs.as_ref()?.used_bytes + container.logs.as_ref()?.used_bytes)),
        _ => None,
    }
}

fn request(container: &Container, resource: &str) -> Quantity {
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let found = requests.and_then(|r| r.get(resource)).and_then(|q| Quantity::parse(&q.0).ok());
    found.unwrap_or_else(|| Quantity::from_units(0, Format::DecimalSi))
}

#[cfg(test)]
mod tests {
    use super::super::threshold::{Amount, Observation};
    use super::*;
    use crate::summary::MemoryStats;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn upstreams_words() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "a", "resources": {"requests": {"memory": "1Ki"}}}, {"name": "b"}]}}))
        .expect("pod");
        let container = |name: &str, used: u64| ContainerStats {
            name: name.into(),
            memory: MemoryStats { working_set_bytes: used, ..MemoryStats::default() },
            ..ContainerStats::default()
        };
        let stats = PodStats { containers: vec![container("a", 1000), container("b", 4096)], ..PodStats::default() };
        let threshold = Threshold {
            signal: Signal::Memory,
            value: Amount::Quantity(Quantity::parse("100Mi").expect("quantity")),
            grace: Duration::ZERO,
            minimum_reclaim: None,
        };
        let seen = [(Signal::Memory, Observation { available: 1 << 20, capacity: 1 << 30 })].into();
        let (text, annotations) = pressure(Signal::Memory, &pod, Some(&stats), &[threshold], &seen);
        assert_eq!(
            text,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 1Mi. Container b was using 4Ki, request is 0, has larger consumption of memory. "
        );
        assert_eq!(annotations["offending_containers"], "b");
    }
}
