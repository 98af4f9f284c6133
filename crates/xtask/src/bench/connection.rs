//! HTTP/1.1 over TLS, as a cluster's administrator: nothing between the benchmark and the API.

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// The media type of JSON.
pub const JSON: &str = "application/json";
/// The media type of protobuf.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The media type of tables.
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// Who a kubeconfig speaks for, and where its server is.
pub struct Administrator {
    address: String,
    tls: Arc<ClientConfig>,
}

impl Administrator {
    /// Reads the kubeconfig, whose certificates may lie in files of their own.
    pub fn of(kubeconfig: &Path) -> Result<Self> {
        let mut kubectl = Command::new("kubectl");
        kubectl.args(["config", "view", "--raw", "--flatten", "--minify", "-o", "json", "--kubeconfig"]).arg(kubeconfig);
        let config: Value = serde_json::from_slice(&kubectl.output()?.stdout)?;
        let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let url = cluster["server"].as_str().context("the kubeconfig names no server")?;
        let address = url.strip_prefix("https://").context("the server is not reached by https")?;
        Ok(Self { address: address.trim_end_matches('/').to_owned(), tls: Arc::new(tls(cluster, user)?) })
    }

    /// A new connection.
    pub fn connect(&self) -> Result<Connection> {
        Connection::open(&self.address, &self.tls)
    }
}

fn tls(cluster: &Value, user: &Value) -> Result<ClientConfig> {
    let pem = |value: &Value| {
        STANDARD.decode(value.as_str().context("the kubeconfig lacks a certificate or key")?).context("base64")
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem(&cluster["certificate-authority-data"])?)?)?;
    let chain =
        CertificateDer::pem_slice_iter(&pem(&user["client-certificate-data"])?).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&pem(&user["client-key-data"])?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_client_auth_cert(chain, key)?)
}

/// One connection, kept open between requests.
pub struct Connection(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Connection {
    fn open(address: &str, tls: &Arc<ClientConfig>) -> Result<Self> {
        let tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        // A benchmark that hangs says so.
        tcp.set_read_timeout(Some(Duration::from_secs(60)))?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let session = ClientConnection::new(tls.clone(), ServerName::try_from(host.to_owned())?)?;
        Ok(Self(BufReader::new(StreamOwned::new(session, tcp))))
    }

    /// Sends a request and reads the body of its answer; anything but success is an error.
    pub fn call(&mut self, method: &str, path: &str, accept: &str, body: &[u8]) -> Result<Vec<u8>> {
        let length = self.send(method, path, accept, body)?;
        let mut out = Vec::new();
        match length {
            Some(length) => self.0.by_ref().take(length).read_to_end(&mut out).map(drop)?,
            None => {
                while let Some(chunk) = self.chunk()? {
                    out.extend(chunk);
                }
            }
        }
        Ok(out)
    }

    /// Begins a watch; its events are what [`Connection::chunk`] then gives, in pieces.
    pub fn watch(&mut self, path: &str) -> Result<()> {
        match self.send("GET", path, JSON, b"")? {
            None => Ok(()),
            Some(_) => bail!("{path} is no stream"),
        }
    }

    /// The next chunk of a body without a length.
    pub fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let size = usize::from_str_radix(self.line()?.trim(), 16)?;
        let mut chunk = vec![0; size];
        self.0.read_exact(&mut chunk)?;
        self.line()?;
        Ok(Some(chunk).filter(|c| !c.is_empty()))
    }

    /// The lines of a body without a length, as they come: the events of a watch.
    pub fn lines(mut self) -> impl Iterator<Item = Result<String>> {
        let mut read = Vec::new();
        std::iter::from_fn(move || {
            loop {
                if let Some(end) = read.iter().position(|byte| *byte == b'\n') {
                    let line = read.drain(..=end).collect();
                    return Some(String::from_utf8(line).context("the stream is not text"));
                }
                match self.chunk() {
                    Ok(Some(chunk)) => read.extend(chunk),
                    Ok(None) => return None,
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }

    /// Upgrades to WebSocket and reads until `text` has come, or the end; whether it has.
    pub fn upgrade(mut self, path: &str, protocol: &str, text: &str) -> Result<bool> {
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13";
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        self.0.get_mut().write_all(head.as_bytes())?;
        let (mut seen, mut piece) = (Vec::<u8>::new(), [0u8; 4096]);
        loop {
            let n = self.0.read(&mut piece)?;
            seen.extend(&piece[..n]);
            if seen.len() > 12 && !seen.starts_with(b"HTTP/1.1 101") {
                bail!("GET {path}: {}", String::from_utf8_lossy(&seen));
            }
            if seen.windows(text.len()).any(|w| w == text.as_bytes()) {
                return Ok(true);
            }
            if n == 0 {
                return Ok(false);
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line)
    }

    /// Gives the length of the answer, if it has one.
    fn send(&mut self, method: &str, path: &str, accept: &str, body: &[u8]) -> Result<Option<u64>> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { JSON };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let status = self.line()?;
        let mut length = None;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.trim().split_once(": ") {
                Some(("content-length", value)) => length = Some(value.parse()?),
                Some(_) => {}
                None if line.trim().is_empty() => break,
                None => bail!("no header: {line:?}"),
            }
        }
        if !status.contains(" 20") {
            let mut text = Vec::new();
            self.0.by_ref().take(length.unwrap_or(0)).read_to_end(&mut text)?;
            bail!("{method} {path}: {}: {}", status.trim(), String::from_utf8_lossy(&text));
        }
        Ok(length)
    }
}
