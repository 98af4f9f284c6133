//! The service `default/kubernetes` and its endpoints: how pods reach the API server.

use super::ensure;
use crate::authn::UserInfo;
use crate::handlers::Request;
use crate::registry::create::WriteOptions;
use crate::registry::update::{Change, Changed, update};
use crate::server::ApiServer;
use crate::store::Preconditions;
use api::{Object, Status};
use serde_json::json;
use std::sync::{Arc, Weak};
use std::time::Duration;

const NAME: &str = "kubernetes";
/// As upstream's reconciler.
const RETRY: Duration = Duration::from_secs(10);
const MIRROR_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";

/// Makes the service, and the endpoints for where the server is reached now.
pub async fn run(server: &ApiServer) -> Result<(), Status> {
    let config = server.config();
    let cluster_ip = server.allocators().kubernetes_service_ip();
    let port = config.advertise_port;
    let service = json!({
        "metadata": {"name": NAME, "labels": {"provider": "kubernetes", "component": "apiserver"}},
        "spec": {"clusterIP": cluster_ip.to_string(), "type": "ClusterIP", "sessionAffinity": "None",
            "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}]},
    });
    ensure(server, "", "services", "default", service).await?;
    let address = config.advertise_address;
    if address.is_loopback() {
        // No pod could reach it: the API refuses such endpoints, and rightly.
        tracing::warn!(%address, "the advertised address is a loopback address: pods will not reach the API server");
        return Ok(());
    }
    let endpoints = json!({
        "metadata": {"name": NAME, "labels": {MIRROR_LABEL: "true"}},
        "subsets": [{"addresses": [{"ip": address.to_string()}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    });
    put(server, "", "endpoints", endpoints, "subsets").await?;
    let slice = json!({
        "metadata": {"name": NAME, "labels": {"kubernetes.io/service-name": NAME}},
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    put(server, "discovery.k8s.io", "endpointslices", slice.clone(), "endpoints").await?;
    put(server, "discovery.k8s.io", "endpointslices", slice, "ports").await
}

/// Runs until it succeeds: a webhook that has a say in it may be one of the pods that this server has yet to start.
pub async fn retry(server: Weak<ApiServer>) {
    loop {
        tokio::time::sleep(RETRY).await;
        let Some(server) = server.upgrade() else { return };
        match run(&server).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "the endpoints of the service default/kubernetes cannot be written"),
        }
    }
}

/// Creates an object, or gives one field of the present one the value wanted.
async fn put(server: &ApiServer, group: &str, resource: &str, object: Object, field: &str) -> Result<(), Status> {
    let present = ensure(server, group, resource, "default", object.clone()).await?;
    let present = present.map(|present| present.object()).transpose()?;
    if present.is_none_or(|present| present.get(field) == object.get(field)) {
        return Ok(());
    }
    let row = server.registry().any_version(group, resource).ok_or_else(Status::no_such_path)?;
    let request = Request::internal("update", Arc::new(UserInfo::admin()));
    let options = WriteOptions { manager: "kube-apiserver".into(), ..WriteOptions::default() };
    let change = Change {
        namespace: "default",
        name: NAME,
        upsert: false,
        unconditional: true,
        preconditions: Preconditions::default(),
    };
    let mut make = |old: Option<&Object>| {
        let mut new = old.cloned().unwrap_or_default();
        new[field] = object[field].clone();
        Ok(Changed { object: new, tracked: false })
    };
    update(server, &request, &row, &change, &options, &mut make).await.map(drop)
}
