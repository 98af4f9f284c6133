//! The kubelet's API on port 10250.
//!
//! HTTP/1.1 over TLS. Every request but `/healthz` of an authorized user passes [`auth`]; the router below is the
//! list of everything that is served. Exec, attach and port-forward upgrade the connection to WebSocket or SPDY.

mod auth;
mod exec;
mod exposition;
mod logs;
mod port_forward;
mod stats;

use crate::config::ServerOptions;
use crate::context::Context;
use crate::kubelet::Pods;
use crate::pod::PodExt;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Body of an answer.
pub type Body = BoxBody<Bytes, Infallible>;

const HANDSHAKE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);

/// What handlers share.
pub struct Server {
    /// The kubelet.
    pub ctx: Arc<Context>,
    /// Its pods.
    pub pods: Arc<Pods>,
    auth: auth::Auth,
}

/// A request with its path taken apart.
pub struct Call {
    /// The request; its body is not read.
    pub request: Request<Incoming>,
    /// Segments of the path.
    pub segments: Vec<String>,
    /// Parameters of the query, in order.
    pub query: Vec<(String, String)>,
}

impl Call {
    /// The first value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether a parameter is `1` or `true`.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.parameter(name), Some("1" | "true"))
    }
}

/// Serves until dropped; a port that is taken is tried again.
pub async fn run(ctx: Arc<Context>, pods: Arc<Pods>) {
    let Some(options) = ctx.config.server.clone() else { return std::future::pending().await };
    let server = Arc::new(Server { auth: auth::Auth::new(&ctx.config), ctx, pods });
    let listener = loop {
        match TcpListener::bind(options.listen).await {
            Ok(listener) => break listener,
            Err(error) => {
                tracing::error!(address = %options.listen, %error, "cannot serve the kubelet's API");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    serve(server, listener, &options).await;
}

async fn serve(server: Arc<Server>, listener: TcpListener, options: &ServerOptions) {
    // Upgrades need HTTP/1.1, whatever else the configuration offers.
    let mut tls = (*options.tls).clone();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(server.clone(), acceptor.clone(), stream))),
                // Out of descriptors: connections that end make room.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(server: Arc<Server>, acceptor: tokio_rustls::TlsAcceptor, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    let user = stream.get_ref().1.peer_certificates().and_then(|certs| auth::certificate_user(certs.first()?));
    let service = hyper::service::service_fn(move |request| {
        let (server, user) = (server.clone(), user.clone());
        async move { Ok::<_, Infallible>(handle(server, user, request).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
    let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

async fn handle(server: Arc<Server>, user: Option<auth::User>, request: Request<Incoming>) -> Response<Body> {
    let user = match server.auth.authenticate(user, request.headers()).await {
        Some(user) => user,
        None => return text(StatusCode::UNAUTHORIZED, "Unauthorized"),
    };
    if let Err(why) = server.auth.authorize(&user, request.method(), request.uri().path()).await {
        return text(StatusCode::FORBIDDEN, why);
    }
    let decode = |s: &str| percent_encoding::percent_decode_str(s).decode_utf8_lossy().into_owned();
    let segments = request.uri().path().split('/').filter(|s| !s.is_empty()).map(decode).collect();
    let query = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    route(server, Call { request, segments, query }).await
}

/// Everything that is served.
async fn route(server: Arc<Server>, call: Call) -> Response<Body> {
    let segments: Vec<&str> = call.segments.iter().map(String::as_str).collect();
    let reads = call.request.method() == Method::GET;
    let streams = reads || call.request.method() == Method::POST;
    match segments.as_slice() {
        ["healthz", ..] if reads => text(StatusCode::OK, "ok"),
        ["pods"] if reads => json(&pod_list(&server)),
        ["runningpods"] if reads => json(&stats::running_pods(&server).await),
        ["configz"] if reads => json(&serde_json::json!({"kubeletconfig": config(&server)})),
        ["stats", "summary"] if reads => json(&stats::summary(&server, call.flag("only_cpu_and_memory")).await),
        ["metrics", "resource"] if reads => metrics(stats::resource_metrics(&server).await),
        ["metrics"] if reads => metrics(stats::metrics(&server).await),
        ["metrics", "cadvisor"] if reads => metrics(stats::cadvisor_metrics(&server).await),
        ["metrics", "probes"] if reads => metrics(stats::probe_metrics(&server)),
        ["checkpoint", namespace, name, container] if !reads && streams => {
            checkpoint(&server, namespace, name, container)
        }
        ["containerLogs", _, _, _] if reads => logs::get(server, call).await,
        ["exec", _, _, _] | ["exec", _, _, _, _] if streams => exec::exec(server, call).await,
        ["attach", _, _, _] | ["attach", _, _, _, _] if streams => exec::attach(server, call).await,
        ["portForward", _, _] | ["portForward", _, _, _] if streams => port_forward::open(server, call).await,
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn pod_list(server: &Server) -> serde_json::Value {
    let items = server.pods.list();
    serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

fn config(server: &Server) -> serde_json::Value {
    let config = &server.ctx.config;
    let mut value = serde_json::to_value(&config.settings).unwrap_or_default();
    let dns: Vec<String> = config.cluster_dns.iter().map(ToString::to_string).collect();
    let own = serde_json::json!({"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "port": config.port(), "clusterDNS": dns, "clusterDomain": config.cluster_domain,
        "resolvConf": config.resolv_conf, "cgroupDriver": "cgroupfs", "enableServer": true, "registerNode": true,
        "authentication": {"webhook": {"enabled": true}, "anonymous": {"enabled": false}},
        "authorization": {"mode": "Webhook"}});
    for (key, own) in own.as_object().into_iter().flatten() {
        value[key] = own.clone();
    }
    value
}

/// Checkpoints of containers, which our runtime does not make.
fn checkpoint(server: &Server, namespace: &str, name: &str, container: &str) -> Response<Body> {
    let Some(pod) = server.pods.find(namespace, name) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist");
    };
    if pod.container(container).is_none() {
        return text(StatusCode::NOT_FOUND, format!("container {container} does not exist"));
    }
    let why = "rpc error: code = Unimplemented desc = the container runtime does not make checkpoints";
    let message = format!("checkpointing of {namespace}/{name}/{container} failed ({why})");
    text(StatusCode::INTERNAL_SERVER_ERROR, message)
}

fn metrics(content: String) -> Response<Body> {
    let mut response = text(StatusCode::OK, content);
    let kind = http::HeaderValue::from_static(exposition::CONTENT_TYPE);
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

/// Plain text.
pub fn text(status: StatusCode, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(content.into()).boxed());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json(value: &serde_json::Value) -> Response<Body> {
    let mut response = text(StatusCode::OK, value.to_string());
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// A body that is sent as it comes.
pub fn streamed(parts: tokio::sync::mpsc::Receiver<Bytes>) -> Response<Body> {
    let frames = tokio_stream_of(parts).map(|part| Ok::<_, Infallible>(Frame::data(part)));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    response
}

fn tokio_stream_of(mut parts: tokio::sync::mpsc::Receiver<Bytes>) -> impl futures::Stream<Item = Bytes> + Send + Sync {
    futures::stream::poll_fn(move |cx| parts.poll_recv(cx))
}

/// The sandbox of a pod that exec, attach and port-forward go to, and its containers by name.
pub async fn running(server: &Server, namespace: &str, name: &str) -> Option<(String, HashMap<String, String>)> {
    let pod = server.pods.find(namespace, name)?;
    let state = crate::state::PodState::list(&*server.ctx.config.runtime, pod.uid()).await.ok()?;
    let sandbox = state.sandbox()?.id.clone();
    let containers = state.running().map(|c| (c.metadata.name.clone(), c.id.clone())).collect();
    Some((sandbox, containers))
}
