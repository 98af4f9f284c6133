//! Exec and attach: a container's streams joined to a client's, whatever carries them.

use super::{Body, Query, spdy, text, websocket};
use bytes::Bytes;
use cri::{ExecRequest, Streams, TerminalSize};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

const CHUNK: usize = 32 * 1024;
/// How long output is waited for after the process has ended: a child may hold its streams.
const DRAIN: Duration = Duration::from_secs(2);

/// What goes to the client.
#[derive(Debug)]
pub enum Output {
    /// Standard output.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
    /// The last word.
    Status(Value),
}

/// The client's ends.
pub struct Remote {
    /// Its input; ends with its end.
    pub stdin: mpsc::Receiver<Bytes>,
    /// Its terminal's sizes.
    pub resize: mpsc::Receiver<TerminalSize>,
    /// Where output goes; the connection is closed after the status.
    pub output: mpsc::Sender<Output>,
}

/// Which streams a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Input.
    pub stdin: bool,
    /// Output.
    pub stdout: bool,
    /// Errors.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

impl Wants {
    /// What a query asks for; `stdin` and `input` and so on mean the same.
    pub fn of(query: &Query) -> Self {
        let flag = |name: &str| query.iter().find(|(n, _)| n == name).is_some_and(|(_, v)| v == "1" || v == "true");
        let either = |a: &str, b: &str| flag(a) || flag(b);
        let tty = flag("tty");
        Self {
            stdin: either("input", "stdin"),
            stdout: either("output", "stdout"),
            // A terminal has one output.
            stderr: either("error", "stderr") && !tty,
            tty,
        }
    }

    /// The request of an exec session (without a command: of attach).
    pub fn request(self, container_id: String, cmd: Vec<String>) -> ExecRequest {
        let Self { stdin, stdout, stderr, tty } = self;
        ExecRequest { container_id, cmd, tty, stdin, stdout, stderr }
    }

    /// Whether there is nothing to carry, which no client means.
    pub fn is_empty(self) -> bool {
        !(self.stdin || self.stdout || self.stderr)
    }
}

/// Upgrades the request and joins the client to the streams that `open` gives (of exec).
pub fn serve<F>(request: Request<Incoming>, wants: Wants, open: F) -> Response<Body>
where
    F: Future<Output = cri::Result<Streams>> + Send + 'static,
{
    upgrade(request, wants, move |remote| async move { run(open.await, remote).await })
}

/// As [`serve`], for attach: it ends well whatever the container's exit code is.
pub fn serve_attach<F>(request: Request<Incoming>, wants: Wants, open: F) -> Response<Body>
where
    F: Future<Output = cri::Result<Streams>> + Send + 'static,
{
    serve(request, wants, async { open.await.map(|streams| Streams { exit: without_code(streams.exit), ..streams }) })
}

fn without_code(
    exit: tokio::sync::oneshot::Receiver<cri::Result<i32>>,
) -> tokio::sync::oneshot::Receiver<cri::Result<i32>> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let ended = match exit.await {
            Ok(Err(error)) => Err(error),
            _ => Ok(0),
        };
        drop(sender.send(ended));
    });
    receiver
}

/// Answers with the upgrade the client asks for, and runs the session on the new connection.
fn upgrade<F, Fut>(request: Request<Incoming>, wants: Wants, session: F) -> Response<Body>
where
    F: FnOnce(Remote) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    if websocket::is_upgrade(request.headers()) {
        return websocket::remote_command(request, wants, session);
    }
    if spdy::is_upgrade(&request) {
        return spdy::remote_command::upgrade(request, wants, session);
    }
    text(StatusCode::BAD_REQUEST, "Upgrade request required")
}

/// The status as older protocols say it: nothing of a success, otherwise the message.
pub(crate) fn status_text(status: &serde_json::Value, structured: bool) -> String {
    match status["status"].as_str() {
        _ if structured => status.to_string(),
        Some("Success") => String::new(),
        _ => status["message"].as_str().unwrap_or_default().to_owned(),
    }
}

