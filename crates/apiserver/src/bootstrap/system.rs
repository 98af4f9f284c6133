//! Priority classes, configuration that components read, and the service CIDR.

use super::ensure;
use crate::server::ApiServer;
use crate::store::{Preconditions, Stored, Update};
use api::{Object, Status};
use serde_json::json;

const TRACKER: &str = "kube-apiserver-legacy-service-account-token-tracking";
const CRITICAL: i64 = 2_000_000_000;

/// Makes what is missing.
pub async fn run(server: &ApiServer) -> Result<(), Status> {
    priority_classes(server).await?;
    config_maps(server).await?;
    let cidr = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [server.config().service_cidr]}});
    ensure(server, "networking.k8s.io", "servicecidrs", "", cidr).await?;
    Ok(())
}

async fn priority_classes(server: &ApiServer) -> Result<(), Status> {
    let rows = [
        ("system-node-critical", CRITICAL + 1000, "Used for system critical pods that must not be moved from their current node."),
        ("system-cluster-critical", CRITICAL, "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
    ];
    for (name, value, description) in rows {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description});
        ensure(server, "scheduling.k8s.io", "priorityclasses", "", class).await?;
    }
    Ok(())
}

async fn config_maps(server: &ApiServer) -> Result<(), Status> {
    let config = server.config();
    let proxy = &config.authentication.front_proxy;
    let authentication = json!({"metadata": {"name": "extension-apiserver-authentication"}, "data": {
        "client-ca-file": config.ca.cert_pem(),
        "requestheader-client-ca-file": config.front_proxy_ca_pem,
        "requestheader-allowed-names": json!(proxy.allowed_names).to_string(),
        "requestheader-extra-headers-prefix": json!(proxy.extra_prefixes).to_string(),
        "requestheader-group-headers": json!(proxy.group_headers).to_string(),
        "requestheader-uid-headers": json!(proxy.uid_headers).to_string(),
        "requestheader-username-headers": json!(proxy.username_headers).to_string(),
    }});
    if let Some(present) = ensure(server, "", "configmaps", "kube-system", authentication.clone()).await? {
        refresh(server, &present, authentication).await?;
    }
    let since = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let tracking = json!({"metadata": {"name": TRACKER}, "data": {"since": since}});
    ensure(server, "", "configmaps", "kube-system", tracking).await?;
    Ok(())
}

/// Brings the data of a ConfigMap up to date: authorities and names may be others than at the last start.
async fn refresh(server: &ApiServer, present: &Stored, wanted: Object) -> Result<(), Status> {
    let data = wanted["data"].clone();
    if present.object()?.get("data") == Some(&data) {
        return Ok(());
    }
    let store = server.store("", "configmaps").ok_or_else(Status::no_such_path)?;
    let change = move |_: &_, mut object: Object| {
        object["data"] = data.clone();
        Ok(Update::Write(object))
    };
    let (namespace, name) = (&present.meta.namespace, &present.meta.name);
    store.guaranteed_update(namespace, name, &Preconditions::default(), change, false).await.map(drop)
}
