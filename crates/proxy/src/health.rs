//! `healthCheckNodePort`: tells load balancers whether this node has endpoints of a service.

use informer::Key;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_MAX: usize = 8 << 10;

/// The servers of all services.
#[derive(Default)]
pub(crate) struct Servers {
    running: Mutex<HashMap<Key, Server>>,
}

struct Server {
    port: u16,
    local: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Servers {
    /// Starts, updates or (with `None`) ends a service's server.
    pub fn set(&self, key: &Key, wanted: Option<(u16, usize)>) {
        let mut running = self.running.lock();
        let Some((port, local)) = wanted else {
            running.remove(key);
            return;
        };
        if let Some(server) = running.get(key).filter(|server| server.port == port) {
            server.local.store(local, Ordering::Relaxed);
            return;
        }
        let counter = Arc::new(AtomicUsize::new(local));
        let task = tokio::spawn(serve(key.clone(), port, counter.clone()));
        running.insert(key.clone(), Server { port, local: counter, task });
    }
}

async fn serve(key: Key, port: u16, local: Arc<AtomicUsize>) {
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        Err(error) => {
            return tracing::error!(service = %key, port, %error, "cannot listen on the health check node port");
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(answer(stream, key.clone(), local.load(Ordering::Relaxed)))),
            // No file descriptors left: let some connections end first.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(mut stream: TcpStream, key: Key, local: usize) {
    let exchange = async {
        let (mut request, mut chunk) = (Vec::new(), [0; 1024]);
        while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_MAX {
            match stream.read(&mut chunk).await? {
                0 => break,
                n => request.extend_from_slice(&chunk[..n]),
            }
        }
        stream.write_all(response(&key, local).as_bytes()).await?;
        stream.shutdown().await
    };
    // A client that goes away or dawdles is none of our business.
    let _ = tokio::time::timeout(REQUEST_TIMEOUT, exchange).await;
}

fn response(key: &Key, local: usize) -> String {
    let status = if local > 0 { "200 OK" } else { "503 Service Unavailable" };
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{}\",\n\t\t\"name\": \"{}\"\n\t}},\n\t\"localEndpoints\": {local},\n\t\"serviceProxyHealthy\": true\n}}",
        key.namespace, key.name
    );
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: {local}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_unavailable_without_endpoints() {
        let key = Key::new("ns", "web");
        assert!(response(&key, 0).starts_with("HTTP/1.1 503 "));
        let text = response(&key, 2);
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n")
                && text.contains("Weight: 2\r\n")
                && text.contains("\"localEndpoints\": 2")
        );
    }
}
