//! IPAddress objects: the record of which service has which cluster IP.

use super::services;
use crate::authn::UserInfo;
use crate::handlers::Request;
use crate::registry::create::{WriteOptions, create};
use crate::server::ApiServer;
use crate::store::{ListOptions, Preconditions, Stored, Update};
use api::{Object, Status, meta};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

const GROUP: &str = "networking.k8s.io";
const RESOURCE: &str = "ipaddresses";
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");

/// Records that a service has an address; false when the record of another holder is there.
pub async fn put(server: &ApiServer, service: &Object, address: IpAddr) -> Result<bool, Status> {
    let Some(resource) = server.registry().any_version(GROUP, RESOURCE) else { return Ok(true) };
    let request = Request::internal("create", Arc::new(UserInfo::admin()));
    let options = WriteOptions { manager: "kube-apiserver".into(), ..WriteOptions::default() };
    // A service creates addresses, and an address is created as services are.
    let created = Box::pin(create(server, &request, &resource, "", record(service, address), &options)).await;
    match created {
        Ok(_) => Ok(true),
        Err(status) if status.reason == "AlreadyExists" => {
            let present = resource.store.get("", &address.to_string()).await?;
            Ok(present.is_some_and(|present| belongs_to(&present, service)))
        }
        Err(status) => Err(status),
    }
}

/// Removes the record of an address, if it is the service's.
pub async fn remove(server: &ApiServer, service: &Object, address: IpAddr) {
    let Some(store) = server.store(GROUP, RESOURCE) else { return };
    let name = address.to_string();
    let Ok(Some(present)) = store.get("", &name).await else { return };
    if belongs_to(&present, service) {
        let same = Preconditions { uid: Some(present.meta.uid.clone()), ..Preconditions::default() };
        let gone = |_: &Stored, object: Object| Ok(Update::Delete(object));
        if let Err(error) = store.guaranteed_update("", &name, &same, gone, false).await {
            tracing::warn!(%error, address = %name, "the record of a service's address stays behind");
        }
    }
}

/// Makes the records agree with the services: a crash may have come between two writes.
pub async fn repair(server: &ApiServer) -> Result<(), Status> {
    let (Some(services), Some(records)) = (server.store("", "services"), server.store(GROUP, RESOURCE)) else {
        return Ok(());
    };
    let mut held = Vec::new();
    for stored in services.list(ListOptions::default()).await?.items {
        let service = stored.object()?;
        for address in services::addresses(&service) {
            held.push((address.to_string(), service.clone()));
            if !put(server, &service, address).await? {
                tracing::warn!(%address, "the address of a service is recorded as another's");
            }
        }
    }
    for stored in records.list(ListOptions::default()).await?.items {
        let record = stored.object()?;
        let ours = record.pointer("/metadata/labels").and_then(|labels| labels.get(MANAGED_BY.0));
        let name = meta::name(&record);
        let known = held.iter().any(|(address, service)| address == name && belongs_to(&stored, service));
        if ours.and_then(Value::as_str) == Some(MANAGED_BY.1) && !known {
            let gone = |_: &Stored, object: Object| Ok(Update::Delete(object));
            records.guaranteed_update("", name, &Preconditions::default(), gone, false).await?;
        }
    }
    Ok(())
}

fn parent(service: &Object) -> Value {
    json!({"resource": "services", "namespace": meta::namespace(service), "name": meta::name(service)})
}

fn record(service: &Object, address: IpAddr) -> Object {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {"name": address.to_string(),
            "labels": {"ipaddress.kubernetes.io/ip-family": family, MANAGED_BY.0: MANAGED_BY.1}},
        "spec": {"parentRef": parent(service)},
    })
}

fn belongs_to(record: &Stored, service: &Object) -> bool {
    record.object().is_ok_and(|record| record.pointer("/spec/parentRef") == Some(&parent(service)))
}
