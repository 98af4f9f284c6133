//! `sagong server`

use super::api_flags::ApiFlags;
use crate::server::{self, Part};
use std::net::IpAddr;
use std::path::PathBuf;

/// Runs a control plane, and a node beside it, in the foreground on this host.
#[derive(clap::Args)]
pub struct Server {
    /// Directory of the store, certificates and the node's state
    #[arg(long, env = "SAGONG_DATA_DIR", default_value = "/var/lib/sagong", value_name = "DIR")]
    data_dir: PathBuf,
    /// Address the API is served on
    #[arg(long, default_value = "0.0.0.0", value_name = "ADDRESS")]
    bind_address: IpAddr,
    /// Port the API is served on
    #[arg(long, default_value_t = 6443)]
    port: u16,
    /// Address others reach this host by [default: that of the default route]
    #[arg(long, value_name = "ADDRESS")]
    advertise_address: Option<IpAddr>,
    /// Addresses of services
    #[arg(long, default_value = "10.96.0.0/16", value_name = "CIDR")]
    service_cidr: String,
    /// Addresses of pods [default: 10.244.0.0/16; with --agent=false none, and nodes get no range]
    #[arg(long, value_name = "CIDR")]
    cluster_cidr: Option<String>,
    /// Runs a node beside the control plane
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    agent: bool,
    /// Parts to leave out
    #[arg(long, value_delimiter = ',', value_name = "PARTS")]
    disable: Vec<Part>,
    /// File to write the administrator's kubeconfig to, besides `admin.kubeconfig` in the data directory
    #[arg(long, value_name = "FILE")]
    write_kubeconfig: Option<PathBuf>,
    /// Name of the cluster in kubeconfigs
    #[arg(long, default_value = "sagong", value_name = "NAME")]
    cluster_name: String,
    #[command(flatten)]
    access: super::access::Access,
    #[command(flatten)]
    api: ApiFlags,
    #[command(flatten)]
    node: NodeFlags,
    /// File to log to instead of stderr
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// File that exists while the server is ready
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// What a node is told, by `server` and `agent` alike.
#[derive(clap::Args)]
pub struct NodeFlags {
    /// Name of the node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Directory for sockets and what else must not outlive a reboot
    #[arg(long, default_value = "/run/sagong", value_name = "DIR")]
    pub run_dir: PathBuf,
    /// Directory of container images [default: `images` in the data directory]
    #[arg(long, value_name = "DIR")]
    pub image_dir: Option<PathBuf>,
    /// Directory of pods and their volumes, where CSI drivers and device plugins find the kubelet's sockets too
    /// [default: `node/kubelet` in the data directory]
    #[arg(long, value_name = "DIR")]
    pub root_dir: Option<PathBuf>,
    /// Socket of a container runtime (`unix:///run/containerd/containerd.sock`) that runs pods instead of our own
    #[arg(long, value_name = "SOCKET", value_parser = endpoint)]
    pub container_runtime_endpoint: Option<PathBuf>,
    /// Socket to serve our container runtime on besides, for crictl and the like
    #[arg(long, value_name = "SOCKET", value_parser = endpoint, conflicts_with = "container_runtime_endpoint")]
    pub cri_socket: Option<PathBuf>,
    /// DNS domain of the cluster
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,
    /// KubeletConfiguration of the node [default: kubelet.yaml in the data directory, where there is one]
    #[arg(long, env = "SAGONG_KUBELET_CONFIG", value_name = "FILE")]
    pub kubelet_config: Option<PathBuf>,
    /// CredentialProviderConfig: plugins that give credentials for images
    #[arg(long, value_name = "FILE", requires = "image_credential_provider_bin_dir")]
    pub image_credential_provider_config: Option<PathBuf>,
    /// Directory of the programs of these plugins
    #[arg(long, value_name = "DIR", requires = "image_credential_provider_config")]
    pub image_credential_provider_bin_dir: Option<PathBuf>,
}

/// A path, with or without `unix://` before it.
pub fn endpoint(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    if path.starts_with('/') { Ok(path.into()) } else { Err("must be unix:// and an absolute path".into()) }
}

impl NodeFlags {
    /// The node's options below a data directory.
    pub fn options(self, data_dir: &std::path::Path, cluster_cidr: String) -> anyhow::Result<server::NodeOptions> {
        let kubelet = kubelet_configuration(self.kubelet_config.as_deref(), data_dir)?;
        let hostname = || rustix::system::uname().nodename().to_string_lossy().to_lowercase();
        Ok(server::NodeOptions {
            kubelet,
            credential_provider: self.image_credential_provider_config.zip(self.image_credential_provider_bin_dir),
            name: self.node_name.unwrap_or_else(hostname),
            run_dir: self.run_dir,
            image_dir: self.image_dir.unwrap_or_else(|| cluster::images_dir(data_dir)),
            data_dir: data_dir.join("node"),
            kubelet_dir: self.root_dir.unwrap_or_else(|| data_dir.join("node/kubelet")),
            runtime_endpoint: self.container_runtime_endpoint,
            cri_socket: self.cri_socket,
            cluster_domain: self.cluster_domain,
            cluster_cidr,
        })
    }
}

/// The configuration of a file, or of the data directory's; static pods come from `manifests` there by default.
fn kubelet_configuration(file: Option<&std::path::Path>, data_dir: &std::path::Path) -> anyhow::Result<kubelet::KubeletConfiguration> {
    use kubelet::KubeletConfiguration;
    let own = data_dir.join("kubelet.yaml");
    let mut read = match file.or(Some(own.as_path()).filter(|own| own.exists())) {
        Some(path) => KubeletConfiguration::load(path)?,
        None => KubeletConfiguration::default(),
    };
    let manifests = data_dir.join("manifests");
    if read.static_pod_path.is_empty() {
        // Made, so that there is something to watch.
        std::fs::create_dir_all(&manifests)?;
        read.static_pod_path = manifests.display().to_string();
    }
    Ok(read)
}

impl Server {
    /// Runs until SIGTERM or SIGINT.
    pub fn run(self) -> anyhow::Result<()> {
        crate::log::start(self.log_file.as_deref())?;
        let advertise = match self.advertise_address {
            Some(address) => address,
            None => server::default_address()?,
        };
        let default_cidr = if self.agent { "10.244.0.0/16" } else { "" };
        let cluster_cidr = self.cluster_cidr.unwrap_or_else(|| default_cidr.to_owned());
        let options = server::Options {
            bind: (self.bind_address, self.port).into(),
            advertise,
            service_cidr: self.service_cidr,
            cluster_cidr: cluster_cidr.clone(),
            agent: self.agent,
            api: self.api.options()?,
            disabled: self.disable,
            write_kubeconfig: self.write_kubeconfig,
            cluster_name: self.cluster_name,
            node: self.node.options(&self.data_dir, cluster_cidr)?,
            access: self.access,
            data_dir: self.data_dir,
            ready: server::Ready { file: self.ready_file, socket: std::env::var_os(cluster::notify::VARIABLE).map(PathBuf::from) },
        };
        server::run(options)
    }
}
