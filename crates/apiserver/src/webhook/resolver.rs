//! Services to endpoints, from the server's live caches.

use crate::live::Live;
use crate::registry::Registry;
use crate::server::{self, live};
use crate::store::Stored;
use api::Status;
use rand::seq::IndexedRandom;
use serde_json::Value;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What is kept of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `spec.type`
    pub kind: String,
    /// `spec.externalName`
    pub external_name: String,
    /// Number and name of each port.
    pub ports: Vec<(u16, String)>,
    /// The first of `spec.ipFamilies`.
    pub family: String,
}

/// What is kept of an endpoint slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The service it belongs to.
    pub service: String,
    family: String,
    /// Name and number of each port.
    pub ports: Vec<(String, u16)>,
    /// Addresses that are ready.
    pub ready: Vec<String>,
}

/// Finds endpoints of services.
pub struct Resolver {
    /// Services.
    pub services: Arc<Live<Service>>,
    /// Endpoint slices.
    pub slices: Arc<Live<Slice>>,
}

impl Resolver {
    /// Starts the caches.
    pub fn start(registry: &Registry, token: &CancellationToken) -> Result<Self, server::Error> {
        Ok(Self {
            services: live(registry, token, ("", "services"), parse_service)?,
            slices: live(registry, token, ("discovery.k8s.io", "endpointslices"), parse_slice)?,
        })
    }

    /// Waits until the caches have seen what existed at the start.
    pub async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
    }

    /// A ready endpoint of a service's port, chosen at random; of an `ExternalName` that name.
    pub fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<(String, u16), Status> {
        let service = self.services.get(namespace, name).ok_or_else(|| Status::not_found("", "service", name))?;
        if service.kind == "ExternalName" {
            return Ok((service.external_name.clone(), port));
        }
        let unavailable = |why: String| Status::new(503, "ServiceUnavailable", why);
        let port_name = service.ports.iter().find(|(number, _)| *number == port).map(|(_, name)| name);
        let port_name =
            port_name.ok_or_else(|| unavailable(format!("no service port {port} found for service {name:?}")))?;
        let slices = self.slices.in_namespace(namespace);
        let slices: Vec<_> = slices.into_iter().map(|(_, s)| s).filter(|s| s.service == name).collect();
        let found = choose(&slices, port_name, Some(&service.family)).or_else(|| choose(&slices, port_name, None));
        found.ok_or_else(|| unavailable(format!("no endpoints available for service {name:?}")))
    }
}

fn choose(slices: &[Arc<Slice>], port: &str, family: Option<&str>) -> Option<(String, u16)> {
    let fitting = slices.iter().filter(|s| family.is_none_or(|f| s.family == f));
    let all: Vec<_> = fitting
        .filter_map(|s| Some((s, s.ports.iter().find(|(name, _)| name == port)?.1)))
        .flat_map(|(s, number)| s.ready.iter().map(move |address| (address, number)))
        .collect();
    all.choose(&mut rand::rng()).map(|(address, number)| ((*address).clone(), *number))
}

fn parse_service(stored: &Stored) -> Option<Service> {
    let object = stored.object().ok()?;
    let spec = object.get("spec")?;
    let text = |key: &str| spec.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    Some(Service {
        kind: text("type"),
        external_name: text("externalName"),
        ports: list(spec, "ports")
            .filter_map(|p| Some((number(&p["port"])?, p["name"].as_str().unwrap_or("").to_owned())))
            .collect(),
        family: spec.pointer("/ipFamilies/0").and_then(Value::as_str).unwrap_or("").to_owned(),
    })
}

fn parse_slice(stored: &Stored) -> Option<Slice> {
    let object = stored.object().ok()?;
    let label = object.pointer("/metadata/labels").and_then(|l| l.get("kubernetes.io/service-name"));
    let ready = list(&object, "endpoints").filter(|e| e.pointer("/conditions/ready") != Some(&Value::Bool(false)));
    Some(Slice {
        service: label?.as_str()?.to_owned(),
        family: object["addressType"].as_str().unwrap_or("").to_owned(),
        ports: list(&object, "ports")
            .filter_map(|p| Some((p["name"].as_str().unwrap_or("").to_owned(), number(&p["port"])?)))
            .collect(),
        ready: ready.filter_map(|e| e.pointer("/addresses/0")?.as_str().map(str::to_owned)).collect(),
    })
}

fn list<'a>(of: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    of.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn number(of: &Value) -> Option<u16> {
    of.as_u64().and_then(|n| u16::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_of_the_port_and_family() {
        let slice = |family: &str, port: u16, ready: &[&str]| {
            let ready = ready.iter().map(|a| (*a).to_owned()).collect();
            Arc::new(Slice { service: "s".into(), family: family.into(), ports: vec![("https".into(), port)], ready })
        };
        let slices = [slice("IPv4", 8443, &["10.0.0.1"]), slice("IPv6", 9443, &["fd00::1"]), slice("IPv4", 1, &[])];
        let v6 = Some(("fd00::1".to_owned(), 9443));
        assert_eq!(choose(&slices, "https", Some("IPv6")), v6);
        assert_eq!(choose(&slices, "https", Some("IPv4")), Some(("10.0.0.1".to_owned(), 8443)));
        assert_eq!(choose(&slices, "http", None), None);
        assert_eq!(choose(&slices[2..], "https", None), None);
    }
}
