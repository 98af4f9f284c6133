//! HTTP/1.1 over TCP or TLS, with redirects and every wait bounded.

use super::error::{Error, Result};
use super::hosts::Host;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

const CONNECT_TIME: Duration = Duration::from_secs(15);
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Between two pieces of a body.
const IDLE_TIME: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: usize = 10;

/// Requests to one host and wherever it redirects to.
pub(crate) struct Client {
    pool: Pool<Connector, Full<Bytes>>,
}

/// A response and where it came from.
pub(crate) struct Answer {
    pub response: Response<Incoming>,
    pub method: Method,
    pub uri: Uri,
}

impl Client {
    pub fn new(host: &Host) -> Result<Client> {
        let tls = Arc::new(super::tls::config(&host.ca, host.skip_verify)?);
        Ok(Client { pool: Pool::builder(TokioExecutor::new()).build(Connector { tls }) })
    }

    /// Sends a request; GET and HEAD follow redirects, which get no credentials of ours on another host.
    pub async fn send(&self, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Result<Answer> {
        let (mut uri, mut headers) = (uri, headers);
        for _ in 0..=REDIRECTS_MAX {
            let response = self.exchange(&method, &uri, &headers, &body).await?;
            let location = response.headers().get(LOCATION).filter(|_| {
                matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308)
                    && (method == Method::GET || method == Method::HEAD)
            });
            let Some(location) = location else { return Ok(Answer { response, method, uri }) };
            let next = location.to_str().ok().and_then(|to| join(&uri, to));
            let next = next.ok_or_else(|| Error::protocol(&uri, "redirects to something that is no URL"))?;
            if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(Error::protocol(&uri, format!("redirects from https to {next}, which is refused")));
            }
            if next.authority() != uri.authority() {
                headers.remove(AUTHORIZATION);
            }
            uri = next;
        }
        Err(Error::protocol(&uri, format!("stopped after {REDIRECTS_MAX} redirects")))
    }

    async fn exchange(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::new(Full::new(body.clone()));
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) =
            (method.clone(), uri.clone(), headers.clone());
        match timeout(ANSWER_TIME, self.pool.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(failed(method, uri, &error)),
            Err(_) => Err(late(method, uri)),
        }
    }
}

impl Answer {
    /// The next piece of the body; `None` at its end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = match timeout(IDLE_TIME, self.response.body_mut().frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(failed(&self.method, &self.uri, &error)),
                Err(_) => return Err(late(&self.method, &self.uri)),
            };
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// The whole body, if it is not larger than `max`.
    pub async fn bytes(&mut self, max: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece().await? {
            if bytes.len() + piece.len() > max {
                return Err(Error::protocol(&self.uri, format!("answers with more than {max} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

/// Where a `Location` leads from `base` (RFC 3986, section 5.2, without dot segments).
fn join(base: &Uri, to: &str) -> Option<Uri> {
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let full = if to.starts_with("http://") || to.starts_with("https://") {
        to.to_owned()
    } else if to.starts_with("//") {
        format!("{scheme}:{to}")
    } else if to.starts_with('/') {
        format!("{scheme}://{authority}{to}")
    } else if to.contains("://") {
        return None;
    } else {
        let above = base.path().rsplit_once('/').map_or("", |(above, _)| above);
        format!("{scheme}://{authority}{above}/{to}")
    };
    full.split('#').next()?.parse().ok()
}

fn late(method: &Method, uri: &Uri) -> Error {
    let reason = "i/o timeout".to_owned();
    Error::Request { method: method.clone(), url: uri.to_string(), reason, transient: true }
}

/// Names the deepest cause: the layers above it say no more than that there was an error.
fn failed(method: &Method, uri: &Uri, error: &(dyn std::error::Error + 'static)) -> Error {
    let (mut deepest, mut transient) = (error, false);
    loop {
        if let Some(io) = deepest.downcast_ref::<io::Error>() {
            transient |= is_transient(io.kind());
        }
        if let Some(http) = deepest.downcast_ref::<hyper::Error>() {
            transient |= http.is_incomplete_message() || http.is_closed() || http.is_canceled();
        }
        match deepest.source() {
            Some(cause) => deepest = cause,
            None => break,
        }
    }
    Error::Request { method: method.clone(), url: uri.to_string(), reason: deepest.to_string(), transient }
}

fn is_transient(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::*;
    matches!(
        kind,
        ConnectionRefused
            | ConnectionReset
            | ConnectionAborted
            | BrokenPipe
            | UnexpectedEof
            | TimedOut
            | NotConnected
            | HostUnreachable
            | NetworkUnreachable
            | NetworkDown
    )
}

/// Connects by the scheme of the URL.
#[derive(Clone)]
struct Connector {
    tls: Arc<ClientConfig>,
}

impl tower::Service<Uri> for Connector {
    type Response = Socket;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Socket>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone();
        Box::pin(async move {
            timeout(CONNECT_TIME, connect(uri, tls)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    }
}

async fn connect(uri: Uri, tls: Arc<ClientConfig>) -> io::Result<Socket> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let named = |doing: String| move |e: io::Error| io::Error::new(e.kind(), format!("dial tcp: {doing}: {e}"));
    let addresses = tokio::net::lookup_host((host.as_str(), port)).await.map_err(named(format!("lookup {host}")))?;
    let addresses: Vec<_> = addresses.collect();
    let tcp = TcpStream::connect(&addresses[..]).await.map_err(named(format!("connect to {host}:{port}")))?;
    tcp.set_nodelay(true)?;
    if !secure {
        return Ok(Socket(TokioIo::new(Box::new(tcp))));
    }
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let stream = tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await?;
    Ok(Socket(TokioIo::new(Box::new(stream))))
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection, plain or TLS.
struct Socket(TokioIo<Box<dyn Duplex>>);

impl Connection for Socket {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Socket {
    fn poll_read(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(ctx, buffer)
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(ctx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(ctx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(ctx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_locations() {
        let base: Uri = "https://r.io/v2/a/blobs/x?q=1".parse().unwrap();
        for (to, expect) in [
            ("https://cdn.io/x?s=1#f", Some("https://cdn.io/x?s=1")),
            ("//cdn.io/x", Some("https://cdn.io/x")),
            ("/y?z", Some("https://r.io/y?z")),
            ("y", Some("https://r.io/v2/a/blobs/y")),
            ("ftp://x/y", None),
            ("http://a b/", None),
        ] {
            assert_eq!(join(&base, to).map(|uri| uri.to_string()).as_deref(), expect, "{to}");
        }
    }
}
