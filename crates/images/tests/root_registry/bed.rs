//! Registries for the tests: Debian's `docker-registry` on free ports of the loopback, images pushed into them,
//! and a relay that breaks connections.

use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

pub fn sh(script: &str) -> String {
    let out = Command::new("sh").arg("-euc").arg(script).output().unwrap();
    assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// Installs a Debian package if its program is missing; fails where that fails.
fn need(program: &str, package: &str) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap();
    sh(&format!(
        "command -v {program} || apt-get install -y {package} || {{ apt-get update && apt-get install -y {package}; }}"
    ));
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running registry; killed with this value.
pub struct Registry {
    pub port: u16,
    child: Child,
    /// What it logged so far.
    pub log: Arc<Mutex<String>>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Plain,
    Tls,
    Basic,
    #[allow(dead_code, reason = "only the end-to-end tests use it")]
    TlsBasic,
}

impl Registry {
    /// Starts a registry on the images in `dir/data` and waits until it listens.
    pub fn start(dir: &Path, kind: Kind, port: u16) -> Registry {
        need("docker-registry", "docker-registry");
        let mut text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            dir.join("data").display()
        );
        if matches!(kind, Kind::Tls | Kind::TlsBasic) {
            certificates(dir);
            let (key, crt) = (dir.join("tls.key"), dir.join("tls.crt"));
            text += &format!("  tls: {{certificate: {}, key: {}}}\n", crt.display(), key.display());
        }
        if matches!(kind, Kind::Basic | Kind::TlsBasic) {
            need("htpasswd", "apache2-utils");
            sh(&format!("htpasswd -nbB user secret > {}/htpasswd", dir.display()));
            text += &format!("auth: {{htpasswd: {{realm: test, path: {}/htpasswd}}}}\n", dir.display());
        }
        let config = dir.join(format!("{port}.yml"));
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        for line in lines.by_ref() {
            let line = line.unwrap() + "\n";
            log.lock().unwrap().push_str(&line);
            if line.contains("listening on") {
                let sink = log.clone();
                std::thread::spawn(move || {
                    lines.map_while(Result::ok).for_each(|line| *sink.lock().unwrap() += &(line + "\n"))
                });
                return Registry { port, child, log };
            }
        }
        let _ = child.wait();
        panic!("docker-registry ended:\n{}", log.lock().unwrap());
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.kill();
    }
}

fn certificates(dir: &Path) {
    need("openssl", "openssl");
    sh(&format!(
        r#"cd {}
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=registry -keyout tls.key -out tls.csr
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > ext
        openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out tls.crt"#,
        dir.display()
    ));
}

fn http(port: u16, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    (text.split(' ').nth(1).unwrap().parse().unwrap(), text)
}

fn push_blob(port: u16, repository: &str, bytes: &[u8]) {
    let (status, text) =
        http(port, "POST", &format!("/v2/{repository}/blobs/uploads/"), "application/octet-stream", b"");
    assert_eq!(status, 202, "{text}");
    let location = text.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().trim();
    let path = location.split_once("//").map_or(location, |(_, rest)| &rest[rest.find('/').unwrap()..]);
    let path = format!("{path}&digest={}", digest(bytes));
    let (status, text) = http(port, "PUT", &path, "application/octet-stream", bytes);
    assert_eq!(status, 201, "{text}");
}

pub fn push_manifest(port: u16, repository: &str, name: &str, document: &serde_json::Value) -> String {
    let bytes = document.to_string().into_bytes();
    let kind = document["mediaType"].as_str().unwrap();
    let (status, text) = http(port, "PUT", &format!("/v2/{repository}/manifests/{name}"), kind, &bytes);
    assert_eq!(status, 201, "{text}");
    digest(&bytes)
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn host_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// A tar with one file.
pub fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..len / 8).flat_map(|_| next().to_le_bytes()).collect()
}

