//! EndpointSlices: the endpoints of a Service in slices of at most a hundred, by family and port set.
//!
//! Endpoints stay in the slice they are in, so one pod's change touches one slice.

use crate::context::{Context, synced};
use crate::ownership::{is_not_found, reference_to};
use crate::pods;
use crate::service_endpoints::{self, Port};
use api::k8s::core::v1::{Node, ObjectReference, Pod, Service};
use api::k8s::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use api::machinery::apis::meta::v1::ObjectMeta;
use informer::{Controller, Error, Event, Expectations, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Endpoints in one slice at most.
const CAPACITY: usize = 100;
const BY_SERVICE: &str = "service";

struct Slices {
    ctx: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    expectations: Arc<Expectations<Key>>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let expectations = Arc::new(Expectations::default());
    let (services, pods) = (ctx.informer::<Service>(), ctx.informer::<Pod>());
    let (nodes, slices) = (ctx.informer::<Node>(), ctx.informer::<EndpointSlice>());
    slices.add_index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect());
    let enqueue = queue.clone();
    services.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    let (enqueue, expected) = (queue.clone(), expectations.clone());
    slices.on_event(move |event| {
        let Some(key) = service_of(event.object()) else { return };
        if matches!(event, Event::Added(_)) {
            expected.creation_observed(&key);
        }
        enqueue.add(key);
    });
    service_endpoints::watch_pods(&services, &pods, &queue);
    synced!(services, pods, nodes, slices);
    let reconciler = Slices { ctx: ctx.clone(), services, pods, nodes, slices, expectations };
    Controller::new("endpointslice", queue, reconciler).run(ctx.shutdown()).await;
}

/// The service whose slice this controller manages.
fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    if labels.get(MANAGED_BY).map(String::as_str) != Some(MANAGER) {
        return None;
    }
    Some(Key::new(slice.namespace()?, labels.get(SERVICE_NAME)?.clone()))
}

/// What is to be written.
#[derive(Debug, Default)]
struct Plan {
    create: Vec<EndpointSlice>,
    update: Vec<EndpointSlice>,
    delete: Vec<Arc<EndpointSlice>>,
}

impl Reconcile for Slices {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(service) = self.services.get_key(key) else {
            // The garbage collector removes the slices of a service that is gone.
            self.expectations.forget(key);
            return Ok(Requeue::Done);
        };
        let unmanaged =
            service_endpoints::selector(&service).is_none() || service.metadata.deletion_timestamp.is_some();
        if unmanaged || !self.expectations.satisfied(key) {
            return Ok(Requeue::Done);
        }
        let existing = self.slices.by_index(BY_SERVICE, &key.to_string());
        let pods = service_endpoints::selected(&service, &self.pods);
        let plan = self.plan(&service, &pods, existing);
        self.execute(key, plan).await
    }
}

impl Slices {
    fn plan(&self, service: &Service, pods: &[Arc<Pod>], existing: Vec<Arc<EndpointSlice>>) -> Plan {
        let mut plan = Plan::default();
        let families = service.spec.iter().flat_map(service_endpoints::families).collect::<Vec<_>>();
        let (wanted, strays): (Vec<_>, Vec<_>) = existing.into_iter().partition(|s| families.contains(&s.address_type));
        plan.delete = strays;
        let template = template(service, pods);
        for family in families {
            let of_family: Vec<_> = wanted.iter().filter(|s| s.address_type == family).cloned().collect();
            let endpoints = self.endpoints(service, pods, &family);
            let empty = EndpointSlice { address_type: family, ..template.clone() };
            plan_family(&empty, endpoints, of_family, &mut plan);
        }
        plan
    }

    /// Endpoints of a family, by the ports they serve.
    fn endpoints(&self, service: &Service, pods: &[Arc<Pod>], family: &str) -> BTreeMap<Vec<Port>, Vec<Endpoint>> {
        let has_ports = service.spec.as_ref().is_some_and(|s| s.ports.as_ref().is_some_and(|p| !p.is_empty()));
        let mut groups: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
        for pod in pods {
            let Some(ip) = service_endpoints::address(pod, family) else { continue };
            let ports = service_endpoints::ports(service, pod);
            if ports.is_empty() && has_ports {
                continue;
            }
            let node = self.nodes.get("", pods::node_name(pod));
            let zone = node.and_then(|n| n.metadata.labels.as_ref()?.get(ZONE).cloned());
            groups.entry(ports).or_default().push(endpoint(service, pod, ip, zone));
        }
        groups
    }

