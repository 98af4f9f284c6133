//! IPAddress objects: the record of which service has which cluster IP.

use super::services;
use crate::authn::UserInfo;
use crate::handlers::Request;
use crate::registry::create::{WriteOptions, create};
use crate::server::ApiServer;
use crate::store::{ListOptions, ObjectStore, Preconditions, Stored, Update};
use api::{Object, Status, meta};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

pub const GROUP: &str = "networking.k8s.io";
pub const RESOURCE: &str = "ipaddresses";
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
/// A record is written before its service is: for so long it may be alone.
const GRACE: Duration = Duration::from_secs(60);

/// Records that a service has an address; false when the record of another holder is there.
pub async fn put(server: &ApiServer, service: &Object, address: IpAddr) -> Result<bool, Status> {
    let Some(resource) = server.registry().any_version(GROUP, RESOURCE) else { return Ok(true) };
    let name = address.to_string();
    // What is there is neither admitted nor validated anew.
    if let Some(present) = resource.store.get("", &name).await? {
        return Ok(parent_of(&present)? == parent(service));
    }
    let request = Request::internal("create", Arc::new(UserInfo::admin()));
    let options = WriteOptions { manager: "kube-apiserver".into(), ..WriteOptions::default() };
    // A service creates addresses, and an address is created as services are.
    match Box::pin(create(server, &request, &resource, "", record(service, address), &options)).await {
        Ok(_) => Ok(true),
        Err(status) if status.reason == "AlreadyExists" => match resource.store.get("", &name).await? {
            Some(present) => Ok(parent_of(&present)? == parent(service)),
            None => Ok(false),
        },
        Err(status) => Err(status),
    }
}

/// Removes the record of an address, if it is the service's.
pub async fn remove(server: &ApiServer, service: &Object, address: IpAddr) {
    let Some(store) = server.store(GROUP, RESOURCE) else { return };
    let name = address.to_string();
    let Ok(Some(present)) = store.get("", &name).await else { return };
    if parent_of(&present).is_ok_and(|holder| holder == parent(service))
        && let Err(error) = delete(&store, &present).await
    {
        tracing::warn!(%error, address = %name, "the record of a service's address stays behind");
    }
}

/// Makes the records agree with the services, beside the requests: a crash may have come between two writes. Ends when
/// they agree.
pub async fn repair(server: Weak<ApiServer>) {
    while let Some(server) = server.upgrade() {
        match repaired(&server).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the records of service addresses cannot be read"),
        }
        drop(server);
        tokio::time::sleep(GRACE).await;
    }
}

/// One round; whether there need not be another.
async fn repaired(server: &ApiServer) -> Result<bool, Status> {
    let (Some(services), Some(records)) = (server.store("", "services"), server.store(GROUP, RESOURCE)) else {
        return Ok(true);
    };
    let mut held = HashMap::new();
    for stored in services.list(ListOptions::default()).await?.items {
        let service = stored.object()?;
        held.extend(services::addresses(&service).map(|address| (address, service.clone())));
    }
    let mut done = true;
    for stored in records.list(ListOptions::default()).await?.items {
        let address = stored.meta.name.parse::<IpAddr>().ok();
        let holder = parent_of(&stored)?;
        match address.and_then(|address| held.remove(&address)) {
            Some(service) if parent(&service) == holder => {}
            Some(_) => tracing::warn!(address = stored.meta.name, "the address of a service is recorded as another's"),
            None => done &= removed(server, (&services, &records), &stored, &holder).await?,
        }
    }
    // What is left has no record.
    for (address, service) in held {
        done &= recorded(server, &services, &service, address).await;
    }
    Ok(done)
}

/// Removes a record whose service there is not; false while the service may still come, and when that fails.
async fn removed(
    server: &ApiServer,
    (services, records): (&ObjectStore, &ObjectStore),
    stored: &Stored,
    holder: &Value,
) -> Result<bool, Status> {
    let record = stored.object()?;
    let labels = record.pointer("/metadata/labels");
    if labels.and_then(|labels| labels.get(MANAGED_BY.0)).and_then(Value::as_str) != Some(MANAGED_BY.1) {
        return Ok(true);
    }
    let created = meta::string(&record, "creationTimestamp").parse::<Timestamp>();
    let age = created.map_or(Duration::MAX, |created| Timestamp::now().duration_since(created).unsigned_abs());
    if age < GRACE {
        return Ok(false);
    }
    if holding(services, stored, holder).await?.is_some() {
        return Ok(true);
    }
    if let Err(error) = delete(records, stored).await {
        tracing::warn!(%error, address = stored.meta.name, "a record stays behind");
        return Ok(false);
    }
    // The service may have come meanwhile, with the record that was there.
    match (holding(services, stored, holder).await?, stored.meta.name.parse()) {
        (Some(service), Ok(address)) => Ok(recorded(server, services, &service, address).await),
        _ => Ok(true),
    }
}

/// The service that a record names, if it has the address.
async fn holding(services: &ObjectStore, record: &Stored, holder: &Value) -> Result<Option<Object>, Status> {
    let text = |field: &str| holder.get(field).and_then(Value::as_str).unwrap_or("");
    let service = services.get(text("namespace"), text("name")).await?.map(|service| service.object()).transpose()?;
    Ok(service.filter(|service| services::addresses(service).any(|address| address.to_string() == record.meta.name)))
}

/// Makes the record of a service that has none; false when that fails.
async fn recorded(server: &ApiServer, services: &ObjectStore, service: &Object, address: IpAddr) -> bool {
    match put(server, service, address).await {
        Ok(true) => {}
        Ok(false) => tracing::warn!(%address, "the address of a service is recorded as another's"),
        Err(error) => {
            tracing::warn!(%error, %address, "the address of a service cannot be recorded");
            return false;
        }
    }
    // The service may have gone meanwhile, when it had no record to take along.
    if let Ok(None) = services.get(meta::namespace(service), meta::name(service)).await {
        remove(server, service, address).await;
    }
    true
}

/// Deletes a record as it was seen, or not at all.
async fn delete(records: &ObjectStore, seen: &Stored) -> Result<(), Status> {
    let (uid, version) = (seen.meta.uid.clone(), seen.meta.resource_version);
    let same = Preconditions { uid: Some(uid), resource_version: Some(version) };
    let gone = |_: &Stored, object: Object| Ok(Update::Delete(object));
    records.guaranteed_update("", &seen.meta.name, &same, gone, false).await.map(drop)
}

fn parent(service: &Object) -> Value {
    json!({"resource": "services", "namespace": meta::namespace(service), "name": meta::name(service)})
}

fn parent_of(record: &Stored) -> Result<Value, Status> {
    Ok(record.object()?.pointer("/spec/parentRef").cloned().unwrap_or_default())
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
