//! Exec and attach over SPDY: one stream each for error, stdin, stdout, stderr and terminal sizes.

use super::connection::{self, Sender, Stream};
use crate::remote_command::{Output, Remote, Wants, status_text};
use crate::{Body, websocket};
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use std::time::Duration;
use tokio::sync::mpsc;

const PROTOCOLS: [&str; 5] =
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// How long the client may take to open all its streams.
const CREATION: Duration = Duration::from_secs(30);
const QUEUE: usize = 8;

#[derive(Default)]
struct Streams {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

impl Streams {
    fn put(&mut self, stream: Stream) {
        let place = match stream.header("streamtype") {
            Some("error") => &mut self.error,
            Some("stdin") => &mut self.stdin,
            Some("stdout") => &mut self.stdout,
            Some("stderr") => &mut self.stderr,
            Some("resize") => &mut self.resize,
            _ => return,
        };
        *place = Some(stream);
    }

    fn complete(&self, wants: Wants, resize: bool) -> bool {
        self.error.is_some()
            && (!wants.stdin || self.stdin.is_some())
            && (!wants.stdout || self.stdout.is_some())
            && (!wants.stderr || self.stderr.is_some())
            && (!(wants.tty && resize) || self.resize.is_some())
    }
}

/// Upgrades the request and runs the session.
pub fn upgrade<F, Fut>(request: Request<Incoming>, wants: Wants, session: F) -> Response<Body>
where
    F: FnOnce(Remote) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let protocol = super::choose(request.headers(), &PROTOCOLS).unwrap_or("");
    // Statuses are JSON from v4 on, terminal sizes come from v3 on.
    let structured = ["v5.channel.k8s.io", "v4.channel.k8s.io"].contains(&protocol);
    let resize = structured || protocol == "v3.channel.k8s.io";
    super::accept(request, &PROTOCOLS, move |io| async move {
        let Ok(mut incoming) = connection::serve(io) else { return };
        let mut streams = Streams::default();
        let all = async {
            while !streams.complete(wants, resize) {
                match incoming.recv().await {
                    Some(stream) => streams.put(stream),
                    None => return false,
                }
            }
            true
        };
        if !matches!(tokio::time::timeout(CREATION, all).await, Ok(true)) {
            return;
        }
        let (stdin, from_client) = mpsc::channel(QUEUE);
        let (sizes, resize) = mpsc::channel(QUEUE);
        let (output, to_client) = mpsc::channel(QUEUE);
        let remote = Remote { stdin: from_client, resize, output };
        tokio::join!(session(remote), carry(streams, stdin, sizes, to_client, structured));
        // The client closes the connection when it has read the streams' ends.
        let _ = tokio::time::timeout(CREATION, async { while incoming.recv().await.is_some() {} }).await;
    })
}

async fn carry(
    streams: Streams,
    stdin: mpsc::Sender<Bytes>,
    sizes: mpsc::Sender<cri::TerminalSize>,
    mut output: mpsc::Receiver<Output>,
    structured: bool,
) {
    let Some(error) = streams.error else { return };
    let input = tokio::spawn(forward(streams.stdin, stdin));
    let resize = tokio::spawn(forward_sizes(streams.resize, sizes));
    let sender = |stream: &Option<Stream>| stream.as_ref().map(|s| s.sender.clone());
    let (stdout, stderr) = (sender(&streams.stdout), sender(&streams.stderr));
    let gone = error.sender.clone();
    loop {
        let out = tokio::select! {
            out = output.recv() => out,
            () = gone.closed() => None,
        };
        let sent = match out {
            Some(Output::Stdout(part)) => send(&stdout, part).await,
            Some(Output::Stderr(part)) => send(&stderr, part).await,
            Some(Output::Status(status)) => {
                let text = status_text(&status, structured);
                if !text.is_empty() {
                    error.sender.send(text.into()).await;
                }
                false
            }
            None => false,
        };
        if !sent {
            break;
        }
    }
    output.close();
    input.abort();
    resize.abort();
    for sender in [stdout, stderr, Some(error.sender.clone())].into_iter().flatten() {
        sender.close().await;
    }
}

async fn send(to: &Option<Sender>, part: Bytes) -> bool {
    match to {
        Some(sender) => sender.send(part).await,
        None => true,
    }
}

async fn forward(from: Option<Stream>, to: mpsc::Sender<Bytes>) {
    let Some(mut from) = from else { return std::future::pending().await };
    while let Some(part) = from.receiver.recv().await {
        if to.send(part).await.is_err() {
            return;
        }
    }
}

async fn forward_sizes(from: Option<Stream>, to: mpsc::Sender<cri::TerminalSize>) {
    let Some(mut from) = from else { return };
    let mut pending = Vec::new();
    while let Some(part) = from.receiver.recv().await {
        // Sizes are JSON objects one after the other; a frame may hold a part of one.
        pending.extend_from_slice(&part);
        while let Some(end) = pending.iter().position(|b| *b == b'}') {
            let text: Vec<u8> = pending.drain(..=end).collect();
            if let Some(size) = websocket::terminal_size(text.trim_ascii()) {
                let _ = to.send(size).await;
            }
        }
        if pending.len() > 1024 {
            return;
        }
    }
}
