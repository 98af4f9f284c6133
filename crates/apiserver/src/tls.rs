//! Connections: TLS, HTTP/1.1 and HTTP/2, upgrades.

use crate::authn::Connection;
use crate::chain;
use crate::metrics::requests::HANDSHAKE_ERRORS;
use crate::server::ApiServer;
use http::Version;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A client that does not finish its handshake holds a socket no longer than this.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may lie idle, or a head take, as long as Go's clients keep idle connections: whoever ends one first
/// must not be the server just when a request is sent.
const IDLE: Duration = Duration::from_secs(90);
/// Connections that are still busy are cut after this time when the server stops.
const DRAIN: Duration = Duration::from_secs(5);
const MAX_STREAMS: u32 = 1000;

/// The address a request came from, among its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Remote(pub IpAddr);

/// Accepts until the token is cancelled.
pub async fn serve(server: Arc<ApiServer>, listener: TcpListener, tls: Arc<ServerConfig>, token: CancellationToken) {
    let acceptor = TlsAcceptor::from(tls);
    let tasks = TaskTracker::new();
    while let Some(accepted) = token.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, remote)) => {
                let (server, acceptor, token) = (server.clone(), acceptor.clone(), token.clone());
                tasks.spawn(async move { connection(server, acceptor, (stream, remote.ip()), token).await });
            }
            Err(error) => {
                // Out of file descriptors: waiting is all that helps.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::debug!("connections were cut");
    }
}

async fn connection(
    server: Arc<ApiServer>,
    acceptor: TlsAcceptor,
    (stream, remote): (TcpStream, IpAddr),
    token: CancellationToken,
) {
    // Watch events are small and should not wait for more.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            HANDSHAKE_ERRORS.inc(&[]);
            return tracing::debug!(%error, "TLS handshake failed");
        }
        Err(_) => {
            HANDSHAKE_ERRORS.inc(&[]);
            return tracing::debug!("TLS handshake timed out");
        }
    };
    let peer = Connection::tls(&server, stream.get_ref().1.peer_certificates().unwrap_or(&[]));
    let chance = server.config().limits.goaway_chance;
    let go_away = Arc::new(Notify::new());
    let asked_to_go = go_away.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (server, peer) = (server.clone(), peer.clone());
        if chance > 0.0 && request.version() == Version::HTTP_2 && rand::random_bool(chance.min(1.0)) {
            go_away.notify_one();
        }
        async move {
            let mut request = request.map(|body| body.map_err(std::io::Error::other).boxed_unsync());
            request.extensions_mut().insert(Remote(remote));
            Ok::<_, Infallible>(chain::handle(server, request, peer).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(Duration::from_secs(30))
        .adaptive_window(true);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = token.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        // The client opens another connection, which a load balancer may lead elsewhere; this one ends when it is idle.
        () = asked_to_go.notified() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}
