//! An image's configuration: what the runtime needs of it.

use crate::reference::Reference;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The execution part of an image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` or empty.
    pub user: String,
    /// Working directory or empty.
    pub working_dir: String,
    /// `SIGTERM`, `15` or empty.
    pub stop_signal: String,
    /// Paths the image wants as volumes.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
}

/// An image ready to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageInfo {
    /// Config digest, `sha256:…`.
    pub id: String,
    /// Configuration.
    pub config: ImageConfig,
    /// Unpacked layers, topmost first, as overlayfs wants its lower directories.
    pub layers: Vec<PathBuf>,
    /// Bytes on disk.
    pub size: u64,
    /// `docker.io/library/busybox:latest`
    pub names: Vec<String>,
    /// `docker.io/library/busybox@sha256:…`
    pub digests: Vec<String>,
}

impl ImageInfo {
    /// The image as a container's status names it: the tag that was asked for where the image has it, else its
    /// first tag, else what was asked for.
    pub fn shown_name(&self, asked: &str) -> String {
        let wanted = Reference::parse(asked).ok().and_then(|r| r.tagged());
        let same = wanted.filter(|w| self.names.contains(w));
        same.or_else(|| self.names.first().cloned()).unwrap_or_else(|| asked.to_owned())
    }

    /// The image as `imageID` shows it: a digest in the repository that was asked for, else any digest, else the id.
    pub fn shown_id(&self, asked: &str) -> String {
        let wanted = Reference::parse(asked).ok().map(|r| format!("{}@", r.repository()));
        let same = wanted.and_then(|w| self.digests.iter().find(|d| d.starts_with(&w)));
        same.or(self.digests.first()).unwrap_or(&self.id).clone()
    }
}

/// The configuration blob, as far as it matters.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct ConfigBlob {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub config: Option<ConfigSection>,
    #[serde(default)]
    pub rootfs: RootFs,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

/// Docker's and OCI's `config`; every field may be missing or null.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ConfigSection {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    labels: Option<BTreeMap<String, String>>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
}

impl ConfigBlob {
    pub fn image_config(&self) -> ImageConfig {
        let section = self.config.clone().unwrap_or_default();
        ImageConfig {
            entrypoint: section.entrypoint.unwrap_or_default(),
            cmd: section.cmd.unwrap_or_default(),
            env: section.env.unwrap_or_default(),
            user: section.user.unwrap_or_default(),
            working_dir: section.working_dir.unwrap_or_default(),
            stop_signal: section.stop_signal.unwrap_or_default(),
            volumes: section.volumes.unwrap_or_default().into_keys().collect(),
            labels: section.labels.unwrap_or_default(),
            exposed_ports: section.exposed_ports.unwrap_or_default().into_keys().collect(),
        }
    }
}

/// This machine in OCI's words: `("linux", "amd64")`.
pub(crate) fn host_platform() -> (&'static str, &'static str) {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    };
    ("linux", architecture)
}
