//! The Service of cluster DNS, with one endpoint slice for each node's own responder.
//!
//! Every node runs a responder; `internalTrafficPolicy: Local` keeps a pod's queries on its node. The slices
//! belong to their Nodes, so the garbage collector removes them.

use crate::context::{Context, synced};
use crate::ownership::is_not_found;
use api::k8s::core::v1::{Node, Service};
use api::k8s::discovery::v1::EndpointSlice;
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::api::{DeleteParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kube-dns";
/// Port of each node's responder, on the node's address.
const PORT: u16 = 10053;
const MANAGER: &str = "cluster-dns.sagong";

/// Runs the controller; at once done where the cluster has no DNS.
pub(crate) async fn run(ctx: Context) {
    let Some(address) = ctx.config().cluster_dns else { return };
    let nodes = ctx.informer::<Node>();
    let services = ctx.informer::<Service>();
    let queue = WorkQueue::new();
    let filed = queue.clone();
    nodes.on_event(move |event: &Event<Node>| filed.add(Key::of(&**event.object())));
    let filed = queue.clone();
    services.on_event(move |event: &Event<Service>| {
        if Key::of(&**event.object()) == Key::new(NAMESPACE, SERVICE) {
            filed.add(Key::new(NAMESPACE, SERVICE));
        }
    });
    synced!(nodes, services);
    // There may be no service yet whose event would ask for it.
    queue.add(Key::new(NAMESPACE, SERVICE));
    let shutdown = ctx.shutdown();
    Controller::new("cluster-dns", queue, ClusterDns { ctx, nodes, services, address: address.to_string() })
        .workers(1)
        .run(shutdown)
        .await;
}

struct ClusterDns {
    ctx: Context,
    nodes: Informer<Node>,
    services: Informer<Service>,
    address: String,
}

impl Reconcile for ClusterDns {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        if key.namespace.is_empty() {
            self.node(&key.name).await?
        } else {
            self.service().await?
        }
        Ok(Requeue::Done)
    }
}

impl ClusterDns {
    async fn service(&self) -> Result<(), Error> {
        if self.services.get(NAMESPACE, SERVICE).is_some() {
            return Ok(());
        }
        let port =
            |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": 53, "targetPort": PORT});
        let service = json!({
            "metadata": {"name": SERVICE, "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}},
            "spec": {"clusterIP": self.address, "internalTrafficPolicy": "Local", "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")]}
        });
        create_or_present(self.ctx.api::<Service>(NAMESPACE).create(&PostParams::default(), &decode(service)?).await)
    }

    async fn node(&self, name: &str) -> Result<(), Error> {
        let slices = self.ctx.api::<EndpointSlice>(NAMESPACE);
        let slice_name = format!("{SERVICE}-{name}");
        let Some((node, addresses)) = self.nodes.get("", name).map(|node| (node.clone(), internal_addresses(&node)))
        else {
            return match slices.delete(&slice_name, &DeleteParams::default()).await {
                Err(error) if !is_not_found(&error) => Err(error.into()),
                _ => Ok(()),
            };
        };
        if addresses.is_empty() {
            return Ok(());
        }
        let wanted = slice(&slice_name, &node, &addresses)?;
        match slices.get_opt(&slice_name).await? {
            None => create_or_present(slices.create(&PostParams::default(), &wanted).await),
            Some(present) if present.endpoints == wanted.endpoints && present.ports == wanted.ports => Ok(()),
            Some(present) => {
                let mut changed = wanted;
                changed.metadata.resource_version = present.metadata.resource_version;
                slices.replace(&slice_name, &PostParams::default(), &changed).await.map(drop).map_err(Into::into)
            }
        }
    }
}

fn internal_addresses(node: &Node) -> Vec<String> {
    let addresses = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    addresses.filter(|a| a.type_ == "InternalIP" && !a.address.contains(':')).map(|a| a.address.clone()).collect()
}

fn slice(name: &str, node: &Node, addresses: &[String]) -> Result<EndpointSlice, Error> {
    let owner = node.controller_owner_ref(&()).map(
        |owner| json!([{"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid}]),
    );
    let port = |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": PORT});
    decode(json!({
        "metadata": {"name": name, "ownerReferences": owner, "labels": {"kubernetes.io/service-name": SERVICE, "endpointslice.kubernetes.io/managed-by": MANAGER}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": &addresses[..1], "nodeName": node.name_any(), "conditions": {"ready": true, "serving": true, "terminating": false}}],
        "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")]
    }))
}

fn decode<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| Error::Terminal(error.to_string()))
}

/// Somebody else was faster: the event of theirs is reconciled.
fn create_or_present<T>(created: Result<T, kube::Error>) -> Result<(), Error> {
    match created {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop).map_err(Into::into),
    }
}
