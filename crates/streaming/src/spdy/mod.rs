//! SPDY/3.1, as far as Kubernetes speaks it: exec, attach and port-forward of kubectl up to 1.30, and what newer
//! ones send through a WebSocket. [`frame`] is the codec, [`connection`] the multiplexer.

pub mod connection;
mod dictionary;
mod frame;
pub mod port_forward;
pub mod remote_command;

use super::{Body, text};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

const PROTOCOL_VERSION: &str = "x-stream-protocol-version";

/// Whether a request asks for SPDY.
pub fn is_upgrade(request: &Request<Incoming>) -> bool {
    let value = request.headers().get(header::UPGRADE).and_then(|v| v.to_str().ok());
    value.is_some_and(|v| v.eq_ignore_ascii_case("SPDY/3.1"))
}

/// The first stream protocol the client offers that is among the known ones.
fn choose<'a>(headers: &HeaderMap, known: &[&'a str]) -> Option<&'a str> {
    let offered = headers.get_all(PROTOCOL_VERSION).iter().filter_map(|v| v.to_str().ok());
    offered.flat_map(|v| v.split(',')).find_map(|o| known.iter().find(|k| **k == o.trim()).copied())
}

/// Answers with 101 and hands the connection to `session` when it is upgraded.
fn accept<F, Fut>(mut request: Request<Incoming>, known: &[&'static str], session: F) -> Response<Body>
where
    F: FnOnce(TokioIo<Upgraded>) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let protocol = choose(request.headers(), known);
    if protocol.is_none() && request.headers().contains_key(PROTOCOL_VERSION) {
        let offered =
            request.headers().get_all(PROTOCOL_VERSION).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>();
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {}, server accepts {}",
            list(&offered),
            list(known)
        );
        return text(StatusCode::FORBIDDEN, message);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            session(TokioIo::new(upgraded)).await;
        }
    });
    let mut response = Response::new(Empty::<Bytes>::new().boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    if let Some(protocol) = protocol {
        response.headers_mut().insert(PROTOCOL_VERSION, HeaderValue::from_static(protocol));
    }
    response
}

/// Go's `%v` of a list of strings.
fn list(items: &[&str]) -> String {
    format!("[{}]", items.join(" "))
}
