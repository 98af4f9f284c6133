//! Port-forward over SPDY: for each connection a data and an error stream with the same `requestID`.

use super::connection::{self, Stream};
use crate::Body;
use crate::port_forward::Forwarder;
use http::{Request, Response};
use hyper::body::Incoming;
use std::collections::HashMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;

const PROTOCOLS: [&str; 1] = ["portforward.k8s.io"];
const CHUNK: usize = 16 * 1024;
/// Requests of which only one stream has come.
const MAX_HALF_OPEN: usize = 256;

#[derive(Default)]
struct Pair {
    data: Option<Stream>,
    error: Option<Stream>,
}

/// Upgrades the request and forwards.
pub fn upgrade(request: Request<Incoming>, forwarder: Forwarder) -> Response<Body> {
    super::accept(request, &PROTOCOLS, |io| serve(io, forwarder))
}

/// Forwards over a connection until the client closes it.
pub async fn serve<T: AsyncRead + AsyncWrite + Send + 'static>(io: T, forwarder: Forwarder) {
    let Ok(mut incoming) = connection::serve(io) else { return };
    let (mut pairs, mut forwards): (HashMap<String, Pair>, _) = (HashMap::new(), JoinSet::new());
    loop {
        tokio::select! {
            stream = incoming.recv() => {
                let Some(stream) = stream else { return };
                if pairs.len() >= MAX_HALF_OPEN {
                    stream.sender.reset().await;
                    continue;
                }
                let id = stream.header("requestid").unwrap_or_default().to_owned();
                let pair = pairs.entry(id.clone()).or_default();
                match stream.header("streamtype") {
                    Some("data") => pair.data = Some(stream),
                    Some("error") => pair.error = Some(stream),
                    _ => stream.sender.reset().await,
                }
                let complete = pair.data.is_some() && pair.error.is_some();
                if complete && let Some(Pair { data: Some(data), error: Some(error) }) = pairs.remove(&id) {
                    forwards.spawn(forward(forwarder.clone(), data, error));
                }
            }
            Some(_) = forwards.join_next() => {}
        }
    }
}

async fn forward(forwarder: Forwarder, data: Stream, error: Stream) {
    let port = data.header("port").and_then(|p| p.parse::<u16>().ok()).filter(|p| *p > 0);
    let connected = match port {
        Some(port) => forwarder.connect(port).await,
        None => Err(format!("invalid port {}", data.header("port").unwrap_or_default())),
    };
    match connected {
        Ok(stream) => carry(stream, data).await,
        Err(why) => {
            error.sender.send(why.into()).await;
            data.sender.reset().await;
        }
    }
    error.sender.close().await;
}

async fn carry(stream: Box<dyn cri::Duplex>, data: Stream) {
    let (mut from, mut to) = tokio::io::split(stream);
    let Stream { mut receiver, sender, .. } = data;
    let incoming = async {
        while let Some(part) = receiver.recv().await {
            if to.write_all(&part).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let outgoing = async {
        let mut chunk = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            if !sender.send(bytes::Bytes::copy_from_slice(&chunk[..count])).await {
                return;
            }
        }
        sender.close().await;
    };
    // The pod's end closes the connection; the client's end only its half.
    tokio::select! {
        () = outgoing => {}
        () = async { incoming.await; sender.closed().await } => {}
    }
}
