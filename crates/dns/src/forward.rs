//! Asking the upstream resolvers.

use hickory_proto::op::{Message, MessageType};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Less than a client's own 5 s, so that the next upstream gets its turn.
const TIMEOUT: Duration = Duration::from_millis(1500);
const ROUNDS: usize = 2;
/// Bounds memory and sockets, and what a loop between resolvers could do.
const IN_FLIGHT: usize = 512;
const UDP_MAX: usize = 4096;

/// How a query came, and so how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

pub(crate) struct Forwarder {
    upstreams: Vec<SocketAddr>,
    slots: Semaphore,
}

impl Forwarder {
    pub fn new(upstreams: Vec<SocketAddr>) -> Forwarder {
        Forwarder { upstreams, slots: Semaphore::new(IN_FLIGHT) }
    }

    /// Asks one upstream after the other; `None` when none answers.
    pub async fn ask(&self, query: &Message, transport: Transport) -> Option<Message> {
        let _slot = self.slots.try_acquire().ok()?;
        let mut request = query.clone();
        request.metadata.id = rand::random();
        let bytes = request.to_vec().ok()?;
        for upstream in self.upstreams.iter().cycle().take(self.upstreams.len() * ROUNDS) {
            let exchange = async {
                match transport {
                    Transport::Udp => udp(*upstream, &bytes, &request).await,
                    Transport::Tcp => tcp(*upstream, &bytes, &request).await,
                }
            };
            match timeout(TIMEOUT, exchange).await {
                Ok(Ok(mut answer)) => {
                    answer.metadata.id = query.metadata.id;
                    return Some(answer);
                }
                Ok(Err(error)) => tracing::debug!(%upstream, %error, "an upstream resolver failed"),
                Err(_) => tracing::debug!(%upstream, "an upstream resolver did not answer in time"),
            }
        }
        None
    }
}

/// A fresh socket per query: a random source port makes answers harder to forge.
async fn udp(upstream: SocketAddr, bytes: &[u8], request: &Message) -> io::Result<Message> {
    let any: SocketAddr =
        if upstream.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; UDP_MAX];
    loop {
        let received = socket.recv(&mut buffer).await?;
        // Anything that does not belong to the question may be a forgery: go on waiting.
        if let Some(answer) = accept(&buffer[..received], request) {
            return Ok(answer);
        }
    }
}

async fn tcp(upstream: SocketAddr, bytes: &[u8], request: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    stream.write_all(&framed).await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    accept(&buffer, request).ok_or_else(|| io::Error::other("the answer does not belong to the question"))
}

fn accept(bytes: &[u8], request: &Message) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let ours = answer.metadata.id == request.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == request.queries;
    ours.then_some(answer)
}
