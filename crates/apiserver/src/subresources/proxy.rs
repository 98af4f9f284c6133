//! `pods/proxy`, `services/proxy`, `nodes/proxy`: HTTP requests sent on into the cluster.

use super::links::Source;
use super::upstream::{Scheme, Target, forward, query};
use crate::admission::{self, Attributes, Operation};
use crate::body::{Body, empty};
use crate::handlers::Request;
use crate::registry::Resource;
use crate::request_info::RequestInfo;
use crate::server::ApiServer;
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
fn split<'a>(kind: &str, id: &'a str) -> Result<(&'a str, &'a str, &'a str), Status> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme @ ("http" | "https" | ""), name, port] => (*scheme, *name, *port),
        _ => ("", "", ""),
    };
    match name {
        "" => Err(Status::bad_request(format!("invalid {kind} request {id:?}"))),
        name => Ok((scheme, name, port)),
    }
}

/// The number of a port, or what Go says when it dials it: names are those that every system knows, not the pod's.
fn port_number(port: &str) -> Result<u16, Status> {
    match port {
        "http" => return Ok(80),
        "https" => return Ok(443),
        _ => {}
    }
    port.parse().map_err(|_| {
        let number = !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit());
        let why =
            if number { format!("address {port}: invalid port") } else { format!("lookup tcp/{port}: unknown port") };
        unavailable(&format!("error trying to reach service: dial tcp: {why}"))
    })
}

fn unavailable(why: &str) -> Status {
    Status::new(503, "ServiceUnavailable", why)
}

fn scheme(text: &str) -> Scheme {
    if text == "https" { Scheme::Https } else { Scheme::Http }
}

async fn node(server: &ApiServer, request: &Request) -> Result<Target, Status> {
    let (text, name, port) = split("node", &request.info.name)?;
    let kubelet = Target::kubelet(server, name, path(request)).await?;
    // Who writes the status of a node must not send the server to itself.
    let resolved = tokio::net::lookup_host((kubelet.host.as_str(), kubelet.port)).await;
    let resolved = resolved.map_err(|e| Status::bad_request(format!("lookup {}: {e}", kubelet.host)));
    let addresses: Vec<_> = resolved?.map(|address| address.ip()).collect();
    let (Some(first), true) = (addresses.first(), addresses.iter().all(|address| is_global(*address))) else {
        return Err(Status::bad_request("address not allowed"));
    };
    // Another port is no kubelet's: it does not get the server's certificate. Nor is the name asked again, whose answer
    // no certificate would prove.
    match port {
        port if port.is_empty() || port == kubelet.port.to_string() => Ok(kubelet),
        port => Ok(Target { host: first.to_string(), port: port_number(port)?, scheme: scheme(text), ..kubelet }),
    }
}

async fn pod(request: &Request, pods: &Resource) -> Result<Target, Status> {
    let (text, name, port) = split("pod", &request.info.name)?;
    let stored = pods.store.get(&request.info.namespace, name).await?.ok_or_else(|| pods.not_found(name))?;
    let pod = stored.object()?;
    let ip = pod.pointer("/status/podIP").and_then(Value::as_str).unwrap_or("");
    if !ip.parse().is_ok_and(is_global) {
        return Err(Status::bad_request("address not allowed"));
    }
    let scheme = scheme(text);
    let port = match port {
        "" => first_port(&pod).unwrap_or(if scheme == Scheme::Https { 443 } else { 80 }),
        port => port_number(port)?,
    };
    Ok(Target { host: ip.into(), port, scheme, path: path(request), prefix: None })
}

fn first_port(pod: &Object) -> Option<u16> {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array)?;
    let port = containers.iter().filter_map(|c| c["ports"].as_array()).flatten().next()?;
    port["containerPort"].as_u64().and_then(|n| u16::try_from(n).ok())
}

