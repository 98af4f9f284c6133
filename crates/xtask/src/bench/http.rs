//! The little HTTP a benchmark needs: requests to `kubectl proxy` on loopback, which keeps its
//! credentials out of the measurement.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// A running `kubectl proxy`.
pub struct Proxy {
    child: Child,
    port: u16,
}

impl Proxy {
    /// Starts it on a free port.
    pub fn start(mut kubectl: Command) -> Result<Self> {
        let mut child = kubectl.args(["proxy", "--port=0", "--reject-paths=^$"]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut line)?;
        let port = line.trim().rsplit(':').next().and_then(|p| p.parse().ok()).with_context(|| format!("kubectl proxy said {line:?}"))?;
        Ok(Self { child, port })
    }

    /// Sends a request; gives the body's lines as they come.
    pub fn stream(&self, method: &str, path: &str, body: &str) -> Result<impl Iterator<Item = Result<String>> + use<>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        // HTTP/1.0: the body ends with the connection, and is not chunked.
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        let mut reader = BufReader::new(stream);
        let mut status = String::new();
        reader.read_line(&mut status)?;
        let mut header = String::new();
        while reader.read_line(&mut header)? > 0 && !header.trim().is_empty() {
            header.clear();
        }
        if !status.contains(" 20") {
            let mut text = String::new();
            reader.read_to_string(&mut text)?;
            bail!("{method} {path}: {status}{text}");
        }
        Ok(reader.lines().map(|line| Ok(line?)))
    }

    /// Upgrades to WebSocket and reads until `text` has come, or the end; whether it has.
    pub fn upgrade(&self, path: &str, protocol: &str, text: &str) -> Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13";
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n")?;
        let (mut seen, mut piece) = (Vec::<u8>::new(), [0u8; 4096]);
        loop {
            let n = stream.read(&mut piece)?;
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

    /// Sends a request; gives the body as JSON.
    pub fn call(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let lines: Vec<String> = self.stream(method, path, body)?.collect::<Result<_>>()?;
        Ok(serde_json::from_str(&lines.concat())?)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
