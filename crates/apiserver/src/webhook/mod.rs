//! The HTTP client of every webhook: admission, conversion, authentication, authorization.
//!
//! A [`ClientConfig`] says where a webhook is: a URL, or a service that [`resolver`] turns into an endpoint from the
//! server's live caches at each connection. [`Webhooks`] keeps one pooled client per configuration; [`connector`]
//! dials and [`tls`] decides whom to trust. [`Error`] is worded as upstream's client words it.
//!
//! Invariants: https only, and certificates are always verified unless the configuration says otherwise; what
//! a webhook answers is bounded in size and time. Deliberately absent: retries, redirects, proxies.

mod config;
pub(crate) mod connector;
pub(crate) mod error;
pub mod resolver;
pub mod tls;

pub use config::{Address, ClientConfig};
pub use error::Error;
pub use resolver::Resolver;

use bytes::Bytes;
use connector::Connector;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The largest answer that is read.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;
/// Clients kept; when there are more configurations than this, all start anew.
const CLIENTS: usize = 512;
const IDLE: Duration = Duration::from_secs(90);
const JSON: HeaderValue = HeaderValue::from_static("application/json");

type Http = Client<Connector, Full<Bytes>>;

/// One request to a webhook.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is sent, as JSON.
    pub body: Bytes,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether the webhook is told of the time by the parameter `timeout` (admission).
    pub announce: bool,
    /// `User-Agent`.
    pub user_agent: &'static str,
}

/// The clients of all webhooks.
pub struct Webhooks {
    resolver: Arc<Resolver>,
    clients: Mutex<HashMap<Arc<ClientConfig>, Http>>,
}

impl Webhooks {
    /// No client yet.
    pub fn new(resolver: Arc<Resolver>) -> Self {
        Self { resolver, clients: Mutex::default() }
    }

    /// What turns services into endpoints.
    pub fn resolver(&self) -> &Arc<Resolver> {
        &self.resolver
    }

    /// Posts JSON and gives the body of a successful answer.
    pub async fn post(&self, config: &Arc<ClientConfig>, call: Call) -> Result<Bytes, Error> {
        let mut uri = config.uri();
        if call.announce {
            let mark = if uri.contains('?') { '&' } else { '?' };
            uri.push_str(&format!("{mark}timeout={}s", call.timeout.as_secs()));
        }
        let client = self.client(config)?;
        let failed = |why: String| Error::Transport { uri: uri.clone(), why };
        let mut request = Request::post(&uri)
            .header(CONTENT_TYPE, JSON)
            .header(ACCEPT, JSON)
            .header(USER_AGENT, call.user_agent)
            .body(Full::new(call.body))
            .map_err(|e| Error::Config(e.to_string()))?;
        for (name, value) in &config.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let exchange = async {
            let response = client.request(request).await.map_err(|e| failed(error::text(&e)))?;
            let code = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
            let body = body.map_err(|e| failed(error::text(&*e)))?.to_bytes();
            if code.is_success() { Ok(body) } else { Err(Error::answer(code.as_u16(), &body)) }
        };
        match tokio::time::timeout(call.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout { uri: uri.clone() }),
        }
    }

    /// Gets a JSON document (an issuer's description, its keys).
    pub async fn get(&self, config: &Arc<ClientConfig>, timeout: Duration) -> Result<Bytes, Error> {
        let uri = config.uri();
        let client = self.client(config)?;
        let failed = |why: String| Error::Transport { uri: uri.clone(), why };
        let request = Request::get(&uri).header(ACCEPT, JSON).body(Full::default());
        let request = request.map_err(|e| Error::Config(e.to_string()))?;
        let exchange = async {
            let response = client.request(request).await.map_err(|e| failed(error::text(&e)))?;
            let code = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
            let body = body.map_err(|e| failed(error::text(&*e)))?.to_bytes();
            if code.is_success() { Ok(body) } else { Err(Error::answer(code.as_u16(), &body)) }
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| Err(Error::Timeout { uri: uri.clone() }))
    }

    fn client(&self, config: &Arc<ClientConfig>) -> Result<Http, Error> {
        if let Some(client) = self.clients.lock().get(config) {
            return Ok(client.clone());
        }
        let connector = Connector::new(config, self.resolver.clone())?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        let mut clients = self.clients.lock();
        if clients.len() >= CLIENTS {
            clients.clear();
        }
        clients.insert(config.clone(), client.clone());
        Ok(client)
    }
}
