//! `pods/exec`, `pods/attach`, `pods/portforward`: tunnels to the kubelet, which speaks the protocols itself.

use super::pod_log::container;
use super::upstream::{Target, forward, query};
use crate::admission::{self, Attributes, Operation};
use crate::authz;
use crate::body::Body;
use crate::handlers::Request;
use crate::registry::Resource;
use crate::server::ApiServer;
use api::{Object, Status};
use http::Response;
use http::header::UPGRADE;
use serde_json::{Value, json};

/// How the streams' parameters are called by kubelets.
const STREAMS: [(&str, &str); 4] = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];

/// Connects the client to the kubelet.
pub async fn handle(server: &ApiServer, request: &Request, pods: &Resource) -> Result<Response<Body>, Status> {
    let info = &request.info;
    if info.verb == "get" {
        // WebSockets are opened by GET: the right to read is not enough to run something.
        let attributes = authz::Attributes { verb: "create", ..authz::Attributes::of(&request.user, info) };
        authz::authorize(server, &attributes, None).await?;
    }
    let pod = pods.store.get(&info.namespace, &info.name).await?.ok_or_else(|| pods.not_found(&info.name))?.object()?;
    let attributes = Attributes {
        request,
        resource: pods,
        operation: Operation::Connect,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        old: None,
        dry_run: false,
        options: None,
        reinvocation: None,
    };
    admission::connect(server, &attributes, options(request)).await?;
    let path = path(request, &pod)?;
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or("");
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", info.name)));
    }
    if !request.headers.contains_key(UPGRADE) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    forward(server, request, &Target::kubelet(server, node, path).await?).await
}

/// The parameters as the object that admission sees.
fn options(request: &Request) -> Object {
    let query = &request.query;
    if request.info.subresource == "portforward" {
        let ports: Vec<i64> = query.all("ports").iter().flat_map(|p| p.split(',')).filter_map(|p| p.parse().ok()).collect();
        return json!({"kind": "PodPortForwardOptions", "apiVersion": "v1", "ports": ports});
    }
    let kind = if request.info.subresource == "exec" { "PodExecOptions" } else { "PodAttachOptions" };
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    for (flag, _) in STREAMS.iter().filter(|(flag, _)| query.flag(flag)) {
        options[flag] = true.into();
    }
    if query.has("container") {
        options["container"] = query.get("container").into();
    }
    if query.has("command") {
        options["command"] = json!(query.all("command"));
    }
    options
}

fn path(request: &Request, pod: &Object) -> Result<String, Status> {
    let (namespace, name) = (&request.info.namespace, &request.info.name);
    if request.info.subresource == "portforward" {
        let pairs: Vec<_> = request.query.all("ports").into_iter().flat_map(|p| p.split(',')).map(|p| ("port", p)).collect();
        return Ok(format!("/portForward/{namespace}/{name}?{}", query(&pairs)));
    }
    let container = container(pod, request.query.get("container"))?;
    let mut pairs: Vec<(&str, &str)> =
        STREAMS.iter().filter(|(api, _)| request.query.flag(api)).map(|(_, kubelet)| (*kubelet, "1")).collect();
    pairs.extend(request.query.all("command").into_iter().map(|c| ("command", c)));
    let action = if request.info.subresource == "exec" { "exec" } else { "attach" };
    Ok(format!("/{action}/{namespace}/{name}/{container}?{}", query(&pairs)))
}