/// Carries bytes both ways until the process ends, then sends the status.
async fn run(streams: cri::Result<Streams>, remote: Remote) {
    let Remote { stdin, resize, output } = remote;
    let streams = match streams {
        Ok(streams) => streams,
        Err(error) => return drop(output.send(Output::Status(internal_error(&error.to_string()))).await),
    };
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(forward_input(streams.stdin, stdin));
    tasks.spawn(forward_sizes(streams.resize, resize));
    let (ended, has_ended) = tokio::sync::watch::channel(false);
    let out = tokio::spawn(copy(streams.stdout, output.clone(), Output::Stdout, has_ended.clone()));
    let err = tokio::spawn(copy(streams.stderr, output.clone(), Output::Stderr, has_ended));
    let exit = tokio::select! {
        exit = streams.exit => exit.unwrap_or_else(|_| Err(cri::Error::Internal("the session was lost".into()))),
        // The client has gone; the process is left to end by itself.
        () = output.closed() => return,
    };
    ended.send_replace(true);
    let _ = tokio::join!(out, err);
    drop(output.send(Output::Status(status(exit))).await);
}

async fn forward_input(to: Option<cri::Writer>, mut from: mpsc::Receiver<Bytes>) {
    let Some(mut to) = to else { return };
    while let Some(part) = from.recv().await {
        if to.write_all(&part).await.is_err() || to.flush().await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

async fn forward_sizes(to: Option<mpsc::Sender<TerminalSize>>, mut from: mpsc::Receiver<TerminalSize>) {
    let Some(to) = to else { return };
    while let Some(size) = from.recv().await {
        if to.send(size).await.is_err() {
            return;
        }
    }
}

async fn copy(
    from: Option<cri::Reader>,
    to: mpsc::Sender<Output>,
    wrap: fn(Bytes) -> Output,
    mut ended: tokio::sync::watch::Receiver<bool>,
) {
    let Some(mut from) = from else { return };
    let mut chunk = vec![0; CHUNK];
    loop {
        let drained = async {
            let _ = ended.wait_for(|ended| *ended).await;
            tokio::time::sleep(DRAIN).await;
        };
        let count = tokio::select! {
            biased;
            read = from.read(&mut chunk) => read.unwrap_or(0),
            () = drained => 0,
        };
        if count == 0 || to.send(wrap(Bytes::copy_from_slice(&chunk[..count]))).await.is_err() {
            return;
        }
    }
}

fn status(exit: cri::Result<i32>) -> Value {
    match exit {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: command terminated with exit code {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}}),
        Err(error) => internal_error(&format!("error executing command in container: {error}")),
    }
}

fn internal_error(why: &str) -> Value {
    json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": format!("Internal error occurred: {why}"), "details": {"causes": [{"message": why}]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_carries_bytes_and_ends_with_the_code() {
        let (mut process_in, stdin) = tokio::io::duplex(64);
        let (stdout, mut process_out) = tokio::io::duplex(64);
        let (exit, exited) = tokio::sync::oneshot::channel();
        let streams = Streams {
            stdin: Some(Box::new(stdin)),
            stdout: Some(Box::new(stdout)),
            stderr: None,
            resize: None,
            exit: exited,
        };
        let (to_stdin, from_client) = mpsc::channel(1);
        let (_sizes, resize) = mpsc::channel(1);
        let (output, mut to_client) = mpsc::channel(8);
        tokio::spawn(run(Ok(streams), Remote { stdin: from_client, resize, output }));
        to_stdin.send(Bytes::from_static(b"hi")).await.expect("stdin");
        drop(to_stdin);
        let mut input = Vec::new();
        process_in.read_to_end(&mut input).await.expect("read");
        assert_eq!(input, b"hi");
        process_out.write_all(b"out").await.expect("write");
        drop(process_out);
        exit.send(Ok(3)).expect("exit");
        assert!(matches!(to_client.recv().await, Some(Output::Stdout(b)) if &b[..] == b"out"));
        let Some(Output::Status(status)) = to_client.recv().await else { panic!("no status") };
        assert_eq!(status["details"]["causes"][0]["message"], "3");
        assert!(to_client.recv().await.is_none());
    }
}
