//! Exec, attach and port-forward: a client's HTTP request that becomes a session with a container.
//!
//! The kubelet's API and the streaming server of our CRI socket answer the same requests with it. A request is
//! upgraded to WebSocket ([`websocket`]) or SPDY/3.1 ([`spdy`]); [`remote_command`] joins the client's ends to a
//! process's [`cri::Streams`], [`port_forward`] to ports of a sandbox. Where another runtime serves the streams
//! itself, [`proxy`] hands the request on as it is.
//!
//! Absent: any notion of who may do this; whoever calls has decided that.

pub mod port_forward;
pub mod proxy;
pub mod remote_command;
mod spdy;
pub mod websocket;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use std::convert::Infallible;

/// Body of an answer.
pub type Body = BoxBody<Bytes, Infallible>;
/// Parameters of a query, in order.
pub type Query = [(String, String)];

/// Plain text.
fn text(status: StatusCode, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(content.into()).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
