//! Mirrors Endpoints that people write for Services without a selector as EndpointSlices.

use crate::context::{Context, synced};
use crate::ownership::{is_not_found, reference_to};
use api::k8s::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use api::k8s::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use api::machinery::apis::meta::v1::ObjectMeta;
use informer::{Controller, Error, Event, Expectations, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};
use std::sync::Arc;

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations of Endpoints that slices do not get.
const NOT_COPIED: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// Addresses of a subset that are mirrored at most.
const CAPACITY: usize = 1000;
const BY_ENDPOINTS: &str = "endpoints";

struct Mirroring {
    ctx: Context,
    endpoints: Informer<Endpoints>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    expectations: Arc<Expectations<Key>>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let expectations = Arc::new(Expectations::default());
    let (endpoints, services) = (ctx.informer::<Endpoints>(), ctx.informer::<Service>());
    let slices = ctx.informer::<EndpointSlice>();
    slices.add_index(BY_ENDPOINTS, |slice| mirrored(slice).map(|key| key.to_string()).into_iter().collect());
    let enqueue = queue.clone();
    endpoints.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    let enqueue = queue.clone();
    services.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    let (enqueue, expected) = (queue.clone(), expectations.clone());
    slices.on_event(move |event| {
        let Some(key) = mirrored(event.object()) else { return };
        if matches!(event, Event::Added(_)) {
            expected.creation_observed(&key);
        }
        enqueue.add(key);
    });
    synced!(endpoints, services, slices);
    let reconciler = Mirroring { ctx: ctx.clone(), endpoints, services, slices, expectations };
    Controller::new("endpointslicemirroring", queue, reconciler).run(ctx.shutdown()).await;
}

/// The Endpoints that a slice of this controller mirrors.
fn mirrored(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    let ours = labels.get(MANAGED_BY).map(String::as_str) == Some(MANAGER);
    ours.then(|| Some(Key::new(slice.namespace()?, labels.get(SERVICE_NAME)?.clone())))?
}

impl Reconcile for Mirroring {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        if !self.expectations.satisfied(key) {
            return Ok(Requeue::Done);
        }
        let present = self.slices.by_index(BY_ENDPOINTS, &key.to_string());
        let wanted = match (self.endpoints.get_key(key), self.services.get_key(key)) {
            (Some(endpoints), Some(service)) if is_mirrored(&endpoints, &service) => slices(&endpoints),
            _ => Vec::new(),
        };
        self.settle(key, wanted, present).await
    }
}

fn is_mirrored(endpoints: &Endpoints, service: &Service) -> bool {
    let has = |map: &Option<std::collections::BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|m| m.get(key)).cloned()
    };
    has(&endpoints.metadata.labels, SKIP).as_deref() != Some("true")
        && has(&endpoints.metadata.annotations, LEADER).is_none()
        && service.spec.as_ref().is_none_or(|s| s.selector.is_none())
        && endpoints.metadata.deletion_timestamp.is_none()
}

impl Mirroring {
    /// Updates slices with the same family and ports in place, creates what lacks, deletes what is over.
    async fn settle(
        &self,
        key: &Key,
        wanted: Vec<EndpointSlice>,
        mut present: Vec<Arc<EndpointSlice>>,
    ) -> Result<Requeue, Error> {
        let api = self.ctx.api::<EndpointSlice>(&key.namespace);
        let mut create = Vec::new();
        for slice in wanted {
            let same = |p: &Arc<EndpointSlice>| p.address_type == slice.address_type && p.ports == slice.ports;
            let Some(at) = present.iter().position(same) else {
                create.push(slice);
                continue;
            };
            let old = present.swap_remove(at);
            let meta =
                |s: &EndpointSlice| (s.metadata.labels.clone(), s.metadata.annotations.clone().unwrap_or_default());
            if old.endpoints != slice.endpoints || meta(&old) != meta(&slice) {
                let mut new = EndpointSlice { endpoints: slice.endpoints, ..EndpointSlice::clone(&old) };
                (new.metadata.labels, new.metadata.annotations) = (slice.metadata.labels, slice.metadata.annotations);
                api.replace(&new.name_any(), &PostParams::default(), &new).await?;
            }
        }
        self.expectations.expect_creations(key, create.len());
        for (done, slice) in create.iter().enumerate() {
            if let Err(error) = api.create(&PostParams::default(), slice).await {
                self.expectations.creations_skipped(key, create.len() - done);
                return Err(error.into());
            }
        }
        for slice in present {
            match api.delete(&slice.name_any(), &DeleteParams::default()).await {
                Err(error) if !is_not_found(&error) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(Requeue::Done)
    }
}

/// One slice for each subset and address family.
fn slices(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels.insert(SERVICE_NAME.into(), endpoints.name_any());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", endpoints.name_any())),
        labels: Some(labels),
        annotations: Some(annotations).filter(|a| !a.is_empty()),
        owner_references: Some(vec![reference_to(endpoints)]),
        ..Default::default()
    };
    let mut out = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        for family in ["IPv4", "IPv6"] {
            let list = addresses(subset, family);
            if !list.is_empty() {
                let slice = EndpointSlice {
                    metadata: metadata.clone(),
                    address_type: family.into(),
                    endpoints: Some(list),
                    ports: Some(ports(subset)),
                };
                out.push(slice);
            }
        }
    }
    out
}

fn addresses(subset: &EndpointSubset, family: &str) -> Vec<Endpoint> {
    let ready = subset.addresses.iter().flatten().map(|a| (a, true));
    let all = ready.chain(subset.not_ready_addresses.iter().flatten().map(|a| (a, false)));
    let of_family = all.filter(|(a, _)| a.ip.contains(':') == (family == "IPv6")).take(CAPACITY);
    of_family.map(|(address, ready)| endpoint(address, ready)).collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Default::default()
    }
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let port = |p: &api::k8s::core::v1::EndpointPort| EndpointPort {
        name: Some(p.name.clone().unwrap_or_default()),
        port: Some(p.port),
        protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: p.app_protocol.clone(),
    };
    subset.ports.iter().flatten().map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn subsets_become_slices_by_family() {
        let endpoints: Endpoints = serde_json::from_value(json!({"metadata": {"name": "e", "namespace": "n", "labels": {"a": "b"}}, "subsets": [
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80, "protocol": "TCP"}]}]}))
        .expect("endpoints");
        let got: Vec<(String, usize)> =
            slices(&endpoints).into_iter().map(|s| (s.address_type, s.endpoints.map_or(0, |e| e.len()))).collect();
        assert_eq!(got, [("IPv4".to_owned(), 2), ("IPv6".into(), 1)]);
        let service = |spec| serde_json::from_value::<Service>(json!({"spec": spec})).expect("service");
        assert!(is_mirrored(&endpoints, &service(json!({}))));
        assert!(!is_mirrored(&endpoints, &service(json!({"selector": {"a": "b"}}))));
    }
}
