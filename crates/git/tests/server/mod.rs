//! HTTP servers of the tests: git's own, and whatever a closure answers.

// Each test program uses its own part of this.
#![allow(dead_code)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// What a server says.
#[derive(Clone)]
pub enum Answer {
    Redirect(String),
    Status(u16),
    Body(&'static str, Vec<u8>),
    Endless(&'static str),
    /// Nothing, for as long as the client waits.
    Silence,
}

type Handler = Arc<dyn Fn(&str, Incoming, &mut TcpStream) + Send + Sync>;

/// A server on a port of its own; its thread ends with the test program.
pub struct Server(SocketAddr);

/// A request as it came.
pub struct Incoming {
    method: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Server {
    /// Serves every repository below a new directory.
    pub fn start() -> (tempfile::TempDir, Self) {
        let dir = tempfile::tempdir().expect("directory");
        let root = dir.path().to_owned();
        (dir, Self::listen(Arc::new(move |path, request, stream| backend(&root, path, request, stream))))
    }

    /// Answers every path as a closure says.
    pub fn answering(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::listen(Arc::new(move |path, _, stream| say(&answer(path), stream)))
    }

    pub fn url(&self, path: &str) -> String {
        self.url_from("127.0.0.1", path)
    }

    /// The URL for those who know this machine by another address.
    pub fn url_from(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.0.port())
    }

    fn listen(handler: Handler) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").expect("bind");
        let address = listener.local_addr().expect("address");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let handler = handler.clone();
                std::thread::spawn(move || serve(stream, &handler));
            }
        });
        Self(address)
    }
}

fn serve(mut stream: TcpStream, handler: &Handler) {
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    let mut line = String::new();
    reader.read_line(&mut line).expect("request line");
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("header");
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("body");
    handler(&path, Incoming { method, headers, body }, &mut stream);
}

fn say(answer: &Answer, stream: &mut TcpStream) {
    if matches!(answer, Answer::Silence) {
        let _ = stream.read(&mut [0]);
        return;
    }
    let head = |status: &str, more: String| format!("HTTP/1.1 {status}\r\nConnection: close\r\n{more}\r\n");
    let text = match answer {
        Answer::Redirect(to) => head("302 Found", format!("Location: {to}\r\nContent-Length: 0\r\n")),
        Answer::Status(code) => head(&format!("{code} No"), "Content-Length: 0\r\n".into()),
        Answer::Body(kind, body) => head("200 OK", format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len())),
        Answer::Silence => String::new(),
        Answer::Endless(kind) => head("200 OK", format!("Content-Type: {kind}\r\n")),
    };
    // The client may have enough of it at any time.
    let _ = stream.write_all(text.as_bytes());
    match answer {
        Answer::Body(_, body) => drop(stream.write_all(body)),
        Answer::Endless(_) => {
            let _ = stream.write_all(b"001e# service=git-upload-pack\n0000000eversion 2\n");
            let line = format!("fff0{}\n", "x".repeat(0xfff0 - 5));
            while stream.write_all(line.as_bytes()).is_ok() {}
        }
        _ => {}
    }
}

/// Runs git's CGI program.
fn backend(root: &Path, target: &str, request: Incoming, stream: &mut TcpStream) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .envs(environment())
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &request.method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("git http-backend");
    child.stdin.take().expect("stdin").write_all(&request.body).expect("body");
    let answer = child.wait_with_output().expect("output").stdout;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("headers") + 4;
    let (head, body) = answer.split_at(end);
    let head = String::from_utf8_lossy(head);
    let status = head.lines().find_map(|l| l.strip_prefix("Status: ")).unwrap_or("200 OK");
    let first = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    let _ = stream.write_all(&[first.as_bytes(), head.as_bytes(), body].concat());
}

/// Git without the configuration of whoever runs the tests.
fn environment() -> [(&'static str, &'static str); 7] {
    [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_SYSTEM", "/dev/null"),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "safe.directory"),
        ("GIT_CONFIG_VALUE_0", "*"),
        ("GIT_AUTHOR_NAME", "a"),
        ("GIT_COMMITTER_NAME", "c"),
    ]
}

/// Runs git in a directory; words are split at spaces.
pub fn git_in(dir: &Path, words: &str) -> String {
    let mail = [("GIT_AUTHOR_EMAIL", "a@b"), ("GIT_COMMITTER_EMAIL", "c@d")];
    let output = Command::new("git").args(words.split(' ')).current_dir(dir).envs(environment()).envs(mail).output();
    let output = output.expect("git is installed (apt-get install git)");
    assert!(output.status.success(), "git {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes an object, however broken, and returns its id.
pub fn object(dir: &Path, kind: &str, content: &[u8]) -> String {
    let mut child = Command::new("git")
        .args(["hash-object", "-w", "--literally", "-t", kind, "--stdin"])
        .current_dir(dir)
        .envs(environment())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git");
    child.stdin.take().expect("stdin").write_all(content).expect("content");
    String::from_utf8_lossy(&child.wait_with_output().expect("output").stdout).trim().to_owned()
}

/// Writes a tree that git itself would not make: `(mode, name, id)`.
pub fn tree(dir: &Path, entries: &[(&str, &str, &str)]) -> String {
    let mut content = Vec::new();
    for (mode, name, id) in entries {
        content.extend(format!("{} {name}\0", mode.trim_start_matches('0')).into_bytes());
        let byte = |i: usize| u8::from_str_radix(&id[i..i + 2], 16).expect("hexadecimal");
        content.extend((0..id.len()).step_by(2).map(byte));
    }
    object(dir, "tree", &content)
}
