//! What a server or agent is told when it starts.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// A part that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Cluster DNS
    Dns,
    /// The service proxy
    Proxy,
    /// The scheduler
    Scheduler,
    /// The controllers
    Controllers,
}

/// Options of a node.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Name of the Node object.
    pub name: String,
    /// For what must not outlive a reboot.
    pub run_dir: PathBuf,
    /// Container images.
    pub image_dir: PathBuf,
    /// Pods' volumes, logs and writable layers.
    pub data_dir: PathBuf,
    /// The kubelet's directory.
    pub kubelet_dir: PathBuf,
    /// Socket of another runtime that runs the containers, instead of our own.
    pub runtime_endpoint: Option<PathBuf>,
    /// Where our runtime is served as CRI, besides.
    pub cri_socket: Option<PathBuf>,
    /// DNS domain.
    pub cluster_domain: String,
    /// KubeletConfiguration.
    pub kubelet: kubelet::KubeletConfiguration,
    /// Plugins that give credentials for images, and the directory of their programs.
    pub credential_provider: Option<(PathBuf, PathBuf)>,
    /// Addresses of all pods.
    pub cluster_cidr: String,
}

/// How readiness is told.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    /// File that exists while the server is ready.
    pub file: Option<PathBuf>,
    /// Socket for `sd_notify(3)` messages.
    pub socket: Option<PathBuf>,
}

/// Options of the API server.
#[derive(Clone, Debug, Default)]
pub struct ApiOptions {
    /// How much is done at once, and for how long.
    pub limits: apiserver::Limits,
    /// The audit log.
    pub audit: apiserver::audit::Settings,
    /// `EncryptionConfiguration` file.
    pub encryption_config: Option<PathBuf>,
}

/// Options of a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the API listens.
    pub bind: SocketAddr,
    /// Where others reach it.
    pub advertise: IpAddr,
    /// Addresses of services.
    pub service_cidr: String,
    /// Addresses of pods.
    pub cluster_cidr: String,
    /// The API server.
    pub api: ApiOptions,
    /// Whether a node runs beside the control plane.
    pub agent: bool,
    /// Parts left out.
    pub disabled: Vec<Part>,
    /// One more place for the administrator's kubeconfig.
    pub write_kubeconfig: Option<PathBuf>,
    /// Name in kubeconfigs.
    pub cluster_name: String,
    /// Who may reach the API and do what.
    pub access: crate::commands::access::Access,
    /// The node.
    pub node: NodeOptions,
    /// Store and certificates.
    pub data_dir: PathBuf,
    /// How readiness is told.
    pub ready: Ready,
}

impl Options {
    /// Whether a part runs.
    pub fn enabled(&self, part: Part) -> bool {
        !self.disabled.contains(&part)
    }
}

/// The address of this host that the default route uses, or its first one that is not loopback.
pub fn default_address() -> anyhow::Result<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // Connecting a datagram socket sends nothing; it only chooses a source. 192.0.2.1 is TEST-NET-1 (RFC 5737).
    if socket.connect("192.0.2.1:9").is_ok() {
        return Ok(socket.local_addr()?.ip());
    }
    let table = std::fs::read_to_string("/proc/net/fib_trie")?;
    let lines: Vec<&str> = table.lines().collect();
    let local = lines.windows(2).filter(|pair| pair[1].trim() == "/32 host LOCAL").filter_map(|pair| pair[0].trim().strip_prefix("|-- ")?.parse::<IpAddr>().ok());
    local.into_iter().find(|ip| !ip.is_loopback()).ok_or_else(|| anyhow::anyhow!("this host has no address but loopback; give one with --advertise-address"))
}
