//! A client of an API server on another host: TLS with the certificate of a kubeconfig.

use anyhow::{Context, Result, bail};
use http::header::USER_AGENT;
use http::{HeaderValue, Request, Uri};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::middleware::BaseUriLayer;
use pki::Identity;
use rustls::pki_types::ServerName;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Layer;

/// What a kubeconfig says of the server and of who we are.
pub struct Remote {
    /// URL of the server.
    pub server: Uri,
    /// PEM of the CA.
    pub ca: String,
    /// Certificate and key.
    pub identity: Identity,
}

impl Remote {
    /// Reads the current context of a kubeconfig with embedded certificates.
    pub fn read(path: &Path) -> Result<Self> {
        let config = cluster::kubeconfig::read(path)?.with_context(|| format!("{} does not exist or is empty", path.display()))?;
        let text = |pointer: &str| -> Result<&str> {
            config.pointer(pointer).and_then(|v| v.as_str()).with_context(|| format!("{}: {pointer} is missing; `sagong kubeconfig --node NAME` makes such a file", path.display()))
        };
        let pem = |pointer: &str| -> Result<String> { super::kubeconfig::from_base64(text(pointer)?) };
        Ok(Self {
            server: text("/clusters/0/cluster/server")?.parse().context("the server's URL")?,
            ca: pem("/clusters/0/cluster/certificate-authority-data")?,
            identity: Identity { cert_pem: pem("/users/0/user/client-certificate-data")?, key_pem: pem("/users/0/user/client-key-data")? },
        })
    }

    /// A client with this identity.
    pub fn client(&self) -> Result<kube::Client> {
        let tls = Arc::new(pki::tls::client_config(&[&self.ca], Some(&self.identity))?);
        let hyper = HyperClient::builder(TokioExecutor::new()).build(Connector(TlsConnector::from(tls)));
        let named = tower::util::MapRequestLayer::new(|mut request: Request<kube::client::Body>| {
            request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("kubelet"));
            request
        });
        Ok(kube::Client::new(named.layer(BaseUriLayer::new(self.server.clone()).layer(hyper)), "default"))
    }
}

/// Opens TLS connections.
#[derive(Clone)]
struct Connector(TlsConnector);

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = anyhow::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.0.clone();
        Box::pin(async move {
            let Some(host) = uri.host() else { bail!("{uri} names no host") };
            let host = host.trim_matches(['[', ']']).to_owned();
            let tcp = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await.with_context(|| format!("connect to {uri}"))?;
            tcp.set_nodelay(true)?;
            let stream = connector.connect(ServerName::try_from(host)?, tcp).await.with_context(|| format!("speak TLS with {uri}"))?;
            Ok(TokioIo::new(Stream(stream)))
        })
    }
}

/// A TLS connection that says whether it speaks HTTP/2.
struct Stream(TlsStream<TcpStream>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let h2 = self.0.get_ref().1.alpn_protocol() == Some(b"h2");
        if h2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