    async fn execute(&self, key: &Key, plan: Plan) -> Result<Requeue, Error> {
        let api = self.ctx.api::<EndpointSlice>(&key.namespace);
        self.expectations.expect_creations(key, plan.create.len());
        for (done, slice) in plan.create.iter().enumerate() {
            if let Err(error) = api.create(&PostParams::default(), slice).await {
                self.expectations.creations_skipped(key, plan.create.len() - done);
                return Err(error.into());
            }
        }
        for slice in &plan.update {
            api.replace(&slice.name_any(), &PostParams::default(), slice).await?;
        }
        for slice in &plan.delete {
            match api.delete(&slice.name_any(), &DeleteParams::default()).await {
                Err(error) if !is_not_found(&error) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(Requeue::Done)
    }
}

/// An empty slice of a service.
fn template(service: &Service, pods: &[Arc<Pod>]) -> EndpointSlice {
    let name = service.name_any();
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels.insert(SERVICE_NAME.into(), name.clone());
    if service_endpoints::is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    let metadata = ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: service.namespace(),
        labels: Some(labels),
        annotations: Some(BTreeMap::from([(TRIGGER_TIME.to_owned(), service_endpoints::trigger_time(service, pods))])),
        owner_references: Some(vec![reference_to(service)]),
        ..Default::default()
    };
    EndpointSlice { metadata, ..Default::default() }
}

fn endpoint(service: &Service, pod: &Pod, ip: &str, zone: Option<String>) -> Endpoint {
    let (serving, terminating) = (pods::is_ready(pod), pods::is_deleting(pod));
    let ready = service_endpoints::publishes_not_ready(service) || (serving && !terminating);
    let node = Some(pods::node_name(pod).to_owned()).filter(|n| !n.is_empty());
    Endpoint {
        addresses: vec![ip.into()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: hints(service, ready, zone.as_ref(), node.as_ref()),
        hostname: service_endpoints::hostname(service, pod),
        node_name: node,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.namespace(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        }),
        zone,
        ..Default::default()
    }
}

/// Where traffic should come from, for services that ask for nearness.
fn hints(service: &Service, ready: bool, zone: Option<&String>, node: Option<&String>) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref()?.traffic_distribution.as_deref().filter(|_| ready)?;
    let for_zones = zone.map(|zone| vec![ForZone { name: zone.clone() }]);
    match distribution {
        "PreferClose" | "PreferSameZone" => Some(EndpointHints { for_zones: Some(for_zones?), for_nodes: None }),
        "PreferSameNode" => {
            let for_nodes = node.map(|node| vec![ForNode { name: node.clone() }]);
            Some(EndpointHints { for_zones, for_nodes }).filter(|h| h.for_zones.is_some() || h.for_nodes.is_some())
        }
        _ => None,
    }
}

fn ports_of(slice: &EndpointSlice) -> Vec<Port> {
    let port = |p: &EndpointPort| Port {
        name: p.name.clone().unwrap_or_default(),
        protocol: p.protocol.clone().unwrap_or_default(),
        port: p.port.unwrap_or(0),
        app_protocol: p.app_protocol.clone(),
    };
    let mut ports: Vec<Port> = slice.ports.iter().flatten().map(port).collect();
    ports.sort();
    ports
}

fn to_ports(ports: &[Port]) -> Vec<EndpointPort> {
    let port = |p: &Port| EndpointPort {
        name: Some(p.name.clone()),
        protocol: Some(p.protocol.clone()),
        port: Some(p.port),
        app_protocol: p.app_protocol.clone(),
    };
    ports.iter().map(port).collect()
}

fn held(slice: &EndpointSlice) -> &[Endpoint] {
    slice.endpoints.as_deref().unwrap_or_default()
}

fn pod_of(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|r| r.uid.clone()).unwrap_or_default();
    format!("{uid}/{}", endpoint.addresses.first().map_or("", String::as_str))
}

