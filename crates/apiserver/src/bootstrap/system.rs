//! Priority classes, configuration that components read, and the service CIDR.

use super::ensure;
use crate::server::ApiServer;
use api::Status;
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
    let authentication = json!({"metadata": {"name": "extension-apiserver-authentication"}, "data": {
        "client-ca-file": config.ca.cert_pem(),
        "requestheader-client-ca-file": config.front_proxy_ca_pem,
        "requestheader-allowed-names": "[\"front-proxy-client\"]",
        "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
        "requestheader-group-headers": "[\"X-Remote-Group\"]",
        "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
        "requestheader-username-headers": "[\"X-Remote-User\"]",
    }});
    ensure(server, "", "configmaps", "kube-system", authentication).await?;
    let since = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let tracking = json!({"metadata": {"name": TRACKER}, "data": {"since": since}});
    ensure(server, "", "configmaps", "kube-system", tracking).await?;
    Ok(())
}
