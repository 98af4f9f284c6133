//! A cluster of a test's own, and kubectl on it.

use crate::image;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The program under test: `$SAGONG`, or that of the release profile.
pub fn sagong() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release/sagong");
    std::env::var_os("SAGONG").map_or_else(built, PathBuf::from)
}

/// A running cluster; deleted when dropped.
pub struct Cluster {
    dir: TempDir,
    name: String,
}

impl Cluster {
    /// Starts a cluster with the test images.
    pub fn up(name: &str) -> Result<Self> {
        Self::with_images(Self::new(name)?)
    }

    /// The same with a KubeletConfiguration: `settings` are its fields.
    pub fn with_settings(name: &str, settings: &str) -> Result<Self> {
        let cluster = Self::new(name)?;
        let server = cluster.data_dir().join("clusters").join(name).join("server");
        std::fs::create_dir_all(&server)?;
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        std::fs::write(server.join("kubelet.yaml"), format!("{head}{settings}"))?;
        Self::with_images(cluster)
    }

    fn with_images(cluster: Self) -> Result<Self> {
        let archives = tempfile::tempdir()?;
        for file in image::make(archives.path())? {
            cluster.run(&["image", "load", &file.to_string_lossy()])?;
        }
        cluster.sagong(&["up"])?;
        Ok(cluster)
    }

    /// Starts a cluster without images.
    pub fn bare(name: &str) -> Result<Self> {
        let cluster = Self::new(name)?;
        cluster.sagong(&["up"])?;
        Ok(cluster)
    }

    fn new(name: &str) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "a cluster makes namespaces and needs root");
        Ok(Self { dir: tempfile::tempdir()?, name: name.into() })
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// The kubeconfig that `sagong up` wrote.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// A `sagong` command on this cluster: its name is added.
    pub fn sagong(&self, args: &[&str]) -> Result<String> {
        let mut all = args.to_vec();
        all.push(&self.name);
        self.run(&all)
    }

    /// A `sagong image` command on this cluster's images.
    pub fn image(&self, args: &[&str]) -> Result<String> {
        self.run(&[&["image"], args].concat())
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(sagong());
        command.args(args).env("SAGONG_DATA_DIR", self.data_dir()).env("KUBECONFIG", self.kubeconfig());
        succeed(command)
    }

    /// A kubectl command, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(args).env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// Runs kubectl; its stdout, or an error with its stderr.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        succeed(self.command(args))
    }

    /// Runs kubectl whatever its exit code.
    pub fn try_kubectl(&self, args: &[&str]) -> Result<Output> {
        Ok(self.command(args).stdin(Stdio::null()).output()?)
    }

    /// Runs kubectl with `-o json`.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(args);
        Ok(serde_json::from_str(&self.kubectl(&all)?)?)
    }

    /// Applies a manifest given as text.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.apply_with(manifest, &[])
    }

    /// As [`Cluster::apply`], with more flags.
    pub fn apply_with(&self, manifest: &str, flags: &[&str]) -> Result<String> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), manifest)?;
        let path = file.path().to_string_lossy();
        self.kubectl(&[&["apply", "-f", &path], flags].concat())
    }

    /// Process ids of the cluster's processes that are the program under test (not those of its containers).
    pub fn processes(&self) -> Result<Vec<i32>> {
        use std::os::unix::fs::MetadataExt;
        let identity = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
        let program = identity(&sagong()).context("there is no program")?;
        let data = self.data_dir().to_string_lossy().into_owned();
        let ours = |pid: &i32| {
            let proc = PathBuf::from(format!("/proc/{pid}"));
            // Shims name their pod only, but run from a mount of the program below our directory: hence by inode.
            let texts = [
                std::fs::read(proc.join("cmdline")),
                std::fs::read_link(proc.join("exe")).map(|exe| exe.into_os_string().into_encoded_bytes()),
            ];
            let names_us = texts.into_iter().flatten().any(|text| String::from_utf8_lossy(&text).contains(&data));
            names_us && identity(&proc.join("exe")) == Some(program)
        };
        let entries = std::fs::read_dir("/proc")?.flatten();
        Ok(entries.filter_map(|e| e.file_name().to_string_lossy().parse().ok()).filter(ours).collect())
    }

    /// Process id of the server, as the supervisor recorded it.
    pub fn server_pid(&self) -> Result<i32> {
        let path = self.data_dir().join("clusters").join(&self.name).join("run/server.pid");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(text.split(' ').next().unwrap_or("").parse()?)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(log) = self.sagong(&["logs", "--tail", "60"])
        {
            eprintln!("--- the cluster's log\n{log}---");
        }
        if let Err(error) = self.sagong(&["delete"]) {
            eprintln!("cannot delete the cluster: {error:#}");
        }
    }
}

fn succeed(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {:?}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?} failed ({}):\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// Looks until `look` gives something, for at most `seconds`; then fails naming `what` and the last error.
pub fn wait<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let seen = look();
        match seen {
            Ok(Some(found)) => return Ok(found),
            other if Instant::now() > deadline => {
                let error = other.err().map(|e| format!(": {e:#}")).unwrap_or_default();
                bail!("waited {seconds} s for {what}{error}");
            }
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
