//! The client of one server behind this one.

use super::service::Reference;
use crate::authn::{UserInfo, front_proxy};
use crate::body::Body;
use crate::server::ApiServer;
use crate::webhook::connector::Connector;
use crate::webhook::error;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::sync::Arc;
use std::time::Duration;

const IDLE: Duration = Duration::from_secs(90);
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest document that is read.
const LIMIT: usize = 32 * 1024 * 1024;

/// The client of a server; or why there can be none.
pub struct Remote {
    url: String,
    client: Result<Client<Connector, Body>, String>,
}

impl Remote {
    /// A client that shows the server's certificate for front proxies.
    pub fn new(server: &ApiServer, reference: &Reference) -> Self {
        let identity = server.config().proxy_client.clone().map(Arc::new);
        let config = Arc::new(reference.client(identity));
        let connector = Connector::new(&config, server.webhooks().resolver().clone());
        let client = connector.map_err(|e| e.to_string()).map(|connector| {
            let mut builder = Client::builder(TokioExecutor::new());
            builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).build(connector)
        });
        Self { url: reference.url(), client }
    }

    /// Why requests cannot be made.
    pub fn error(&self) -> Option<&str> {
        self.client.as_ref().err().map(String::as_str)
    }

    /// The URL of a path and query.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Sends a request; the error is worded as Go's client words what went wrong.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, String> {
        let client = self.client.as_ref().map_err(Clone::clone)?;
        client.request(request).await.map_err(|e| error::text(&e))
    }

    /// Gets a document as a user; gives its code, headers and content.
    pub async fn get(
        &self,
        path: &str,
        user: &UserInfo,
        headers: &[(http::HeaderName, &str)],
    ) -> Result<(u16, HeaderMap, Bytes), String> {
        let url = self.url(path);
        let failed = |why: String| format!("Get {url:?}: {why}");
        let mut request = Request::get(&url).body(crate::body::empty()).map_err(|e| e.to_string())?;
        for (name, value) in headers {
            request.headers_mut().insert(name, value.parse().map_err(|_| format!("{name} cannot be {value:?}"))?);
        }
        front_proxy::assert(user, request.headers_mut());
        let exchange = async {
            let response = self.send(request).await.map_err(failed)?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, LIMIT).collect().await.map_err(|e| failed(e.to_string()))?;
            Ok((parts.status.as_u16(), parts.headers, body.to_bytes()))
        };
        let timed_out = || failed("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into());
        tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err(timed_out()))
    }
}
