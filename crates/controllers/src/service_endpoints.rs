//! What a Service's selector makes of pods: addresses, ports, readiness. Shared by Endpoints and EndpointSlices.

use crate::pods;
use api::k8s::core::v1::{Container, Pod, Service, ServicePort, ServiceSpec};
use api::machinery::util::intstr::IntOrString;
use api::selector::{LabelSelector, Requirement};
use informer::{Event, Informer, Key, WorkQueue};
use jiff::Timestamp;
use std::sync::Arc;

/// A port of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Port {
    pub name: String,
    pub protocol: String,
    pub port: i32,
    pub app_protocol: Option<String>,
}

/// The selector, for services whose endpoints are managed.
pub(crate) fn selector(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    let labels = spec.selector.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    Some(LabelSelector(labels.iter().map(|(k, v)| Requirement::In(k.clone(), vec![v.clone()])).collect()))
}

pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| s.cluster_ip.as_deref() == Some("None"))
}

/// Pods of the service that have an address and have not finished.
pub(crate) fn selected(service: &Service, pods: &Informer<Pod>) -> Vec<Arc<Pod>> {
    let Some(selector) = selector(service).filter(|s| !s.0.is_empty()) else { return Vec::new() };
    let mut list = pods.list_in(service.metadata.namespace.as_deref().unwrap_or(""));
    list.retain(|pod| {
        selector.matches_labels(pod.metadata.labels.as_ref()) && !pods::is_terminal(pod) && !addresses(pod).is_empty()
    });
    list
}

/// Every address of a pod.
pub(crate) fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else { return Vec::new() };
    let many: Vec<&str> = status.pod_ips.iter().flatten().map(|p| p.ip.as_str()).filter(|ip| !ip.is_empty()).collect();
    if many.is_empty() { status.pod_ip.as_deref().filter(|ip| !ip.is_empty()).into_iter().collect() } else { many }
}

/// The pod's address of a family, `IPv4` or `IPv6`.
pub(crate) fn address<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    addresses(pod).into_iter().find(|ip| ip.contains(':') == (family == "IPv6"))
}

/// The ports a pod serves for a service; a named port the pod does not have is left out.
pub(crate) fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let list = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let mut out: Vec<Port> = list.filter_map(|p| Some(resolved(p, target_port(p, pod)?))).collect();
    out.sort();
    out
}

fn resolved(port: &ServicePort, number: i32) -> Port {
    let protocol = protocol(port.protocol.as_deref()).to_owned();
    Port {
        name: port.name.clone().unwrap_or_default(),
        protocol,
        port: number,
        app_protocol: port.app_protocol.clone(),
    }
}

fn protocol(protocol: Option<&str>) -> &str {
    protocol.unwrap_or("TCP")
}

fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let wanted = protocol(port.protocol.as_deref());
            let mut ports = containers(pod).flat_map(|c| c.ports.iter().flatten());
            ports
                .find(|p| p.name.as_deref() == Some(name) && protocol(p.protocol.as_deref()) == wanted)
                .map(|p| p.container_port)
        }
    }
}

/// Containers that run beside each other: the main ones and sidecars.
fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    let sidecars = spec.and_then(|s| s.init_containers.as_ref()).into_iter().flatten();
    spec.into_iter()
        .flat_map(|s| &s.containers)
        .chain(sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always")))
}

/// Whether unready addresses are published as ready ones.
pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| s.publish_not_ready_addresses == Some(true))
}

/// The pod's name in a headless service's domain.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let host = spec.hostname.clone().filter(|h| !h.is_empty())?;
    (spec.subdomain == service.metadata.name && service.metadata.namespace == pod.metadata.namespace).then_some(host)
}

/// When the newest change that the endpoints show happened.
pub(crate) fn trigger_time(service: &Service, pods: &[Arc<Pod>]) -> String {
    let created = service.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let changed =
        pods.iter().filter_map(|pod| pods::condition(pod, "Ready")?.last_transition_time.as_ref().map(|t| t.0));
    let newest: Timestamp = created.into_iter().chain(changed).max().unwrap_or_else(Timestamp::now);
    newest.to_string()
}

/// Address families of a service.
pub(crate) fn families(spec: &ServiceSpec) -> Vec<String> {
    match spec.ip_families.clone().filter(|list| !list.is_empty()) {
        Some(list) => list,
        None => {
            let six = spec.cluster_ip.as_deref().is_some_and(|ip| ip.contains(':'));
            vec![if six { "IPv6" } else { "IPv4" }.to_owned()]
        }
    }
}

/// Queues the services that select a pod whenever something changes that endpoints show.
pub(crate) fn watch_pods(services: &Informer<Service>, pods: &Informer<Pod>, queue: &WorkQueue<Key>) {
    let (services, queue) = (services.clone(), queue.clone());
    pods.on_event(move |event| {
        if matches!(event, Event::Updated { old, new } if shows_same(old, new)) {
            return;
        }
        let before = match event {
            Event::Updated { old, new } if old.metadata.labels != new.metadata.labels => old.metadata.labels.as_ref(),
            _ => None,
        };
        let pod = event.object();
        for service in services.list_in(pod.metadata.namespace.as_deref().unwrap_or("")) {
            let Some(selector) = selector(&service).filter(|s| !s.0.is_empty()) else { continue };
            if selector.matches_labels(pod.metadata.labels.as_ref())
                || before.is_some_and(|l| selector.matches_labels(Some(l)))
            {
                queue.add(Key::of(service.as_ref()));
            }
        }
    });
}

fn shows_same(a: &Pod, b: &Pod) -> bool {
    let name = |p: &Pod| p.spec.as_ref().map(|s| (s.node_name.clone(), s.hostname.clone(), s.subdomain.clone()));
    a.metadata.labels == b.metadata.labels
        && a.metadata.deletion_timestamp == b.metadata.deletion_timestamp
        && pods::is_ready(a) == pods::is_ready(b)
        && pods::is_terminal(a) == pods::is_terminal(b)
        && addresses(a) == addresses(b)
        && name(a) == name(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn named_ports_are_resolved_per_pod() {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": {"ports": [
            {"name": "a", "port": 80, "targetPort": "web"}, {"name": "b", "port": 81}, {"name": "c", "port": 82, "targetPort": "none"}]}}))
        .expect("service");
        let pod: Pod = serde_json::from_value(
            json!({"spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]}}),
        )
        .expect("pod");
        let got: Vec<(String, i32)> = ports(&service, &pod).into_iter().map(|p| (p.name, p.port)).collect();
        assert_eq!(got, [("a".into(), 8080), ("b".into(), 81)]);
    }
}
