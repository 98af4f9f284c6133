//! Readiness: said when the node is Ready and cluster DNS answers.

use super::Ready;
use anyhow::{Context, Result};
use cluster::notify::{self, Message};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;

impl Ready {
    /// Says what is being done.
    pub fn status(&self, text: &str) {
        tracing::info!("{text}");
        self.send(&Message::Status(text.into()));
    }

    /// Says that the server is ready.
    pub fn ready(&self) -> Result<()> {
        tracing::info!("ready");
        if let Some(file) = &self.file {
            std::fs::write(file, "").with_context(|| format!("write {}", file.display()))?;
        }
        self.send(&Message::Ready);
        Ok(())
    }

    /// Takes an earlier process's word back.
    pub fn clear(&self) {
        if let Some(file) = &self.file {
            // Absent on a first start.
            let _ = std::fs::remove_file(file);
        }
    }

    fn send(&self, message: &Message) {
        if let Some(socket) = &self.socket {
            notify::send(socket, message);
        }
    }
}

/// Returns when the cluster's DNS at `server` answers a query for the API's service.
pub async fn dns_answers(server: IpAddr, domain: &str) -> Result<()> {
    let query = query(&format!("kubernetes.default.svc.{domain}"));
    let mut answer = [0; 512];
    // A lost datagram has no event but its absence: asked again after a growing wait.
    for wait in [20, 40, 80, 160, 320, 640, 1000, 2000, 4000, 8000, 16000, 30000] {
        // A port of its own, as resolvers do: a flow that began before the proxy's rules would lead nowhere for good.
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        socket.connect(SocketAddr::new(server, 53)).await?;
        // Without a route yet, the next try follows.
        let _ = socket.send(&query).await;
        let reply = tokio::time::timeout(Duration::from_millis(wait), socket.recv(&mut answer)).await;
        match reply {
            // The same id, a response without error, at least one answer (RFC 1035, 4.1.1).
            Ok(Ok(length)) if length > 12 && answer[..2] == query[..2] && answer[3] & 0x0f == 0 && answer[6..8] != [0, 0] => return Ok(()),
            // Refused or not known yet: there is no listener, or its informers are filling.
            Ok(_) => tokio::time::sleep(Duration::from_millis(wait.min(100))).await,
            Err(_) => {}
        }
    }
    anyhow::bail!("cluster DNS at {server} did not answer for a minute")
}

/// A query for an A record (RFC 1035).
fn query(name: &str) -> Vec<u8> {
    let mut out = vec![0x53, 0x47, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.extend([0, 0, 1, 0, 1]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        assert_eq!(query("a.bc")[12..], [1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1]);
    }
}
