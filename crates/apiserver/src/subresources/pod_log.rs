//! `pods/log`: a container's output, from the kubelet of its node.

use super::upstream::{Target, forward, query};
use crate::body::{Body, empty};
use crate::handlers::Request;
use crate::registry::Resource;
use crate::server::ApiServer;
use api::{Cause, Object, Status, meta};
use http::Response;
use futures::StreamExt;
use futures::future::ready;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::BodyStream;
use hyper::upgrade::OnUpgrade;
use serde_json::{Value, json};
use streaming::websocket;

/// Parameters that kubelets understand.
const PASSED: [&str; 8] =
    ["follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"];

/// Answers with the log.
pub async fn handle(server: &ApiServer, request: &Request, pods: &Resource) -> Result<Response<Body>, Status> {
    validate(request)?;
    let (namespace, name) = (&request.info.namespace, &request.info.name);
    let pod = pods.store.get(namespace, name).await?.ok_or_else(|| pods.not_found(name))?.object()?;
    let container = container(&pod, request.query.get("container"))?;
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or("");
    if node.is_empty() {
        // A pod that is not bound has said nothing yet.
        let mut response = Response::new(empty());
        *response.status_mut() = http::StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let pairs: Vec<_> = PASSED.iter().filter(|k| request.query.has(k)).map(|k| (*k, request.query.get(k))).collect();
    let query = query(&pairs);
    let path = format!("/containerLogs/{namespace}/{name}/{container}?{query}");
    let socket = websocket::is_upgrade(&request.headers).then(|| request.take_upgrade()).flatten();
    let mut response = forward(server, request, &Target::kubelet(server, node, path).await?).await?;
    if let Some(upgrade) = socket.filter(|_| response.status().is_success()) {
        return over_websocket(request, upgrade, response.into_body());
    }
    if response.status().is_success() {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        return Ok(response);
    }
    Err(refusal(response).await)
}

/// The log as WebSocket messages, bytes or base64 as the client chooses.
fn over_websocket(request: &Request, upgrade: OnUpgrade, log: Body) -> Result<Response<Body>, Status> {
    let protocol = websocket::choose(&request.headers, &["binary.k8s.io", "base64.binary.k8s.io"]);
    let headers = websocket::switch(&request.headers, protocol).map_err(Status::bad_request)?;
    let as_base64 = protocol == Some("base64.binary.k8s.io");
    tokio::spawn(async move {
        let chunks = BodyStream::new(log).filter_map(|frame| ready(frame.ok().and_then(|f| f.into_data().ok())));
        match upgrade.await {
            Ok(upgraded) => websocket::send_all(upgraded, as_base64, Box::pin(chunks)).await,
            Err(error) => tracing::debug!(%error, "an upgrade for a log failed"),
        }
    });
    let mut response = Response::new(empty());
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    Ok(response)
}

/// A kubelet's refusal in the words of the API.
async fn refusal(response: Response<Body>) -> Status {
    let code = response.status().as_u16();
    let body = crate::body::read(&mut response.into_body()).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&body).trim().to_owned();
    match code {
        400 => Status::bad_request(text),
        404 => Status::new(404, "NotFound", text),
        code => Status::new(code.max(500), "InternalError", text),
    }
}

fn validate(request: &Request) -> Result<(), Status> {
    let mut causes = Vec::new();
    for (field, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        let Some(number) = request.query.integer(field)?.filter(|n| *n < least) else { continue };
        let why = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
        causes.push(Cause::invalid(field, &json!(number), why));
    }
    if request.query.has("sinceSeconds") && request.query.has("sinceTime") {
        causes.push(Cause::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid("", "PodLogOptions", &request.info.name, &causes)) }
}

/// The container asked for; a pod with one container needs no name.
pub fn container(pod: &Object, wanted: &str) -> Result<String, Status> {
    let names = |list: &str| -> Vec<String> {
        let list = pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|c| c["name"].as_str()).map(str::to_owned).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let name = meta::name(pod);
    if wanted.is_empty() {
        if let Some(default) = meta::annotation(pod, "kubectl.kubernetes.io/default-container").filter(|d| main.iter().any(|m| m == d)) {
            return Ok(default.to_owned());
        }
        if let ([only], true, true) = (main.as_slice(), init.is_empty(), ephemeral.is_empty()) {
            return Ok(only.clone());
        }
        let mut why = format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
        if !init.is_empty() {
            why.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
        }
        if !ephemeral.is_empty() {
            why.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
        }
        return Err(Status::bad_request(why));
    }
    if main.iter().chain(&init).chain(&ephemeral).any(|c| c == wanted) {
        return Ok(wanted.to_owned());
    }
    Err(Status::bad_request(format!("container {wanted} is not valid for pod {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_chosen() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        let two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let message = |pod: &Object, name: &str| container(pod, name).unwrap_or_else(|e| e.message);
        assert_eq!(message(&one, ""), "a");
        assert_eq!(message(&two, "b"), "b");
        assert_eq!(message(&two, ""), "a container name must be specified for pod p, choose one of: [a b]");
        assert_eq!(message(&two, "c"), "container c is not valid for pod p");
    }
}
