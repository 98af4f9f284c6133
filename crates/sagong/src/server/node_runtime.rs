//! The container runtime of a node: our own, or another's behind a CRI socket.

use super::network::NodeNetwork;
use super::options::NodeOptions;
use anyhow::{Context, Result};
use cri_socket::{RemoteImages, RemoteRuntime, server};
use kubelet::PodCidrHandler;
use runtime::{NodeCgroups, NodeImages, Runtime};
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the kubelet is given, and the CRI server.
pub struct NodeRuntime {
    /// Sandboxes and containers.
    pub service: Arc<dyn cri::RuntimeService>,
    /// Images.
    pub images: Arc<dyn cri::ImageService>,
    /// To be told the node's pod CIDRs.
    pub on_pod_cidr: PodCidrHandler,
}

impl NodeRuntime {
    /// Binds a CRI server for this runtime.
    pub async fn server(&self, options: &NodeOptions, socket: PathBuf) -> Result<server::Server> {
        let shown = socket.display().to_string();
        let (image_mounts, owner) = (options.run_dir.join("image-mounts"), options.name.clone());
        let options = server::Options {
            socket,
            runtime: self.service.clone(),
            images: self.images.clone(),
            on_pod_cidr: Some(self.on_pod_cidr.clone()),
            layers: options.data_dir.join("containers"),
            image_mounts,
            owner,
            cgroup: "/sagong-cri".into(),
        };
        server::Server::bind(options).await.with_context(|| format!("serve CRI on {shown}"))
    }
}

/// The pod CIDRs that an earlier process was told: a kubelet tells them once, not to each runtime that comes back.
pub fn known_pod_cidrs(options: &NodeOptions) -> Vec<String> {
    let text = std::fs::read_to_string(options.run_dir.join("pod-cidrs")).unwrap_or_default();
    text.split(',').map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect()
}

/// Opens our runtime and takes over what runs.
pub async fn own(options: &NodeOptions, address: IpAddr) -> Result<NodeRuntime> {
    let cluster_cidr =
        options.cluster_cidr.parse().map_err(|error| anyhow::anyhow!("--cluster-cidr {}: {error}", options.cluster_cidr))?;
    let network = NodeNetwork::new(options.run_dir.join("network"), cluster_cidr, address);
    let images = images::Store::open(&options.image_dir).with_context(|| format!("open the images in {}", options.image_dir.display()))?;
    let runtime = Runtime::open(runtime::Config {
        state_dir: options.run_dir.join("runtime"),
        root_dir: options.data_dir.join("containers"),
        cgroup_root: "/".into(),
        shim_exe: std::env::current_exe().context("find this program")?,
        images: Arc::new(NodeImages { store: images.clone(), owner: options.name.clone() }),
        network: network.clone(),
    })
    .await
    .context("open the runtime")?;
    take_over(&runtime, &network, &images, &options.name).await?;
    let record = options.run_dir.join("pod-cidrs");
    let on_pod_cidr: PodCidrHandler = Arc::new(move |cidrs| {
        let (network, record) = (network.clone(), record.clone());
        Box::pin(async move {
            if let Err(error) = std::fs::write(&record, cidrs.join(",")) {
                tracing::warn!(%error, path = %record.display(), "cannot keep the pod CIDRs");
            }
            network.open(&cidrs).await;
        })
    });
    Ok(NodeRuntime { service: runtime.service(), images, on_pod_cidr })
}

/// Lets go of addresses and images that sandboxes held which an earlier process left behind half-made.
async fn take_over(runtime: &Arc<Runtime>, network: &NodeNetwork, images: &images::Store, owner: &str) -> Result<()> {
    let service = runtime.service();
    let sandboxes = service.list_pod_sandboxes().await.context("list the sandboxes")?;
    network.keep(sandboxes.into_iter().map(|sandbox| sandbox.id).collect());
    let containers = service.list_containers().await.context("list the containers")?;
    let live: HashSet<String> = containers.into_iter().map(|container| container.id).collect();
    // What volumes hold ends with their pods, not with containers.
    let kept = |holder: &str| live.contains(holder) || holder.starts_with("volume-");
    images.retain(owner, kept).context("release images")
}

/// Connects to another runtime; cgroups of pods are still made by this program.
pub async fn remote(options: &NodeOptions, socket: &Path) -> Result<NodeRuntime> {
    let cgroups = Arc::new(NodeCgroups::open("/").context("find the cgroups")?);
    let state = options.run_dir.join("cri");
    let runtime = RemoteRuntime::connect(socket, state, cgroups).await.with_context(|| format!("connect to the container runtime at {}", socket.display()))?;
    let told: Arc<dyn cri::RuntimeService> = runtime.clone();
    let on_pod_cidr: PodCidrHandler = Arc::new(move |cidrs| {
        let runtime = told.clone();
        Box::pin(async move {
            if let Err(error) = runtime.update_pod_cidrs(cidrs).await {
                tracing::warn!(%error, "cannot tell the runtime the pod CIDRs");
            }
        })
    });
    Ok(NodeRuntime { service: runtime, images: Arc::new(RemoteImages::new(socket)), on_pod_cidr })
}
