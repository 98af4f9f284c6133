//! `pods/proxy`, `services/proxy`, `nodes/proxy`: HTTP requests sent on into the cluster.

use super::links::Source;
use super::upstream::{Scheme, Target, forward, query};
use crate::admission::{self, Attributes, Operation};
use crate::body::{Body, empty};
use crate::handlers::Request;
use crate::registry::Resource;
use crate::request_info::RequestInfo;
use crate::server::ApiServer;
use crate::store::{ListOptions, Selection};
use api::selector::{LabelSelector, Requirement};
use api::{Object, Status};
use http::header::{HOST, LOCATION, UPGRADE};
use http::{HeaderValue, Method, Response, StatusCode};
use rand::seq::SliceRandom;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::net::IpAddr;

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
    let (prefix, rest) = split_path(&request.info);
    if rest.is_empty()
        && [Method::GET, Method::HEAD].contains(&request.method)
        && !request.headers.contains_key(UPGRADE)
    {
        return redirect(&format!("{prefix}{}", path(request)));
    }
    let asked = request.headers.get(HOST).and_then(|h| h.to_str().ok()).unwrap_or("").to_owned();
    let source = Source { prefix: prefix.to_owned(), host: target.authority(), asked };
    let target = Target { prefix: Some(prefix.to_owned()), ..target };
    let answer = forward(server, request, &target).await?;
    source.answer(answer).await.map_err(|e| Status::internal(e.to_string()))
}

/// Relative links of a root page lead nowhere unless its path ends in a slash.
fn redirect(to: &str) -> Result<Response<Body>, Status> {
    let location = HeaderValue::from_str(to).map_err(|e| Status::bad_request(e.to_string()))?;
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// The path up to `proxy`, and what follows it, as sent.
fn split_path(info: &RequestInfo) -> (&str, Cow<'_, str>) {
    // `/api/v1/[namespaces/NAMESPACE/]RESOURCE/NAME/proxy`: a name may say "proxy" too.
    let above = if info.namespace.is_empty() { 5 } else { 7 };
    // An encoded slash is one to authorization, and so it is here.
    let slashes = info.path.match_indices(['/', '%']).filter_map(|(at, _)| {
        let encoded = info.path.get(at..at + 3).is_some_and(|three| three.eq_ignore_ascii_case("%2f"));
        if encoded { Some((at, 3)) } else { info.path[at..].starts_with('/').then_some((at, 1)) }
    });
    match slashes.into_iter().nth(above) {
        Some((at, 1)) => (&info.path[..at], info.path[at..].into()),
        Some((at, length)) => (&info.path[..at], format!("/{}", &info.path[at + length..]).into()),
        None => (&info.path, "".into()),
    }
}

/// The path below `proxy`, with the query.
fn path(request: &Request) -> String {
    let rest = Some(split_path(&request.info).1).filter(|rest| !rest.is_empty()).unwrap_or("/".into());
    let pairs: Vec<_> = request.query.pairs().iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    if pairs.is_empty() { rest.into_owned() } else { format!("{rest}?{}", query(&pairs)) }
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

fn scheme(text: &str) -> Scheme {
    if text == "https" { Scheme::Https } else { Scheme::Http }
}

async fn node(server: &ApiServer, request: &Request) -> Result<Target, Status> {
    let (_, name, _) = split(&request.info.name)?;
    let target = Target::kubelet(server, name, path(request)).await?;
    // Who writes the status of a node must not send the server to itself.
    let resolved = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
    let resolved = resolved.map_err(|e| Status::bad_request(format!("lookup {}: {e}", target.host)));
    let global = resolved.map(|mut addresses| addresses.all(|address| is_global(address.ip())))?;
    match global {
        true => Ok(target),
        false => Err(Status::bad_request("address not allowed")),
    }
}

async fn pod(request: &Request, pods: &Resource) -> Result<Target, Status> {
    let (text, name, port) = split(&request.info.name)?;
    let stored = pods.store.get(&request.info.namespace, name).await?.ok_or_else(|| pods.not_found(name))?;
    let pod = stored.object()?;
    let ip = pod.pointer("/status/podIP").and_then(Value::as_str).unwrap_or("");
    if !ip.parse().is_ok_and(is_global) {
        return Err(Status::bad_request("address not allowed"));
    }
    let port = pod_port(&pod, port).ok_or_else(|| Status::bad_request(format!("pod {name} has no port {port:?}")))?;
    Ok(Target { host: ip.into(), port, scheme: scheme(text), path: path(request), prefix: None })
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
    let selection =
        Selection { namespace: namespace.clone(), labels: LabelSelector(vec![label]), ..Selection::default() };
    let list = slices.list(ListOptions { selection, ..ListOptions::default() }).await?;
    let pods = server.store("", "pods").ok_or_else(Status::no_such_path)?;
    let mut candidates = Vec::new();
    for stored in list.items {
        candidates.extend(ready(&stored.object()?, namespace, &port_name));
    }
    candidates.shuffle(&mut rand::rng());
    for Endpoint { address, port, pod } in candidates {
        let Some(stored) = pods.get(namespace, &pod).await? else { continue };
        // Slices and statuses of pods are written by others than those whom the server's own network is open to.
        if address.parse().is_ok_and(is_global) && addresses(&stored.object()?).any(|ip| ip == address) {
            return Ok(Target { host: address, port, scheme: scheme(text), path: path(request), prefix: None });
        }
    }
    Err(unavailable())
}

/// Whether an address may be that of a pod: whoever writes statuses is not to reach this host's own services.
fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast())
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_global(ip.into()),
            None => !(ip.is_unspecified() || ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast()),
        },
    }
}