/// Distributes the endpoints of one family over slices.
fn plan_family(
    empty: &EndpointSlice,
    mut groups: BTreeMap<Vec<Port>, Vec<Endpoint>>,
    existing: Vec<Arc<EndpointSlice>>,
    plan: &mut Plan,
) {
    let mut slices: Vec<(Arc<EndpointSlice>, EndpointSlice)> = Vec::new();
    let mut unused = Vec::new();
    let mut homes: HashMap<Vec<Port>, Vec<usize>> = HashMap::new();
    for slice in existing {
        let ports = ports_of(&slice);
        let Some(group) = groups.get_mut(&ports).filter(|g| !g.is_empty()) else {
            unused.push(slice);
            continue;
        };
        let kept: Vec<String> = held(&slice).iter().map(pod_of).collect();
        let stay: Vec<Endpoint> = group.extract_if(.., |e| kept.contains(&pod_of(e))).collect();
        homes.entry(ports).or_default().push(slices.len());
        slices.push((slice.clone(), EndpointSlice { endpoints: Some(stay), ..EndpointSlice::clone(&slice) }));
    }
    for (ports, mut rest) in groups {
        for at in homes.get(&ports).into_iter().flatten() {
            let room = CAPACITY.saturating_sub(held(&slices[*at].1).len()).min(rest.len());
            slices[*at].1.endpoints.get_or_insert_default().extend(rest.drain(..room));
        }
        while !rest.is_empty() {
            let taken: Vec<Endpoint> = rest.drain(..rest.len().min(CAPACITY)).collect();
            // A slice that is of no use as it is saves a deletion and a creation.
            match unused.pop() {
                Some(slice) => {
                    let new = EndpointSlice {
                        endpoints: Some(taken),
                        ports: Some(to_ports(&ports)),
                        ..EndpointSlice::clone(&slice)
                    };
                    slices.push((slice, new));
                }
                None => plan.create.push(EndpointSlice {
                    endpoints: Some(taken),
                    ports: Some(to_ports(&ports)),
                    ..empty.clone()
                }),
            }
        }
    }
    settle(empty, slices, unused, plan);
}

/// Decides what becomes of existing slices; one stays as a placeholder when there are no endpoints.
fn settle(
    empty: &EndpointSlice,
    slices: Vec<(Arc<EndpointSlice>, EndpointSlice)>,
    mut unused: Vec<Arc<EndpointSlice>>,
    plan: &mut Plan,
) {
    let (filled, mut drained): (Vec<_>, Vec<_>) = slices.into_iter().partition(|(_, new)| !held(new).is_empty());
    let nothing = filled.is_empty() && plan.create.iter().all(|s| s.address_type != empty.address_type);
    if nothing {
        let placeholder = drained.pop().map(|(old, _)| old).or_else(|| unused.pop());
        match placeholder {
            Some(old) => {
                let new = EndpointSlice { endpoints: None, ports: None, ..EndpointSlice::clone(&old) };
                update(empty, &old, new, plan);
            }
            None => plan.create.push(empty.clone()),
        }
    }
    plan.delete.extend(unused);
    plan.delete.extend(drained.into_iter().map(|(old, _)| old));
    for (old, new) in filled {
        update(empty, &old, new, plan);
    }
}

fn update(empty: &EndpointSlice, old: &Arc<EndpointSlice>, mut new: EndpointSlice, plan: &mut Plan) {
    new.metadata.labels.clone_from(&empty.metadata.labels);
    let same_ports = ports_of(old) == ports_of(&new);
    if held(old) == held(&new) && same_ports && old.metadata.labels == new.metadata.labels {
        return;
    }
    let time = empty.metadata.annotations.clone().unwrap_or_default();
    new.metadata.annotations.get_or_insert_default().extend(time);
    plan.update.push(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(from: usize, to: usize) -> Vec<Endpoint> {
        (from..to).map(|n| Endpoint { addresses: vec![format!("10.0.0.{n}")], ..Default::default() }).collect()
    }

    fn ports() -> Vec<Port> {
        vec![Port { name: String::new(), protocol: "TCP".into(), port: 80, app_protocol: None }]
    }

    fn plan(wanted: Vec<Endpoint>, existing: &[Vec<Endpoint>]) -> (Vec<usize>, Vec<usize>, usize) {
        let slice = |list: &Vec<Endpoint>| {
            Arc::new(EndpointSlice {
                endpoints: Some(list.clone()),
                ports: Some(to_ports(&ports())),
                ..Default::default()
            })
        };
        let mut plan = Plan::default();
        let groups = if wanted.is_empty() { BTreeMap::new() } else { BTreeMap::from([(ports(), wanted)]) };
        plan_family(&EndpointSlice::default(), groups, existing.iter().map(slice).collect(), &mut plan);
        let sizes = |list: &[EndpointSlice]| list.iter().map(|s| held(s).len()).collect();
        (sizes(&plan.create), sizes(&plan.update), plan.delete.len())
    }

    #[test]
    fn endpoints_stay_where_they_are() {
        assert_eq!(plan(vec![], &[]), (vec![0], vec![], 0));
        assert_eq!(plan(endpoints(0, 3), &[]), (vec![3], vec![], 0));
        assert_eq!(plan(endpoints(0, 3), &[endpoints(0, 3)]), (vec![], vec![], 0));
        assert_eq!(plan(endpoints(0, 4), &[endpoints(0, 2), endpoints(2, 3)]), (vec![], vec![3], 0));
        assert_eq!(plan(vec![], &[endpoints(0, 2), endpoints(2, 3)]), (vec![], vec![0], 1));
        assert_eq!(plan(endpoints(0, 250), &[]), (vec![100, 100, 50], vec![], 0));
    }
}
