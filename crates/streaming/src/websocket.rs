//! WebSocket upgrades: `v4.channel.k8s.io` and `v5.channel.k8s.io` for exec and attach, and a byte stream for SPDY in WebSocket.
//!
//! A message's first byte is the channel: 0 stdin, 1 stdout, 2 stderr, 3 status, 4 terminal sizes; in v5 the
//! message `255 <channel>` closes one.

use super::remote_command::{Output, Remote, Wants, status_text};
use super::{Body, text};
use base64::Engine;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, handshake};

const PROTOCOLS: [&str; 3] = ["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"];
const MAX_MESSAGE: usize = 1 << 20;
const PING: Duration = Duration::from_secs(5);
const QUEUE: usize = 8;

/// A WebSocket on an upgraded connection.
pub type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Whether a request asks for a WebSocket.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let value = headers.get(header::UPGRADE).and_then(|v| v.to_str().ok());
    value.is_some_and(|v| v.eq_ignore_ascii_case("websocket"))
}

/// The first protocol the client offers that is among the known ones.
pub fn choose<'a>(headers: &HeaderMap, known: &[&'a str]) -> Option<&'a str> {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    offered.flat_map(|v| v.split(',')).find_map(|o| known.iter().find(|k| **k == o.trim()).copied())
}

/// Answers with 101 and hands the socket to `session` when the connection is upgraded.
pub fn accept<F, Fut>(mut request: Request<Incoming>, protocol: Option<&'static str>, session: F) -> Response<Body>
where
    F: FnOnce(Socket) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let headers = match switch(request.headers(), protocol) {
        Ok(headers) => headers,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            session(socket(upgraded).await).await;
        }
    });
    let mut response = Response::new(Empty::<Bytes>::new().boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    response
}

/// The headers of the answer 101 (RFC 6455, 4.2.2), or why there cannot be one.
pub fn switch(from: &HeaderMap, protocol: Option<&'static str>) -> Result<HeaderMap, &'static str> {
    let key = from.get(header::SEC_WEBSOCKET_KEY).ok_or("missing Sec-WebSocket-Key")?;
    let accept = handshake::derive_accept_key(key.as_bytes());
    let accept = HeaderValue::from_str(&accept).map_err(|_| "invalid Sec-WebSocket-Key")?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok(headers)
}

async fn socket(upgraded: hyper::upgrade::Upgraded) -> Socket {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await
}

/// Sends what `chunks` yields as messages, text in base64 where that is the protocol, until either side ends.
pub async fn send_all<S>(upgraded: hyper::upgrade::Upgraded, as_base64: bool, mut chunks: S)
where
    S: futures::Stream<Item = Bytes> + Unpin,
{
    let (mut sink, mut source) = socket(upgraded).await.split();
    loop {
        tokio::select! {
            chunk = chunks.next() => {
                let Some(chunk) = chunk else { break };
                let message = match as_base64 {
                    true => Message::text(base64::engine::general_purpose::STANDARD.encode(&chunk)),
                    false => Message::Binary(chunk),
                };
                if sink.send(message).await.is_err() {
                    return;
                }
            }
            message = source.next() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    let _ = sink.send(goodbye()).await;
    let _ = tokio::time::timeout(PING, async { while let Some(Ok(_)) = source.next().await {} }).await;
}

/// Exec and attach over channels.
pub fn remote_command<F, Fut>(request: Request<Incoming>, wants: Wants, session: F) -> Response<Body>
where
    F: FnOnce(Remote) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let protocol = choose(request.headers(), &PROTOCOLS);
    if protocol.is_none() && request.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        return text(StatusCode::FORBIDDEN, "requested protocol(s) are not supported");
    }
    accept(request, protocol, move |socket| async move {
        let (stdin, from_client) = mpsc::channel(QUEUE);
        let (sizes, resize) = mpsc::channel(QUEUE);
        let (output, to_client) = mpsc::channel(QUEUE);
        let remote = Remote { stdin: from_client, resize, output };
        let structured = protocol.is_some_and(|p| p.starts_with("v4.") || p.starts_with("v5."));
        tokio::join!(session(remote), channels(socket, (wants, structured), stdin, sizes, to_client));
    })
}

async fn channels(
    socket: Socket,
    (wants, structured): (Wants, bool),
    stdin: mpsc::Sender<Bytes>,
    sizes: mpsc::Sender<cri::TerminalSize>,
    mut output: mpsc::Receiver<Output>,
) {
    let (mut sink, mut source) = socket.split();
    let mut stdin = wants.stdin.then_some(stdin);
    let mut pings = tokio::time::interval(PING);
    loop {
        tokio::select! {
            out = output.recv() => {
                let (channel, part, last) = match out {
                    Some(Output::Stdout(part)) => (1, part, false),
                    Some(Output::Stderr(part)) => (2, part, false),
                    Some(Output::Status(status)) => match status_text(&status, structured) {
                        text if text.is_empty() => break,
                        text => (3, Bytes::from(text), true),
                    },
                    None => break,
                };
                let mut message = BytesMut::with_capacity(part.len() + 1);
                message.extend_from_slice(&[channel]);
                message.extend_from_slice(&part);
                if sink.send(Message::Binary(message.freeze())).await.is_err() || last {
                    break;
                }
            }
            message = source.next() => match message {
                Some(Ok(Message::Binary(message))) => receive(message, &mut stdin, &sizes).await,
                Some(Ok(Message::Text(message))) => receive(Bytes::from(message), &mut stdin, &sizes).await,
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
            _ = pings.tick() => {
                if sink.send(Message::Ping(Bytes::new())).await.is_err() {
                    break;
                }
            }
        }
    }
    output.close();
    let _ = sink.send(goodbye()).await;
    // The client's close is waited for, so that nothing that was sent is cut off by a reset.
    let _ = tokio::time::timeout(PING, async { while let Some(Ok(_)) = source.next().await {} }).await;
}

/// A normal end (1000): clients take any other close for an error.
pub fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Default::default() }))
}

