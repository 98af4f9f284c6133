//! Endpoints: one object per Service with a selector, in the words of the old API.

use crate::context::{Context, synced};
use crate::ownership::is_not_found;
use crate::pods;
use crate::service_endpoints::{self, Port};
use api::k8s::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service};
use api::machinery::apis::meta::v1::ObjectMeta;
use informer::{Controller, Error, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};
use std::collections::BTreeMap;
use std::sync::Arc;

const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Addresses one object holds at most.
const CAPACITY: usize = 1000;

struct EndpointsController {
    ctx: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let (services, pods, endpoints) = (ctx.informer::<Service>(), ctx.informer::<Pod>(), ctx.informer::<Endpoints>());
    let enqueue = queue.clone();
    services.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    let enqueue = queue.clone();
    endpoints.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    service_endpoints::watch_pods(&services, &pods, &queue);
    synced!(services, pods, endpoints);
    let reconciler = EndpointsController { ctx: ctx.clone(), services, pods, endpoints };
    Controller::new("endpoints", queue, reconciler).run(ctx.shutdown()).await;
}

impl Reconcile for EndpointsController {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let existing = self.endpoints.get_key(key);
        let Some(service) = self.services.get_key(key) else {
            return self.remove(key, existing.as_deref()).await;
        };
        if service_endpoints::selector(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
            return Ok(Requeue::Done);
        }
        let pods = service_endpoints::selected(&service, &self.pods);
        let wanted = wanted(&service, &pods, existing.as_deref());
        let api = self.ctx.api::<Endpoints>(&key.namespace);
        match existing {
            None => drop(api.create(&PostParams::default(), &wanted).await?),
            Some(old) if is_same(&old, &wanted) => {}
            Some(_) => drop(api.replace(&key.name, &PostParams::default(), &wanted).await?),
        }
        Ok(Requeue::Done)
    }
}

impl EndpointsController {
    /// Deletes what this controller made for a service that is gone.
    async fn remove(&self, key: &Key, existing: Option<&Endpoints>) -> Result<Requeue, Error> {
        let ours = existing.is_some_and(|e| e.metadata.labels.iter().flatten().any(|(k, _)| k == MANAGED_BY));
        if !ours {
            return Ok(Requeue::Done);
        }
        match self.ctx.api::<Endpoints>(&key.namespace).delete(&key.name, &DeleteParams::default()).await {
            Err(error) if !is_not_found(&error) => Err(error.into()),
            _ => Ok(Requeue::Done),
        }
    }
}

fn is_same(old: &Endpoints, new: &Endpoints) -> bool {
    let capacity = |e: &Endpoints| e.metadata.annotations.as_ref().and_then(|a| a.get(OVER_CAPACITY).cloned());
    let subsets = |e: &Endpoints| e.subsets.clone().unwrap_or_default();
    subsets(old) == subsets(new) && old.metadata.labels == new.metadata.labels && capacity(old) == capacity(new)
}

fn wanted(service: &Service, pods: &[Arc<Pod>], existing: Option<&Endpoints>) -> Endpoints {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), "endpoint-controller".into());
    if service_endpoints::is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    let mut metadata = existing.map(|e| e.metadata.clone()).unwrap_or_else(|| ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        ..Default::default()
    });
    metadata.labels = Some(labels);
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(TRIGGER_TIME.into(), service_endpoints::trigger_time(service, pods));
    annotations.remove(OVER_CAPACITY);
    if pods.len() > CAPACITY {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    }
    let subsets = subsets(service, pods);
    Endpoints { metadata, subsets: Some(subsets).filter(|s| !s.is_empty()) }
}

fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let family = service.spec.iter().flat_map(service_endpoints::families).next().unwrap_or_else(|| "IPv4".into());
    let published = service_endpoints::publishes_not_ready(service);
    let mut groups: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    let has_ports = service.spec.as_ref().is_some_and(|s| s.ports.as_ref().is_some_and(|p| !p.is_empty()));
    // Ready ones first: they are what a truncated list should hold.
    let mut ordered: Vec<&Arc<Pod>> = pods.iter().filter(|p| published || !pods::is_deleting(p)).collect();
    ordered.sort_by_key(|p| !pods::is_ready(p));
    for pod in ordered.into_iter().take(CAPACITY) {
        let Some(ip) = service_endpoints::address(pod, &family) else { continue };
        let ports = service_endpoints::ports(service, pod);
        if ports.is_empty() && has_ports {
            continue;
        }
        let group = groups.entry(ports).or_default();
        let list = if published || pods::is_ready(pod) { &mut group.0 } else { &mut group.1 };
        list.push(endpoint_address(service, pod, ip));
    }
    groups.into_iter().map(|(ports, (ready, not_ready))| subset(ports, ready, not_ready)).collect()
}

fn subset(ports: Vec<Port>, ready: Vec<EndpointAddress>, not_ready: Vec<EndpointAddress>) -> EndpointSubset {
    let sorted = |mut list: Vec<EndpointAddress>| {
        list.sort_by(|a, b| a.ip.cmp(&b.ip));
        Some(list).filter(|l| !l.is_empty())
    };
    let port = |p: Port| EndpointPort {
        name: Some(p.name).filter(|n| !n.is_empty()),
        port: p.port,
        protocol: Some(p.protocol),
        app_protocol: p.app_protocol,
    };
    let ports: Vec<EndpointPort> = ports.into_iter().map(port).collect();
    EndpointSubset {
        addresses: sorted(ready),
        not_ready_addresses: sorted(not_ready),
        ports: Some(ports).filter(|p| !p.is_empty()),
    }
}

fn endpoint_address(service: &Service, pod: &Pod, ip: &str) -> EndpointAddress {
    EndpointAddress {
        ip: ip.into(),
        hostname: service_endpoints::hostname(service, pod),
        node_name: Some(pods::node_name(pod).to_owned()).filter(|n| !n.is_empty()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.namespace(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_and_unready_pods_are_kept_apart() {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"},
            "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": 8080}]}}))
        .expect("service");
        let pod = |name: &str, ip: &str, ready: &str| -> Arc<Pod> {
            Arc::new(
                serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"nodeName": "x", "containers": []},
                "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": ready}]}}))
                .expect("pod"),
            )
        };
        let got =
            serde_json::to_value(subsets(&service, &[pod("p", "10.0.0.2", "True"), pod("q", "10.0.0.1", "False")]))
                .expect("json");
        let address =
            |name: &str, ip: &str| json!([{"ip": ip, "nodeName": "x", "targetRef": {"kind": "Pod", "name": name}}]);
        let want = json!([{"addresses": address("p", "10.0.0.2"), "notReadyAddresses": address("q", "10.0.0.1"),
            "ports": [{"port": 8080, "protocol": "TCP"}]}]);
        assert_eq!(got, want);
    }
}
