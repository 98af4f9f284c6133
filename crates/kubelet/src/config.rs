//! What a kubelet is told when it starts.

use crate::configuration::KubeletConfiguration;
use crate::volumes::git_repo::GitClone;
use api::k8s::core::v1::Taint;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// Called with the node's pod CIDRs as soon as the API knows them, and again when they change.
pub type PodCidrHandler = Arc<dyn Fn(Vec<String>) -> futures::future::BoxFuture<'static, ()> + Send + Sync>;

/// The kubelet's configuration. It reads no flags, files or environment of its own.
#[derive(Clone)]
pub struct Config {
    /// Name of the Node object.
    pub node_name: String,
    /// Client with the identity `system:node:<node_name>`.
    pub client: kube::Client,
    /// Sandboxes and containers.
    pub runtime: Arc<dyn cri::RuntimeService>,
    /// Images.
    pub images: Arc<dyn cri::ImageService>,
    /// Directory of pods and their volumes, as `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// Directory of the pods' logs, as `/var/log/pods`.
    pub log_dir: PathBuf,
    /// Addresses of the node, the primary one first.
    pub node_ips: Vec<IpAddr>,
    /// Addresses of the cluster's DNS; empty: pods get the node's resolvers.
    pub cluster_dns: Vec<IpAddr>,
    /// DNS domain of the cluster, `cluster.local`.
    pub cluster_domain: String,
    /// Resolver configuration of the node, `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// File of credential provider plugins, and the directory of their programs.
    pub credential_provider: Option<(PathBuf, PathBuf)>,
    /// What clones of git repositories need; `None`: gitRepo volumes are refused.
    pub git: Option<GitClone>,
    /// What an operator set.
    pub settings: KubeletConfiguration,
    /// Labels the node registers with, besides its own.
    pub node_labels: BTreeMap<String, String>,
    /// Taints the node registers with.
    pub taints: Vec<Taint>,
    /// Receiver of the node's pod CIDRs.
    pub on_pod_cidr: Option<PodCidrHandler>,
    /// The kubelet's own API; `None`: not served.
    pub server: Option<ServerOptions>,
}

/// How the kubelet's API (port 10250) is served.
#[derive(Clone)]
pub struct ServerOptions {
    /// Address and port.
    pub listen: SocketAddr,
    /// TLS with optional client certificates, verified against the cluster's client CA.
    pub tls: Arc<rustls::ServerConfig>,
}

impl Config {
    /// Directory of one pod.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// Directory of one pod's logs: `<namespace>_<name>_<uid>`.
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.log_dir.join(format!("{namespace}_{name}_{uid}"))
    }

    /// Port the API is served on; upstream's default where it is not served.
    pub fn port(&self) -> u16 {
        self.server.as_ref().map_or(10250, |s| s.listen.port())
    }
}
