//! The controllers of the controller manager.
//!
//! A controller is a file (or folder) and a row in [`table`]: it files keys from shared informers in a
//! workqueue, and its `reconcile(key)` makes the world match what the object asks for. Each writes with
//! the client of its own service account, so RBAC says what it may do.
//!
//! Invariants: reconciling is idempotent and starts from the informers' present state; nothing runs on a
//! timer except what the API defines by time (deadlines, schedules, leases, autoscaling metrics).
//!
//! Deliberately absent: cloud controllers; periodic resync.

mod attach_detach;
mod cluster_dns;
mod clusterrole_aggregation;
mod context;
mod cronjob;
mod csr_signing;
mod daemonset;
mod deployment;
mod discovery;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslice_mirroring;
mod ephemeral_volume;
mod garbage_collector;
mod history;
mod job;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod ownership;
mod persistent_volume;
mod pod_control;
mod pod_gc;
mod podautoscaler;
mod pods;
mod protection;
mod replicaset;
mod resource_claim;
mod resourcequota;
mod root_ca;
mod service_endpoints;
mod service_cidr;
mod serviceaccount;
mod serviceaccount_token;
mod statefulset;
mod template;
mod ttl;
mod ttl_after_finished;
mod volume_attributes_class;
mod volume_expand;

use context::{Context, Shared};
use futures::future::BoxFuture;
use informer::{CancellationToken, InformerFactory};
use std::net::IpAddr;
use std::sync::Arc;

/// What the controllers need to know about the cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pod network of the cluster, `10.244.0.0/16`; empty: node CIDRs are not allocated.
    pub cluster_cidr: String,
    /// Prefix length of one node's part of it.
    pub node_cidr_mask_size: u8,
    /// PEM of the CA that signed the API server's certificate, published as `kube-root-ca.crt`.
    pub root_ca: String,
    /// Signs certificate requests that are approved for the signers of `kubernetes.io`; `None`: nobody does.
    pub signing_ca: Option<Arc<pki::Ca>>,
    /// Signs the tokens that are kept in secrets; `None`: such secrets are not filled.
    pub token_key: Option<Arc<pki::ServiceAccountKey>>,
    /// Address of the cluster's DNS Service; `None`: there is no cluster DNS.
    pub cluster_dns: Option<IpAddr>,
    /// Finished pods above this number are deleted, oldest first.
    pub terminated_pod_gc_threshold: usize,
}

impl Default for Config {
    fn default() -> Self {
        let (cluster_cidr, root_ca) = Default::default();
        Self { cluster_cidr, node_cidr_mask_size: 24, root_ca, signing_ca: None, token_key: None, cluster_dns: None, terminated_pod_gc_threshold: 12_500 }
    }
}

/// A controller: its name (of its events and its service account) and how it is started.
struct Row {
    name: &'static str,
    account: &'static str,
    start: fn(Context) -> BoxFuture<'static, ()>,
}

macro_rules! row {
    ($name:literal, $account:literal, $start:path) => {
        Row { name: $name, account: $account, start: |ctx| Box::pin($start(ctx)) }
    };
}

/// Every controller; one line each.
fn table() -> Vec<Row> {
    vec![
        row!("namespace-controller", "namespace-controller", namespace::run),
        row!("service-account-controller", "service-account-controller", serviceaccount::run),
        row!("serviceaccount-token-controller", "service-account-token-controller", serviceaccount_token::run),
        row!("root-ca-certificate-publisher-controller", "root-ca-cert-publisher", root_ca::run),
        row!("deployment-controller", "deployment-controller", deployment::run),
        row!("replicaset-controller", "replicaset-controller", replicaset::run::<api::k8s::apps::v1::ReplicaSet>),
        row!(
            "replication-controller",
            "replication-controller",
            replicaset::run::<api::k8s::core::v1::ReplicationController>
        ),
        row!("endpoint-slice-controller", "endpointslice-controller", endpointslice::run),
        row!("endpoint-controller", "endpoint-controller", endpoints::run),
        row!("endpoint-slice-mirroring-controller", "endpointslicemirroring-controller", endpointslice_mirroring::run),
        row!("nodeipam", "node-controller", node_ipam::run),
        row!("node-controller", "node-controller", node_lifecycle::run),
        row!("daemonset-controller", "daemon-set-controller", daemonset::run),
        row!("statefulset-controller", "statefulset-controller", statefulset::run),
        row!("job-controller", "job-controller", job::run),
        row!("cronjob-controller", "cronjob-controller", cronjob::run),
        row!("ttl-after-finished-controller", "ttl-after-finished-controller", ttl_after_finished::run),
        row!("garbage-collector-controller", "generic-garbage-collector", garbage_collector::run),
        row!("pod-garbage-collector", "pod-garbage-collector", pod_gc::run),
        row!("ttl-controller", "ttl-controller", ttl::run),
        row!("controllermanager", "disruption-controller", disruption::run),
        row!("clusterrole-aggregation-controller", "clusterrole-aggregation-controller", clusterrole_aggregation::run),
        row!("persistentvolumeclaim-protection", "pvc-protection-controller", protection::run_claims),
        row!("persistentvolume-protection", "pv-protection-controller", protection::run_volumes),
        row!("persistentvolume-controller", "persistent-volume-binder", persistent_volume::run),
        row!("attachdetach-controller", "attachdetach-controller", attach_detach::run),
        row!("ephemeral_volume", "ephemeral-volume-controller", ephemeral_volume::run),
        row!("resource_claim", "resource-claim-controller", resource_claim::run),
        row!("volume_expand", "expand-controller", volume_expand::run),
        row!("certificate-controller", "certificate-controller", csr_signing::run),
        row!("cluster-dns", "cluster-dns", cluster_dns::run),
        row!("volumeattributesclass-protection", "volumeattributesclass-protection-controller", volume_attributes_class::run),
        row!("resourcequota-controller", "resourcequota-controller", resourcequota::run),
        row!("service-cidr-controller", "service-cidrs-controller", service_cidr::run),
        row!("horizontal-pod-autoscaler", "horizontal-pod-autoscaler", podautoscaler::run),
    ]
}

/// Runs every controller until `shutdown`. `client_for` gives a client that acts as the named service
/// account of kube-system.
pub async fn run(
    factory: Arc<InformerFactory>,
    client_for: impl Fn(&str) -> kube::Client,
    config: Config,
    shutdown: CancellationToken,
) {
    let shared = Arc::new(Shared { factory, config, shutdown });
    let mut running = tokio::task::JoinSet::new();
    for row in table() {
        let ctx = Context::new(shared.clone(), client_for(row.account), row.name);
        running.spawn((row.start)(ctx));
    }
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller ended unexpectedly");
        }
    }
}
