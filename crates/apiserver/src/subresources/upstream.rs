//! Requests that are sent on: to a kubelet over TLS, or to a pod. Upgraded connections are tunnelled byte for byte.

use crate::body::{Body, empty};
use crate::handlers::Request;
use crate::onward;
use crate::server::ApiServer;
use api::Status;
use http::header::{HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const DIAL: Duration = Duration::from_secs(10);
/// Where a request is sent.
pub struct Target {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How the connection is made.
    pub scheme: Scheme,
    /// Path and query.
    pub path: String,
}

/// How a connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// To a kubelet, with the server's client certificate.
    Kubelet,
}

impl Target {
    /// A path of the kubelet of a node.
    pub async fn kubelet(server: &ApiServer, node: &str, path: String) -> Result<Self, Status> {
        let store = server.store("", "nodes").ok_or_else(Status::no_such_path)?;
        let stored = store.get("", node).await?.ok_or_else(|| Status::not_found("", "nodes", node))?;
        let object = stored.object()?;
        let addresses = object.pointer("/status/addresses").and_then(Value::as_array).cloned().unwrap_or_default();
        let of = |kind: &str| addresses.iter().find(|a| a["type"] == kind).and_then(|a| a["address"].as_str());
        let host = ["InternalIP", "InternalDNS", "Hostname", "ExternalIP"].into_iter().find_map(of);
        let host = host.ok_or_else(|| Status::internal(format!("no preferred addresses found; known addresses: {}", addresses.len())))?;
        let port = object.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
        let port = port.and_then(|p| u16::try_from(p).ok()).unwrap_or(10250);
        Ok(Self { host: host.to_owned(), port, scheme: Scheme::Kubelet, path })
    }
}

/// Sends a request on and answers with what comes back.
pub async fn forward(server: &ApiServer, request: &Request, target: &Target) -> Result<Response<Body>, Status> {
    let failed = |why: String| {
        let (host, port) = (&target.host, target.port);
        Status::new(500, "InternalError", format!("Internal error occurred: error dialing backend: dial tcp {host}:{port}: {why}"))
    };
    let dial = async {
        let tcp = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(|e| failed(e.to_string()))?;
        let _ = tcp.set_nodelay(true);
        match target.scheme {
            Scheme::Http => exchange(request, target, tcp).await,
            Scheme::Kubelet => {
                let name = ServerName::try_from(target.host.clone()).map_err(|e| failed(e.to_string()))?;
                let connector = TlsConnector::from(server.kubelet_tls().clone());
                let tls = connector.connect(name, tcp).await.map_err(|e| failed(e.to_string()))?;
                exchange(request, target, tls).await
            }
        }
    };
    // Only the answer's head is waited for within the time; its body may take as long as it wants.
    match tokio::time::timeout(DIAL + Duration::from_secs(20), dial).await {
        Ok(result) => result,
        Err(_) => Err(failed("i/o timeout".into())),
    }
}

async fn exchange<S>(request: &Request, target: &Target, stream: S) -> Result<Response<Body>, Status>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |e: hyper::Error| Status::internal(format!("error sending request: {e}"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection of a proxied request ended");
        }
    });
    let client = request.take_upgrade();
    let upgrades = client.is_some() && request.headers.contains_key(UPGRADE);
    let mut outgoing = http::Request::builder()
        .method(request.method.clone())
        .uri(&target.path)
        .body(if upgrades { empty() } else { request.take_body() })
        .map_err(|e| Status::bad_request(e.to_string()))?;
    *outgoing.headers_mut() = headers(&request.headers, target, upgrades);
    let response = sender.send_request(outgoing).await.map_err(failed)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut parts, body) = response.into_parts();
        onward::strip(&mut parts.headers, false);
        return Ok(Response::from_parts(parts, body.map_err(std::io::Error::other).boxed_unsync()));
    }
    let Some(client) = client else { return Err(Status::bad_request("Upgrade request required")) };
    Ok(onward::tunnel(client, response))
}

fn headers(from: &HeaderMap, target: &Target, upgrades: bool) -> HeaderMap {
    // The other side is to see this server.
    let mut headers = onward::headers(from, upgrades);
    let host = if target.host.contains(':') { format!("[{}]", target.host) } else { target.host.clone() };
    if let Ok(host) = HeaderValue::from_str(&format!("{host}:{}", target.port)) {
        headers.insert(HOST, host);
    }
    headers
}

/// Encodes query parameters.
pub fn query(pairs: &[(&str, &str)]) -> String {
    let mut out = form_urlencoded::Serializer::new(String::new());
    out.extend_pairs(pairs);
    out.finish()
}