fn addresses(pod: &Object) -> impl Iterator<Item = &str> {
    let ips = pod.pointer("/status/podIPs").and_then(Value::as_array);
    ips.into_iter().flatten().filter_map(|entry| entry["ip"].as_str())
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

/// An endpoint that a pod is said to be.
struct Endpoint {
    address: String,
    port: u16,
    pod: String,
}

/// The ready endpoints of a slice. Only pods of its namespace are proxied to: a slice may name any address.
fn ready(slice: &Object, namespace: &str, port_name: &str) -> Vec<Endpoint> {
    let ports = slice.get("ports").and_then(Value::as_array);
    let port = ports.into_iter().flatten().find(|p| p["name"].as_str().unwrap_or("") == port_name);
    let Some(port) = port.and_then(|p| p["port"].as_u64()).and_then(|p| u16::try_from(p).ok()) else {
        return Vec::new();
    };
    let endpoints = slice.get("endpoints").and_then(Value::as_array);
    let ready = endpoints.into_iter().flatten().filter(|e| e.pointer("/conditions/ready") != Some(&Value::Bool(false)));
    let endpoint = |e: &Value| {
        let own = |target: &&Value| target["kind"] == "Pod" && target["namespace"] == namespace;
        let pod = Some(&e["targetRef"]).filter(own)?["name"].as_str()?;
        Some(Endpoint { address: e["addresses"][0].as_str()?.to_owned(), port, pod: pod.to_owned() })
    };
    ready.filter_map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;

    #[test]
    fn only_pods_are_proxied_to() {
        let slice = json!({"ports": [{"name": "a", "port": 80}], "endpoints": [
            {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "namespace": "a", "name": "p"}},
            {"addresses": ["10.0.0.2"], "targetRef": {"kind": "Node", "name": "n"}},
            {"addresses": ["10.0.0.3"]},
            {"addresses": ["10.0.0.5"], "targetRef": {"kind": "Pod", "namespace": "b", "name": "p"}},
            {"addresses": ["10.0.0.4"], "conditions": {"ready": false},
                "targetRef": {"kind": "Pod", "namespace": "a", "name": "q"}}]});
        let slice: Object = serde_json::from_value(slice).expect("an object");
        let names: Vec<_> = ready(&slice, "a", "a").into_iter().map(|e| (e.pod, e.address, e.port)).collect();
        assert_eq!(names, [("p".to_owned(), "10.0.0.1".to_owned(), 80)]);
        assert!(ready(&slice, "a", "b").is_empty());
    }

    #[test]
    fn paths_are_split_as_they_are_authorized() {
        let check = |path: &str, prefix: &str, rest: &str| {
            let info = RequestInfo::new(&Method::GET, path, &Query::default());
            assert_eq!(info.subresource, "proxy", "{path}");
            let (got, follows) = split_path(&info);
            assert_eq!((got, &*follows), (prefix, rest), "{path}");
        };
        let of = "/api/v1/namespaces/a/pods/b/proxy";
        check(of, of, "");
        check(&format!("{of}/x/y%2Fz?"), of, "/x/y%2Fz?");
        check(&format!("{of}%2Fx/y"), of, "/x/y");
        let encoded = "/api/v1/namespaces/a/pods/b%2Fproxy";
        check(&format!("{encoded}/x/y"), encoded, "/x/y");
        check(encoded, encoded, "");
        check("/api/v1/nodes/proxy%2fproxy/x", "/api/v1/nodes/proxy%2fproxy", "/x");
    }

    #[test]
    fn local_addresses_are_nobodys() {
        let check = |ip: &str, expect: bool| assert_eq!(is_global(ip.parse().expect(ip)), expect, "{ip}");
        ["10.0.0.1", "192.0.2.1", "fd00::1"].iter().for_each(|ip| check(ip, true));
        let local = [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
        ];
        local.iter().for_each(|ip| check(ip, false));
        check("::ffff:127.0.0.1", false);
    }
}
