//! Requests that are sent on: to a kubelet over TLS, or to a pod. Upgraded connections are tunnelled byte for byte.
//!
//! Kubelets are verified. Pods are not: nobody vouches for their certificates, and which address a pod has is known.

use super::links::join;
use crate::body::{Body, empty};
use crate::handlers::Request;
use crate::onward;
use crate::server::ApiServer;
use crate::webhook;
use crate::webhook::connector::refusal;
use api::Status;
use http::header::{HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
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
    /// The path of this server that stands for the root of the target, where the target is to know.
    pub prefix: Option<String>,
}

/// How a connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// TLS to whoever answers.
    Https,
    /// To a kubelet, with the server's client certificate.
    Kubelet,
}

impl Target {
    /// Address and port as one word.
    pub fn authority(&self) -> String {
        let (host, port) = (&self.host, self.port);
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Why it does not answer, as the caller is told.
    fn unreachable(&self, why: &str) -> Status {
        match self.prefix {
            Some(_) => Status::new(503, "ServiceUnavailable", format!("error trying to reach service: {why}")),
            None => Status::internal(format!("error dialing backend: {why}")),
        }
    }

    /// A path of the kubelet of a node.
    pub async fn kubelet(server: &ApiServer, node: &str, path: String) -> Result<Self, Status> {
        let store = server.store("", "nodes").ok_or_else(Status::no_such_path)?;
        let stored = store.get("", node).await?.ok_or_else(|| Status::not_found("", "nodes", node))?;
        let object = stored.object()?;
        let addresses = object.pointer("/status/addresses").and_then(Value::as_array).cloned().unwrap_or_default();
        let of = |kind: &str| addresses.iter().find(|a| a["type"] == kind).and_then(|a| a["address"].as_str());
        let host = ["InternalIP", "InternalDNS", "Hostname", "ExternalIP"].into_iter().find_map(of);
        let host = host.ok_or_else(|| {
            let text = |a: &Value, field: &str| a[field].as_str().unwrap_or("").to_owned();
            let known = addresses.iter().map(|a| format!("{{{} {}}}", text(a, "type"), text(a, "address")));
            let known = known.collect::<Vec<_>>().join(" ");
            Status::new(500, "", format!("no preferred addresses found; known addresses: [{known}]"))
        })?;
        let port = object.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
        let port = port.and_then(|p| u16::try_from(p).ok()).unwrap_or(10250);
        Ok(Self { host: host.to_owned(), port, scheme: Scheme::Kubelet, path, prefix: None })
    }
}

/// Sends a request on and answers with what comes back.
pub async fn forward(server: &ApiServer, request: &Request, target: &Target) -> Result<Response<Body>, Status> {
    let dial = async {
        let tcp = TcpStream::connect((target.host.as_str(), target.port)).await;
        let tcp =
            tcp.map_err(|e| target.unreachable(&format!("dial tcp {}: connect: {}", target.authority(), refusal(&e))))?;
        let _ = tcp.set_nodelay(true);
        let config = match target.scheme {
            Scheme::Http => return exchange(request, target, tcp).await,
            Scheme::Https => {
                webhook::tls::client("", None, true).map_err(|e| target.unreachable(&e.to_string()))?.into()
            }
            Scheme::Kubelet => server.kubelet_tls().clone(),
        };
        let name = ServerName::try_from(target.host.clone()).map_err(|e| target.unreachable(&e.to_string()))?;
        let tls = TlsConnector::from(config).connect(name, tcp).await;
        exchange(request, target, tls.map_err(|e| target.unreachable(&webhook::tls::text(&e, &target.host)))?).await
    };
    // Only the answer's head is waited for within the time; its body may take as long as it wants.
    match tokio::time::timeout(DIAL + Duration::from_secs(20), dial).await {
        Ok(result) => result,
        Err(_) => Err(target.unreachable(&format!("dial tcp {}: i/o timeout", target.authority()))),
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
        return Ok(onward::answer(response));
    }
    let Some(client) = client else { return Err(Status::bad_request("Upgrade request required")) };
    Ok(onward::tunnel(client, response))
}

fn headers(from: &HeaderMap, target: &Target, upgrades: bool) -> HeaderMap {
    // The other side is to see this server.
    let mut headers = onward::headers(from, upgrades);
    if let Ok(host) = HeaderValue::try_from(target.authority()) {
        headers.insert(HOST, host);
    }
    let path = target.path.split('?').next().unwrap_or("");
    let forwarded = target.prefix.as_ref().and_then(|prefix| HeaderValue::try_from(join(prefix, path)).ok());
    if let Some(uri) = forwarded {
        headers.insert("x-forwarded-uri", uri);
    }
    headers
}

/// Encodes query parameters.
pub fn query(pairs: &[(&str, &str)]) -> String {
    let mut out = form_urlencoded::Serializer::new(String::new());
    out.extend_pairs(pairs);
    out.finish()
}
