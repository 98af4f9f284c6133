//! Port-forward: SPDY, SPDY inside WebSocket (what kubectl speaks), and the old channels of WebSocket.

use super::websocket::{self, Socket};
use super::{Body, Query, spdy, text};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: [&str; 2] = ["v4.channel.k8s.io", "channel.k8s.io"];
const CHUNK: usize = 32 * 1024;
/// Most ports of one old-style WebSocket: two channels each.
const MAX_PORTS: usize = 127;

/// What connects to ports of one sandbox.
#[derive(Clone)]
pub struct Forwarder {
    /// The runtime.
    pub runtime: Arc<dyn cri::RuntimeService>,
    /// Its sandbox.
    pub sandbox: String,
}

impl Forwarder {
    /// Connects to a port; the error is for the client.
    pub async fn connect(&self, port: u16) -> Result<Box<dyn cri::Duplex>, String> {
        let connected = self.runtime.port_forward(&self.sandbox, port).await;
        connected.map_err(|error| format!("error forwarding port {port} to pod {}, uid : {error}", self.sandbox))
    }
}

/// Upgrades the request and forwards.
pub fn serve(request: Request<Incoming>, query: &Query, forwarder: Forwarder) -> Response<Body> {
    if websocket::is_upgrade(request.headers()) {
        if websocket::choose(request.headers(), &[TUNNEL]).is_some() {
            return websocket::accept(request, Some(TUNNEL), |socket| async move {
                spdy::port_forward::serve(websocket::byte_stream(socket), forwarder).await;
            });
        }
        let ports = match ports(query) {
            Ok(ports) => ports,
            Err(why) => return text(StatusCode::BAD_REQUEST, why),
        };
        let protocol = websocket::choose(request.headers(), &CHANNELS);
        return websocket::accept(request, protocol, |socket| channels(socket, forwarder, ports));
    }
    if spdy::is_upgrade(&request) {
        return spdy::port_forward::upgrade(request, forwarder);
    }
    text(StatusCode::BAD_REQUEST, "Upgrade request required")
}

/// The ports of the old protocol: in one parameter, with commas, or in several.
fn ports(query: &Query) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for (_, value) in query.iter().filter(|(name, _)| name == "port" || name == "ports") {
        if value.is_empty() {
            return Err("query parameter \"port\" cannot be empty".into());
        }
        for part in value.split(',') {
            match part.parse() {
                Ok(0) => return Err(format!("port {value:?} must be > 0")),
                Ok(port) => ports.push(port),
                Err(_) => return Err(format!("unable to parse {value:?} as a port: {}", syntax(part))),
            }
        }
    }
    match ports.len() {
        0 => Err("query parameter \"port\" is required".into()),
        1..=MAX_PORTS => Ok(ports),
        _ => Err(format!("no more than {MAX_PORTS} ports share a connection")),
    }
}

/// What Go says of a text that is no number of 16 bits.
fn syntax(text: &str) -> String {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let why = if digits { "value out of range" } else { "invalid syntax" };
    format!("strconv.ParseUint: parsing {text:?}: {why}")
}

/// The old protocol: channel 2i carries data of the ith port, 2i + 1 its error; each begins with the port.
async fn channels(socket: Socket, forwarder: Forwarder, ports: Vec<u16>) {
    let (mut sink, mut source) = socket.split();
    let (output, mut frames) = mpsc::channel::<Bytes>(8);
    let mut inputs = HashMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    for (i, port) in ports.into_iter().enumerate() {
        let (data, error) = (u8::try_from(i * 2).unwrap_or(u8::MAX), u8::try_from(i * 2 + 1).unwrap_or(u8::MAX));
        for channel in [data, error] {
            let [low, high] = port.to_le_bytes();
            if sink.send(Message::Binary(Bytes::copy_from_slice(&[channel, low, high]))).await.is_err() {
                return;
            }
        }
        let (input, from_client) = mpsc::channel(8);
        inputs.insert(data, input);
        tasks.spawn(one_port(forwarder.clone(), port, [data, error], from_client, output.clone()));
    }
    drop(output);
    loop {
        tokio::select! {
            frame = frames.recv() => match frame {
                Some(frame) => if sink.send(Message::Binary(frame)).await.is_err() { break },
                None => break,
            },
            message = source.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    if let Some(input) = bytes.first().and_then(|channel| inputs.get(channel)) {
                        let _ = input.send(bytes.slice(1..)).await;
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    let _ = sink.send(websocket::goodbye()).await;
}

async fn one_port(
    forwarder: Forwarder,
    port: u16,
    [data, error]: [u8; 2],
    mut input: mpsc::Receiver<Bytes>,
    output: mpsc::Sender<Bytes>,
) {
    let frame = |channel: u8, bytes: &[u8]| Bytes::from([&[channel], bytes].concat());
    let stream = match forwarder.connect(port).await {
        Ok(stream) => stream,
        Err(why) => return drop(output.send(frame(error, why.as_bytes())).await),
    };
    let (mut from, mut to) = tokio::io::split(stream);
    let incoming = async {
        while let Some(part) = input.recv().await {
            if to.write_all(&part).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let outgoing = async {
        let mut chunk = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            if output.send(frame(data, &chunk[..count])).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = outgoing => {}
        () = async { incoming.await; std::future::pending().await } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        let check = |values: &[&str], expect: Result<Vec<u16>, &str>| {
            let query: Vec<_> = values.iter().map(|v| ("port".to_owned(), (*v).to_owned())).collect();
            assert_eq!(ports(&query), expect.map_err(str::to_owned), "{values:?}");
        };
        check(&["80"], Ok(vec![80]));
        check(&["8080,9", "1"], Ok(vec![8080, 9, 1]));
        check(&[], Err("query parameter \"port\" is required"));
        check(&[""], Err("query parameter \"port\" cannot be empty"));
        check(&["0"], Err("port \"0\" must be > 0"));
        check(&["a"], Err("unable to parse \"a\" as a port: strconv.ParseUint: parsing \"a\": invalid syntax"));
        check(
            &["65536"],
            Err("unable to parse \"65536\" as a port: strconv.ParseUint: parsing \"65536\": value out of range"),
        );
        check(&[&vec!["1"; 128].join(",")], Err("no more than 127 ports share a connection"));
    }
}
