//! `sagong image pull` from Debian's `docker-registry` with TLS and passwords.

#[path = "../../images/tests/root_registry/bed.rs"]
#[allow(dead_code)]
mod bed;

use anyhow::{Result, ensure};
use bed::{Kind, Registry, free_port, push_image};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where the program looks for hosts of registries.
const CERTS: &str = "/etc/sagong/certs.d";

/// The configuration of one host; removed when dropped.
struct Hosts(PathBuf);

impl Hosts {
    fn write(domain: &str, text: &str) -> Result<Self> {
        let hosts = Self(Path::new(CERTS).join(domain));
        std::fs::create_dir_all(&hosts.0)?;
        std::fs::write(hosts.0.join("hosts.toml"), text)?;
        Ok(hosts)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(data: &Path, password: Option<&str>, image: &str) -> Result<Child> {
    let mut command = Command::new(e2e::sagong());
    command.args(["image", "pull"]).env("SAGONG_DATA_DIR", data);
    if password.is_some() {
        command.args(["--username", "user", "--password-stdin"]);
    }
    let mut child =
        command.arg(image).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let (Some(mut stdin), Some(password)) = (child.stdin.take(), password) {
        stdin.write_all(password.as_bytes())?;
    }
    Ok(child)
}

/// What the command says, and whether it succeeded.
fn pull(data: &Path, password: Option<&str>, image: &str) -> Result<(bool, String)> {
    let output = start(data, password, image)?.wait_with_output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

/// Size of the largest file below a directory.
fn largest(dir: &Path) -> u64 {
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => largest(&entry.path()),
        found => found.map_or(0, |file| file.len()),
    };
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(size).max().unwrap_or(0)
}

#[test]
fn images_are_pulled_by_those_who_may() -> Result<()> {
    let (dir, data) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let plain = Registry::start(dir.path(), Kind::Plain, free_port());
    let digest = push_image(plain.port, "t", "1", bed::host_architecture(), 1 << 20);
    push_image(plain.port, "t", "large", bed::host_architecture(), 256 << 20);
    let mut registry = Registry::start(dir.path(), Kind::TlsBasic, free_port());
    let port = registry.port;
    let (domain, authority) = (format!("localhost:{port}"), dir.path().join("ca.crt"));
    let server = format!("server = \"https://{domain}\"\n[host.\"https://{domain}\"]\n  ca = {authority:?}\n");
    let _hosts = Hosts::write(&domain, &server)?;
    let image = |reference: &str| format!("{domain}/t{reference}");
    let refused = |password: Option<&str>, text: &str| -> Result<()> {
        let (done, said) = pull(data.path(), password, &image(":1"))?;
        assert!(!done && said.contains(text), "{said}");
        Ok(())
    };
    refused(None, "no basic auth credentials")?;
    refused(Some("wrong"), "401 Unauthorized")?;
    for reference in [":1".to_owned(), format!("@{digest}")] {
        let (done, said) = pull(data.path(), Some("secret"), &image(&reference))?;
        assert!(done && said.contains("Pulled "), "{said}");
    }
    let mirror = format!("server = \"https://mirrored.example\"\n[host.\"http://localhost:{}\"]\n", plain.port);
    let _mirror = Hosts::write("mirrored.example", &mirror)?;
    let (done, said) = pull(data.path(), None, "mirrored.example/t:1")?;
    assert!(done, "{said}");
    // The registry dies in the middle; with the next one the pull goes on from where it was.
    let mut child = start(data.path(), Some("secret"), &image(":large"))?;
    while largest(&data.path().join("images/tmp")) < 1 << 20 {
        ensure!(child.try_wait()?.is_none(), "the pull ended before its registry did");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    registry.kill();
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("failed to copy"), "{said}");
    assert!(largest(&data.path().join("images/partial")) > 0, "the beginning is kept");
    let _again = Registry::start(dir.path(), Kind::TlsBasic, port);
    let (done, said) = pull(data.path(), Some("secret"), &image(":large"))?;
    assert!(done, "{said}");
    Ok(())
}
