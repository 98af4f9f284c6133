//! Connections to webhooks: resolved, dialled, encrypted.

use super::config::{Address, ClientConfig};
use super::error::{Connect, Error};
use super::resolver::Resolver;
use super::tls;
use futures::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig as Tls;
use rustls_pki_types::ServerName;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Makes the connections of one webhook.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    resolver: Arc<Resolver>,
    tls: Arc<Tls>,
}

impl Connector {
    /// A connector; fails when the certificates of the configuration are of no use.
    pub fn new(config: &Arc<ClientConfig>, resolver: Arc<Resolver>) -> Result<Self, Error> {
        let mut tls = tls::client(&config.ca_bundle, config.identity.as_deref(), config.insecure)?;
        // Many requests on one HTTP/2 connection would all reach one endpoint of a service.
        let local = matches!(&config.address, Address::Url(url) if is_local(url));
        tls.alpn_protocols =
            if local { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
        Ok(Self { config: config.clone(), resolver, tls: Arc::new(tls) })
    }
}

fn is_local(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or("");
    let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host.eq_ignore_ascii_case("localhost") || ip.is_some_and(|ip| ip.is_loopback())
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = Connect;
    type Future = BoxFuture<'static, Result<Stream, Connect>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Connect>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(&uri).await })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri) -> Result<Stream, Connect> {
        if uri.scheme_str() != Some("https") {
            return Err(Connect("http: server gave HTTP response to HTTPS client".into()));
        }
        let host = uri.host().unwrap_or("").trim_matches(['[', ']']).to_owned();
        let (to, port) = match &self.config.address {
            Address::Url(_) => (host.clone(), uri.port_u16().unwrap_or(443)),
            Address::Service { namespace, name, port, .. } => {
                self.resolver.resolve(namespace, name, *port).map_err(|status| Connect(status.message))?
            }
        };
        let tcp = dial(&to, port).await?;
        let name = self.config.server_name.clone().unwrap_or(host);
        let server_name = ServerName::try_from(name.clone()).map_err(|e| Connect(e.to_string()))?;
        let connected = TlsConnector::from(self.tls.clone()).connect(server_name, tcp).await;
        connected.map(|tls| Stream(TokioIo::new(tls))).map_err(|e| Connect(tls::text(&e, &name)))
    }
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, Connect> {
    let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let addresses = tokio::net::lookup_host((host, port)).await;
    let mut addresses = addresses.map_err(|_| Connect(format!("dial tcp: lookup {host}: no such host")))?;
    let shown = addresses.next().map_or(shown, |a| a.to_string());
    let tcp = TcpStream::connect((host, port)).await;
    let tcp = tcp.map_err(|e| Connect(format!("dial tcp {shown}: connect: {}", refusal(&e))))?;
    let _ = tcp.set_nodelay(true);
    Ok(tcp)
}

/// Why a connection was not made, in Go's words.
pub fn refusal(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

/// A connection.
pub struct Stream(TokioIo<TlsStream<TcpStream>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        let (_, tls) = self.0.inner().get_ref();
        if tls.alpn_protocol() == Some(b"h2") { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
