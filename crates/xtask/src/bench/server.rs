//! A server without a node, and HTTP/1.1 over TLS to it: nothing between the benchmark and the API.

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// A server that is measured: one of ours, stopped when this is dropped, or another that runs already.
pub struct Target {
    address: String,
    tls: Arc<ClientConfig>,
    /// Processes whose CPU and memory count.
    pids: Vec<u32>,
    ours: Option<(Child, TempDir)>,
}

impl Target {
    /// Starts the API server alone, in an empty directory.
    pub fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = Command::new(e2e::sagong());
        command.args(["server", "--agent=false", "--disable", "scheduler,controllers,local-storage", "--bind-address"]);
        command.args(["127.0.0.1", "--advertise-address", "127.0.0.1", "--port", &port.to_string(), "--data-dir"]);
        let mut child = command.arg(dir.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let ready = e2e::wait("the server", 30, || {
            let (address, tls) = credentials(&dir.path().join("admin.kubeconfig"))?;
            let target = Self { address, tls: Arc::new(tls), pids: vec![child.id()], ours: None };
            target.connect()?.call("GET", "/readyz", JSON, b"")?;
            Ok(Some(target))
        });
        match ready {
            Ok(mut target) => {
                target.ours = Some((child, dir));
                Ok(target)
            }
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Another server, by its administrator's kubeconfig and the processes it consists of.
    pub fn connect_to(kubeconfig: &Path, pids: Vec<u32>) -> Result<Self> {
        let (address, tls) = credentials(kubeconfig)?;
        Ok(Self { address, tls: Arc::new(tls), pids, ours: None })
    }

    /// A new connection, as the administrator.
    pub fn connect(&self) -> Result<Connection> {
        Connection::open(&self.address, &self.tls)
    }

    /// Resident memory in MB.
    pub fn resident(&self) -> Result<f64> {
        let one = |pid: &u32| -> Result<f64> {
            let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let line = rollup.lines().find(|l| l.starts_with("Rss:")).context("no Rss")?;
            let kb: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
            Ok(kb / 1000.0)
        };
        self.pids.iter().map(one).sum()
    }

    /// Seconds of CPU used so far.
    pub fn cpu(&self) -> Result<f64> {
        let one = |pid: &u32| -> Result<f64> {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let (_, fields) = stat.rsplit_once(')').context("no name")?;
            let fields: Vec<&str> = fields.split_whitespace().collect();
            let ticks = |at: usize| fields.get(at).context("no field")?.parse::<f64>().context("no number");
            // utime and stime, in hundredths of a second.
            Ok((ticks(11)? + ticks(12)?) / 100.0)
        };
        self.pids.iter().map(one).sum()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.ours {
            // Gone already is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The media type of JSON.
pub const JSON: &str = "application/json";
/// The media type of protobuf.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The media type of tables.
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// The address of a kubeconfig's server, and what it takes to speak to it.
fn credentials(kubeconfig: &Path) -> Result<(String, ClientConfig)> {
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["config", "view", "--raw", "--flatten", "-o", "json", "--kubeconfig"]).arg(kubeconfig);
    let config: Value = serde_json::from_slice(&kubectl.output()?.stdout)?;
    let pem = |value: &Value| {
        STANDARD.decode(value.as_str().context("the kubeconfig lacks a certificate or key")?).context("base64")
    };
    let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
    let url = cluster["server"].as_str().context("the kubeconfig names no server")?;
    let address = url.strip_prefix("https://").context("the server is not reached by https")?;
    let address = address.trim_end_matches('/').to_owned();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem(&cluster["certificate-authority-data"])?)?)?;
    let chain =
        CertificateDer::pem_slice_iter(&pem(&user["client-certificate-data"])?).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&pem(&user["client-key-data"])?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok((address, builder.with_root_certificates(roots).with_client_auth_cert(chain, key)?))
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
