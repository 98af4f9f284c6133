//! Images made from Debian's packages, as docker archives.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of the image with a shell.
pub const BUSYBOX: &str = "busybox:1.35";
/// Name of the image with a web server that answers with its host name.
pub const WEB: &str = "web:1";
/// A second version of the web server's image.
pub const WEB2: &str = "web:2";

/// Builds one layer and its configuration.
struct Builder {
    layer: tar::Builder<Vec<u8>>,
    made: BTreeSet<PathBuf>,
}

impl Builder {
    fn new() -> Self {
        Self { layer: tar::Builder::new(Vec::new()), made: BTreeSet::new() }
    }

    fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    }

    /// Makes a directory with its parents.
    fn dir(&mut self, path: &str, mode: u32) -> Result<()> {
        let relative = path.trim_start_matches('/');
        if let Some(parent) = Path::new(relative).parent().filter(|p| !p.as_os_str().is_empty()) {
            self.dir(&parent.to_string_lossy(), 0o755)?;
        }
        if self.made.insert(relative.into()) {
            let mut header = Self::header(tar::EntryType::Directory, mode, 0);
            self.layer.append_data(&mut header, format!("{relative}/"), std::io::empty())?;
        }
        Ok(())
    }

    fn parent(&mut self, path: &str) -> Result<()> {
        match Path::new(path).parent() {
            Some(parent) if parent != Path::new("/") => self.dir(&parent.to_string_lossy(), 0o755),
            _ => Ok(()),
        }
    }

    fn text(&mut self, path: &str, mode: u32, text: &[u8]) -> Result<()> {
        self.parent(path)?;
        let mut header = Self::header(tar::EntryType::Regular, mode, text.len() as u64);
        Ok(self.layer.append_data(&mut header, path.trim_start_matches('/'), text)?)
    }

    /// Copies a file of this machine, at the same path.
    fn copy(&mut self, path: &Path) -> Result<()> {
        if self.made.insert(path.into()) {
            let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
            self.text(&path.to_string_lossy(), 0o755, &text)?;
        }
        Ok(())
    }

    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.parent(path)?;
        let mut header = Self::header(tar::EntryType::Symlink, 0o777, 0);
        Ok(self.layer.append_link(&mut header, path.trim_start_matches('/'), target)?)
    }

    /// Copies a program with the libraries it is linked to.
    fn program(&mut self, path: &Path) -> Result<()> {
        self.copy(path)?;
        let output = Command::new("ldd").arg(path).output().context("run ldd")?;
        for word in String::from_utf8_lossy(&output.stdout).split_whitespace().filter(|w| w.starts_with('/')) {
            self.copy(Path::new(word))?;
        }
        Ok(())
    }

    /// Writes the docker archive.
    fn save(self, file: &Path, name: &str, config: Value) -> Result<()> {
        let layer = self.layer.into_inner()?;
        let diff_id = format!("sha256:{:x}", HexDigest(&Sha256::digest(&layer)));
        let config = json!({"architecture": arch(), "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
        let config = serde_json::to_vec(&config)?;
        let config_name = format!("{:x}.json", HexDigest(&Sha256::digest(&config)));
        let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]);
        let mut archive = tar::Builder::new(File::create(file)?);
        for (name, text) in
            [(config_name.as_str(), &config), ("layer.tar", &layer), ("manifest.json", &serde_json::to_vec(&manifest)?)]
        {
            let mut header = Self::header(tar::EntryType::Regular, 0o644, text.len() as u64);
            archive.append_data(&mut header, name, text.as_slice())?;
        }
        Ok(archive.finish()?)
    }
}

struct HexDigest<'a>(&'a [u8]);

impl std::fmt::LowerHex for HexDigest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn busybox(builder: &mut Builder) -> Result<()> {
    let path = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
    let Some(path) = path else { bail!("busybox is missing: apt-get install busybox-static") };
    builder.text("/bin/busybox", 0o755, &fs::read(path)?)?;
    let applets = Command::new(path).arg("--list").output().context("run busybox --list")?;
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|a| *a != "busybox") {
        builder.link(&format!("/bin/{applet}"), "/bin/busybox")?;
    }
    builder.dir("/tmp", 0o1777)?;
    builder.text("/etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www:/var/www:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")?;
    builder.text("/etc/group", 0o644, b"root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n")
}

const NGINX_CONF: &str = "daemon off;\nworker_processes 1;\nerror_log /dev/stderr;\npid /tmp/nginx.pid;\nevents { worker_connections 256; }\n\
http {\n  access_log off;\n  client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;\n\
  server {\n    listen 80; listen [::]:80;\n    location / { return 200 \"VERSION $hostname\\n\"; }\n    location /files/ { alias /www/; }\n  }\n}\n";

fn web(dir: &Path, name: &str) -> Result<PathBuf> {
    let mut builder = Builder::new();
    busybox(&mut builder)?;
    let nginx = Path::new("/usr/sbin/nginx");
    if !nginx.exists() {
        bail!("nginx is missing: apt-get install nginx-light");
    }
    builder.program(nginx)?;
    builder.program(Path::new("/usr/bin/curl"))?;
    builder.text("/etc/nginx/nginx.conf", 0o644, NGINX_CONF.replace("VERSION", name).as_bytes())?;
    for path in ["/var/log/nginx", "/var/lib/nginx", "/www", "/run"] {
        builder.dir(path, 0o755)?;
    }
    let file = dir.join(format!("{}.tar", name.replace(':', "-")));
    let config = json!({"Cmd": ["/usr/sbin/nginx", "-c", "/etc/nginx/nginx.conf"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT", "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]});
    builder.save(&file, name, config)?;
    Ok(file)
}

/// Makes the images of the tests below `dir`; gives the archives.
pub fn make(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut builder = Builder::new();
    busybox(&mut builder)?;
    let shell = dir.join("busybox.tar");
    builder.save(&shell, BUSYBOX, json!({"Cmd": ["sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}))?;
    Ok(vec![shell, web(dir, WEB)?, web(dir, WEB2)?])
}

/// An image that only waits: what other runtimes keep sandboxes alive with.
pub fn pause(dir: &Path) -> Result<PathBuf> {
    let mut builder = Builder::new();
    builder.copy(Path::new("/bin/busybox"))?;
    let file = dir.join("pause.tar");
    builder.save(&file, "pause:1", json!({"Entrypoint": ["/bin/busybox", "sleep", "2147483647"]}))?;
    Ok(file)
}