async fn service(server: &ApiServer, request: &Request, services: &Resource) -> Result<Target, Status> {
    let (text, name, port) = split("service", &request.info.name)?;
    let namespace = &request.info.namespace;
    let mut port_name = port.to_owned();
    if let Ok(number) = port.parse::<i64>() {
        let service = services.store.get(namespace, name).await?.ok_or_else(|| services.not_found(name))?.object()?;
        let why = || unavailable(&format!("no service port {number} found for service {name:?}"));
        port_name = name_of_port(&service, number).ok_or_else(why)?;
    }
    let endpoints = server.store("", "endpoints").ok_or_else(Status::no_such_path)?;
    let endpoints = endpoints.get(namespace, name).await?.ok_or_else(|| services.not_found(name))?.object()?;
    if endpoints.get("subsets").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        return Err(unavailable(&format!("no endpoints available for service {name:?}")));
    }
    let pods = server.store("", "pods").ok_or_else(Status::no_such_path)?;
    let mut candidates = ready(&endpoints, namespace, &port_name);
    candidates.shuffle(&mut rand::rng());
    for Endpoint { address, port, pod } in candidates {
        let Some(stored) = pods.get(namespace, &pod).await? else { continue };
        // Endpoints and statuses of pods are written by others than those whom the server's own network is open to.
        if address.parse().is_ok_and(is_global) && addresses(&stored.object()?).any(|ip| ip == address) {
            return Ok(Target { host: address, port, scheme: scheme(text), path: path(request), prefix: None });
        }
    }
    Err(unavailable(&format!("no endpoints available for service {:?}", request.info.name)))
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

/// The name of the service's port with a number; empty where it has none.
fn name_of_port(service: &Object, number: i64) -> Option<String> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array)?;
    let port = ports.iter().find(|p| p["port"] == number)?;
    Some(port["name"].as_str().unwrap_or("").to_owned())
}

/// An endpoint that a pod is said to be.
struct Endpoint {
    address: String,
    port: u16,
    pod: String,
}

/// The ready endpoints of a service. Only pods of its namespace are proxied to: they may name any address.
fn ready(endpoints: &Object, namespace: &str, port_name: &str) -> Vec<Endpoint> {
    let list = |of: &Value, field: &str| of[field].as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for subset in list(endpoints, "subsets") {
        let ports = list(&subset, "ports");
        let port = ports.iter().find(|p| p["name"].as_str().unwrap_or("") == port_name);
        let Some(port) = port.and_then(|p| p["port"].as_u64()).and_then(|p| u16::try_from(p).ok()) else { continue };
        let endpoint = |e: Value| {
            let pod = Some(&e["targetRef"]).filter(|target| target["namespace"] == namespace)?["name"].as_str()?;
            Some(Endpoint { address: e["ip"].as_str()?.to_owned(), port, pod: pod.to_owned() })
        };
        all.extend(list(&subset, "addresses").into_iter().filter_map(endpoint));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;

    #[test]
    fn only_pods_are_proxied_to() {
        let of = |namespace: &str| json!({"kind": "Pod", "namespace": namespace, "name": "p"});
        let endpoints = json!({"subsets": [
            {"ports": [{"name": "b", "port": 81}], "addresses": [{"ip": "10.0.0.4", "targetRef": of("a")}]},
            {"ports": [{"name": "a", "port": 80}], "notReadyAddresses": [{"ip": "10.0.0.5", "targetRef": of("a")}],
                "addresses": [{"ip": "10.0.0.1", "targetRef": of("a")}, {"ip": "10.0.0.2"},
                    {"ip": "10.0.0.3", "targetRef": of("b")}]}]});
        let check = |port: &str, want: &[(&str, u16)]| {
            let found = ready(&endpoints, "a", port);
            assert_eq!(found.iter().map(|e| (e.address.as_str(), e.port)).collect::<Vec<_>>(), want);
        };
        check("a", &[("10.0.0.1", 80)]);
        check("b", &[("10.0.0.4", 81)]);
        check("", &[]);
    }

    #[test]
    fn ports_are_those_that_go_dials() {
        let check = |port: &str, want: Result<u16, &str>| {
            let got = port_number(port).map_err(|status| status.message);
            let why = |text: &str| format!("error trying to reach service: dial tcp: {text}");
            assert_eq!(got, want.map_err(why), "{port}");
        };
        check("8080", Ok(8080));
        check("http", Ok(80));
        check("99999", Err("address 99999: invalid port"));
        check("nope", Err("lookup tcp/nope: unknown port"));
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