/// Pushes an image of one gzip and one zstd layer; returns the manifest's digest.
pub fn push_image(port: u16, repository: &str, tag: &str, architecture: &str, big: usize) -> String {
    let first = tar_of("etc/name", format!("{repository}:{tag} {architecture}").as_bytes());
    let second = tar_of("noise", &noise(big));
    let packed = [(gzip(&first), "gzip"), (zstd::encode_all(&second[..], 1).unwrap(), "zstd")];
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/true"], "User": "7"},
        "rootfs": {"type": "layers", "diff_ids": [digest(&first), digest(&second)]},
    });
    let config = config.to_string().into_bytes();
    push_blob(port, repository, &config);
    packed.iter().for_each(|(bytes, _)| push_blob(port, repository, bytes));
    let layers: Vec<_> = packed
        .iter()
        .map(|(bytes, how)| {
            serde_json::json!({"mediaType": format!("application/vnd.oci.image.layer.v1.tar+{how}"), "digest": digest(bytes), "size": bytes.len()})
        })
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
    });
    push_manifest(port, repository, tag, &manifest)
}

/// A file of the registry's storage that holds a blob.
pub fn blob_file(dir: &Path, digest: &str) -> PathBuf {
    let hex = &digest[7..];
    dir.join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
}

/// Relays a port to a registry and breaks each of the first `cuts` connections that brought `after` bytes.
pub fn relay(to: u16, cuts: usize, after: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let left = Arc::new(Mutex::new(cuts));
    // Ends with the test's process: nothing is to be cleaned up.
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
            let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
            let left = left.clone();
            std::thread::spawn(move || pass(server, client, &left, after));
        }
    });
    port
}

fn pass(mut from: TcpStream, mut to: TcpStream, left: &Mutex<usize>, after: usize) {
    let (mut buffer, mut passed) = ([0; 16 << 10], 0);
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
        passed += n;
        let mut left = left.lock().unwrap();
        if passed >= after && *left > 0 {
            *left -= 1;
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

/// What a [`gate`] wants to see for a token, and the body of the token request where it is a POST.
pub enum Wants {
    Nothing,
    Basic(&'static str),
    Refresh(&'static str),
}

/// Stands before a registry and asks for the bearer token `good`, which it also hands out.
pub fn gate(to: u16, wants: Wants) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let wants = Arc::new(wants);
    // Ends with the test's process: nothing is to be cleaned up.
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let wants = wants.clone();
            std::thread::spawn(move || admit(client, port, to, &wants));
        }
    });
    port
}

fn admit(mut client: TcpStream, port: u16, to: u16, wants: &Wants) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let lower = head.to_lowercase();
    let say = |client: &mut TcpStream, status: &str, header: &str, body: &str| {
        let length = body.len();
        write!(client, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{header}\r\n{body}")
            .unwrap();
    };
    if head.contains(" /token") {
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        let granted = match wants {
            Wants::Nothing => {
                head.starts_with("GET /token?service=s&scope=repository%3At%3Apull ")
                    && !lower.contains("authorization:")
            }
            Wants::Basic(secret) => head.contains(&format!("Basic {secret}")),
            Wants::Refresh(token) => head.starts_with("POST") && body.contains(&format!("refresh_token={token}")),
        };
        return match granted {
            true => say(&mut client, "200 OK", "", "{\"access_token\":\"good\"}"),
            false => say(
                &mut client,
                "401 Unauthorized",
                "",
                "{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"no\"}]}",
            ),
        };
    }
    if !head.contains("Bearer good") {
        let error = if lower.contains("bearer") { ",error=\"insufficient_scope\"" } else { "" };
        let ask = format!("WWW-Authenticate: Bearer realm=\"http://localhost:{port}/token\",service=\"s\"{error}\r\n");
        return say(&mut client, "401 Unauthorized", &ask, "");
    }
    let mut server = TcpStream::connect(("127.0.0.1", to)).unwrap();
    server.write_all(head.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes()).unwrap();
    let _ = std::io::copy(&mut server, &mut client);
}