async fn receive(message: Bytes, stdin: &mut Option<mpsc::Sender<Bytes>>, sizes: &mpsc::Sender<cri::TerminalSize>) {
    match message.split_first() {
        Some((0, _)) => {
            if let Some(to) = stdin
                && message.len() > 1
            {
                let _ = to.send(message.slice(1..)).await;
            }
        }
        Some((4, size)) => {
            if let Some(size) = terminal_size(size) {
                let _ = sizes.send(size).await;
            }
        }
        Some((255, [0, ..])) => *stdin = None,
        _ => {}
    }
}

/// `{"Width":80,"Height":24}`
pub fn terminal_size(text: &[u8]) -> Option<cri::TerminalSize> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    let number = |name: &str| value.get(name)?.as_u64().and_then(|n| u16::try_from(n).ok());
    Some(cri::TerminalSize { width: number("Width")?, height: number("Height")? })
}

/// The bytes of binary messages as one stream (SPDY inside WebSocket).
pub fn byte_stream(socket: Socket) -> DuplexStream {
    let (near, far) = tokio::io::duplex(MAX_MESSAGE);
    tokio::spawn(async move {
        let (mut sink, mut source) = socket.split();
        let (mut from, mut to) = tokio::io::split(far);
        let outgoing = async {
            let mut chunk = vec![0; 32 * 1024];
            while let Ok(count @ 1..) = tokio::io::AsyncReadExt::read(&mut from, &mut chunk).await {
                if sink.send(Message::Binary(Bytes::copy_from_slice(&chunk[..count]))).await.is_err() {
                    return;
                }
            }
            let _ = sink.send(goodbye()).await;
        };
        let incoming = async {
            while let Some(Ok(message)) = source.next().await {
                let bytes = match message {
                    Message::Binary(bytes) => bytes,
                    Message::Close(_) => break,
                    _ => continue,
                };
                if tokio::io::AsyncWriteExt::write_all(&mut to, &bytes).await.is_err() {
                    break;
                }
            }
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut to).await;
        };
        tokio::join!(outgoing, incoming);
    });
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_chosen_in_the_clients_order() {
        let mut headers = HeaderMap::new();
        headers.append(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("x, v4.channel.k8s.io, v5.channel.k8s.io"),
        );
        assert_eq!(choose(&headers, &PROTOCOLS), Some("v4.channel.k8s.io"));
        assert_eq!(choose(&HeaderMap::new(), &PROTOCOLS), None);
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(terminal_size(br#"{"Width":80,"Height":24}"#), Some(cri::TerminalSize { width: 80, height: 24 }));
        assert_eq!(terminal_size(b"{}"), None);
    }
}
