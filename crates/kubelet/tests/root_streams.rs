//! The kubelet's API: logs, exec and port-forward with the real kubectl (SPDY or WebSocket, as its version does) and
//! with a bare WebSocket; who may call it. The API server and TLS are real, the runtime is in memory.

mod support;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use support::Cluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

async fn with_pod() -> Cluster {
    let cluster = Cluster::start().await;
    cluster
        .create("p", json!({"containers": [{"name": "c", "image": "busybox:1", "command": ["run"], "stdin": true}]}))
        .await;
    cluster.phase("p", "Running").await;
    cluster
}

async fn kubectl(config: &std::path::Path, websockets: bool, arguments: &[&str], input: &str) -> (i32, String, String) {
    let (config, arguments, input) =
        (config.to_owned(), arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>(), input.to_owned());
    let run = move || {
        let mut child = Command::new("timeout")
            .args(["20", "kubectl", "--kubeconfig"])
            .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets.to_string())
            .arg(config)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this test needs kubectl on the PATH");
        std::io::Write::write_all(&mut child.stdin.take().expect("stdin"), input.as_bytes()).expect("write");
        let output = child.wait_with_output().expect("kubectl");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    };
    tokio::task::spawn_blocking(run).await.expect("join")
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_reads_logs_executes_and_forwards() {
    let cluster = with_pod().await;
    let config = cluster.kubeconfig().await;
    for websockets in [true, false] {
        let check = async |arguments: &[&str], input: &str, expect: (i32, &str)| {
            let (mut code, mut out, mut err) = kubectl(&config, websockets, arguments, input).await;
            // An answer that comes before an older kubectl has made its streams is lost by it, and it says so.
            while err.contains("Unknown stream id") {
                (code, out, err) = kubectl(&config, websockets, arguments, input).await;
            }
            assert_eq!((code, out.as_str()), expect, "{arguments:?} {websockets}: {err}");
        };
        check(&["logs", "p"], "", (0, "one\ntwo\n")).await;
        check(&["logs", "p", "--tail=1", "--timestamps"], "", (0, "2026-01-01T00:00:02.000000000Z two\n")).await;
        check(&["exec", "p", "--", "echo", "hi"], "", (0, "echo hi")).await;
        check(&["exec", "-i", "p", "--", "cat"], "through the pipe", (0, "through the pipe")).await;
        let (code, _, err) = kubectl(&config, websockets, &["exec", "p", "--", "exit", "7"], "").await;
        assert_eq!((code, err.contains("exit code 7")), (7, true), "{err}");
        forward(&config, websockets).await;
    }
    let (_, _, err) = kubectl(&config, false, &["-v=8", "exec", "p", "--", "echo"], "").await;
    assert!(err.contains("SPDY/3.1"), "kubectl was to speak SPDY: {err}");
    let (code, _, err) = kubectl(&config, true, &["logs", "p", "--previous"], "").await;
    assert!(code != 0 && err.contains("previous terminated container \"c\" in pod \"p\" not found"), "{err}");
}

async fn forward(config: &std::path::Path, websockets: bool) {
    let mut child = tokio::process::Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(config)
        .args(["port-forward", "pod/p", ":80"])
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets.to_string())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("kubectl");
    let mut line = [0; 256];
    let count = child.stdout.as_mut().expect("stdout").read(&mut line).await.expect("read");
    let text = String::from_utf8_lossy(&line[..count]).into_owned();
    let port =
        text.split("127.0.0.1:").nth(1).and_then(|t| t.split(' ').next()).expect("port").parse::<u16>().expect("port");
    for _ in 0..2 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connect");
        stream.write_all(b"echoed").await.expect("write");
        let mut back = [0; 6];
        stream.read_exact(&mut back).await.expect("read");
        assert_eq!(&back, b"echoed");
    }
}

async fn connect(cluster: &Cluster, user: &str, groups: &[&str]) -> tokio_rustls::client::TlsStream<TcpStream> {
    let stream = TcpStream::connect(cluster.kubelet_address()).await.expect("connect");
    let connector = tokio_rustls::TlsConnector::from(cluster.tls(user, groups));
    connector.connect("127.0.0.1".try_into().expect("name"), stream).await.expect("tls")
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_carry_channels() {
    let cluster = with_pod().await;
    let stream = connect(&cluster, "kube-apiserver-kubelet-client", &["system:masters"]).await;
    let mut request =
        "wss://127.0.0.1/exec/default/p/c?command=cat&input=1&output=1&error=1".into_client_request().expect("request");
    request.headers_mut().insert("sec-websocket-protocol", "v5.channel.k8s.io".parse().expect("header"));
    let (mut socket, answer) = tokio_tungstenite::client_async(request, stream).await.expect("upgrade");
    assert_eq!(answer.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    socket.send(Message::Binary(b"\x00hello".as_slice().into())).await.expect("send");
    socket.send(Message::Binary(b"\xff\x00".as_slice().into())).await.expect("close stdin");
    let (mut out, mut status) = (Vec::new(), Value::Null);
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(bytes) = message else { continue };
        match bytes.split_first() {
            Some((1, part)) => out.extend_from_slice(part),
            Some((3, text)) => status = serde_json::from_slice(text).expect("status"),
            _ => {}
        }
    }
    assert_eq!(out, b"hello");
    assert_eq!(status, json!({"metadata": {}, "status": "Success"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_who_may_call_it() {
    let cluster = with_pod().await;
    for (user, groups, path, expect) in [
        ("kube-apiserver-kubelet-client", ["system:masters"].as_slice(), "/pods", 200),
        ("kube-apiserver-kubelet-client", &["system:masters"], "/stats/summary", 200),
        ("kube-apiserver-kubelet-client", &["system:masters"], "/nothing", 404),
        ("nobody", &[], "/pods", 403),
        ("nobody", &[], "/containerLogs/default/p/c", 403),
        ("nobody", &[], "/exec/default/p/c?command=x&output=1", 403),
        ("nobody", &[], "/healthz", 403),
    ] {
        let mut stream = connect(&cluster, user, groups).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {expect}")), "{user} {path}: {answer}");
    }
}
