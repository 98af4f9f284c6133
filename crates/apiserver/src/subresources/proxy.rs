//! `pods/proxy`, `services/proxy`, `nodes/proxy`: HTTP requests sent on into the cluster.

use super::upstream::{Scheme, Target, forward, query};
use crate::admission::{self, Attributes, Operation};
use crate::body::Body;
use crate::handlers::Request;
use crate::registry::Resource;
use crate::server::ApiServer;
use crate::store::{ListOptions, Selection};
use api::selector::{LabelSelector, Requirement};
use api::{Object, Status};
use http::Response;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

/// Sends the request on.
pub async fn handle(server: &ApiServer, request: &Request, resource: &Resource) -> Result<Response<Body>, Status> {
    let info = &request.info;
    let attributes = Attributes {
        request,
        resource,
        operation: Operation::Connect,
        subresource: "proxy",
        namespace: &info.namespace,
        name: &info.name,
        old: None,
        dry_run: false,
        options: None,
        reinvocation: None,
    };
    let kind = resource.subresource("proxy").map_or("", |fact| fact.kind);
    let options = json!({"kind": kind, "apiVersion": "v1", "path": path(request)});
    admission::connect(server, &attributes, options).await?;
    let target = match resource.resource.as_str() {
        "nodes" => node(server, request).await?,
        "pods" => pod(request, resource).await?,
        _ => service(server, request, resource).await?,
    };
    forward(server, request, &target).await
}

/// The path below `proxy`, with the query.
fn path(request: &Request) -> String {
    // `/api/v1/[namespaces/NAMESPACE/]RESOURCE/NAME/proxy`, as sent: a name may say "proxy" too.
    let above = if request.info.namespace.is_empty() { 5 } else { 7 };
    let path = &request.info.path;
    let rest = path.match_indices('/').nth(above).map_or("/", |(at, _)| &path[at..]);
    let pairs: Vec<_> = request.query.pairs().iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    if pairs.is_empty() { rest.to_owned() } else { format!("{rest}?{}", query(&pairs)) }
}

/// `[scheme:]name[:port]`
fn split(name: &str) -> Result<(&str, &str, &str), Status> {
    let parts: Vec<&str> = name.split(':').collect();
    match parts.as_slice() {
        [name] => Ok(("", name, "")),
        [name, port] => Ok(("", name, port)),
        [scheme @ ("http" | "https" | ""), name, port] => Ok((scheme, name, port)),
        _ => Err(Status::bad_request(format!("invalid service request {name:?}"))),
    }
}

fn scheme(text: &str) -> Result<Scheme, Status> {
    match text {
        "" | "http" => Ok(Scheme::Http),
        _ => Err(Status::bad_request("proxying with https is not supported")),
    }
}

async fn node(server: &ApiServer, request: &Request) -> Result<Target, Status> {
    let (_, name, _) = split(&request.info.name)?;
    Target::kubelet(server, name, path(request)).await
}

async fn pod(request: &Request, pods: &Resource) -> Result<Target, Status> {
    let (text, name, port) = split(&request.info.name)?;
    let stored = pods.store.get(&request.info.namespace, name).await?.ok_or_else(|| pods.not_found(name))?;
    let pod = stored.object()?;
    let ip = pod.pointer("/status/podIP").and_then(Value::as_str).unwrap_or("");
    if ip.is_empty() {
        return Err(Status::bad_request("address not allowed"));
    }
    let port = pod_port(&pod, port).ok_or_else(|| Status::bad_request(format!("pod {name} has no port {port:?}")))?;
    Ok(Target { host: ip.into(), port, scheme: scheme(text)?, path: path(request) })
}

fn pod_port(pod: &Object, wanted: &str) -> Option<u16> {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array)?;
    let mut ports = containers.iter().filter_map(|c| c["ports"].as_array()).flatten();
    let number = |p: &Value| p["containerPort"].as_u64().and_then(|n| u16::try_from(n).ok());
    match wanted {
        "" => Some(ports.next().and_then(number).unwrap_or(80)),
        name => name.parse().ok().or_else(|| ports.find(|p| p["name"] == name).and_then(number)),
    }
}

async fn service(server: &ApiServer, request: &Request, services: &Resource) -> Result<Target, Status> {
    let (text, name, port) = split(&request.info.name)?;
    let namespace = &request.info.namespace;
    let service = services.store.get(namespace, name).await?.ok_or_else(|| services.not_found(name))?.object()?;
    let unavailable = || {
        let why = format!("no endpoints available for service {:?}", request.info.name);
        Status::new(503, "ServiceUnavailable", why)
    };
    let port_name = service_port(&service, port).ok_or_else(unavailable)?;
    let slices = server.store("discovery.k8s.io", "endpointslices").ok_or_else(Status::no_such_path)?;
    let label = Requirement::In("kubernetes.io/service-name".into(), vec![name.into()]);
    let selection = Selection { namespace: namespace.clone(), labels: LabelSelector(vec![label]), ..Selection::default() };
    let list = slices.list(ListOptions { selection, ..ListOptions::default() }).await?;
    let mut addresses = Vec::new();
    for stored in list.items {
        addresses.extend(ready(&stored.object()?, &port_name));
    }
    let (host, port) = addresses.choose(&mut rand::rng()).cloned().ok_or_else(unavailable)?;
    Ok(Target { host, port, scheme: scheme(text)?, path: path(request) })
}

/// The name of the service's port that is asked for by name or number; without a name, the only one's.
fn service_port(service: &Object, wanted: &str) -> Option<String> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array)?;
    let name = |p: &Value| p["name"].as_str().unwrap_or("").to_owned();
    match wanted {
        "" => ports.first().map(name),
        wanted => ports.iter().find(|p| p["name"] == wanted || p["port"].to_string() == wanted).map(name),
    }
}

fn ready(slice: &Object, port_name: &str) -> Vec<(String, u16)> {
    let ports = slice.get("ports").and_then(Value::as_array);
    let port = ports.into_iter().flatten().find(|p| p["name"].as_str().unwrap_or("") == port_name);
    let Some(port) = port.and_then(|p| p["port"].as_u64()).and_then(|p| u16::try_from(p).ok()) else {
        return Vec::new();
    };
    let endpoints = slice.get("endpoints").and_then(Value::as_array);
    let ready = endpoints.into_iter().flatten().filter(|e| e.pointer("/conditions/ready") != Some(&Value::Bool(false)));
    let first = ready.filter_map(|e| e["addresses"][0].as_str());
    first.map(|address| (address.to_owned(), port)).collect()
}
