//! The pod network of a node that learns its addresses from the API.

use async_trait::async_trait;
use cri::PortMapping;
use net::{HostPort, PodNetwork, Protocol, RoutedConfig, RoutedNetwork};
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// A routed network that opens when the node's pod CIDR is known; until then it is not ready.
pub struct NodeNetwork {
    state_dir: PathBuf,
    cluster_cidr: net::Cidr,
    node_ip: IpAddr,
    open: OnceLock<RoutedNetwork>,
    /// Sandboxes that an earlier process left running; everything else gives its addresses back at the opening.
    live: OnceLock<HashSet<String>>,
}

impl NodeNetwork {
    /// A network that is not open yet.
    pub fn new(state_dir: PathBuf, cluster_cidr: net::Cidr, node_ip: IpAddr) -> Arc<Self> {
        Arc::new(Self { state_dir, cluster_cidr, node_ip, open: OnceLock::new(), live: OnceLock::new() })
    }

    /// Says which sandboxes live; before the network is opened.
    pub fn keep(&self, live: HashSet<String>) {
        // Said once, at the start.
        let _ = self.live.set(live);
    }

    /// Opens the network for the node's first IPv4 pod CIDR; nothing when it is open.
    pub async fn open(&self, cidrs: &[String]) {
        let cidr = cidrs.iter().filter_map(|text| text.parse::<net::Cidr>().ok()).find(|cidr| cidr.ip.is_ipv4());
        let Some(pod_cidr) = cidr.filter(|_| self.open.get().is_none()) else { return };
        let config = RoutedConfig { state_dir: self.state_dir.clone(), pod_cidr, cluster_cidr: self.cluster_cidr, node_ip: Some(self.node_ip) };
        match RoutedNetwork::open(config).await {
            Ok(network) => {
                let live = self.live.get();
                if let Err(error) = network.retain(&|id| live.is_none_or(|live| live.contains(id))).await {
                    tracing::warn!(%error, "cannot give back the addresses of sandboxes that are gone");
                }
                // A second opening at the same time has the same state.
                let _ = self.open.set(network);
            }
            Err(error) => tracing::error!(%error, %pod_cidr, "cannot open the pod network"),
        }
    }

    fn opened(&self) -> Result<&RoutedNetwork, String> {
        self.open.get().ok_or_else(|| "the node has no pod CIDR yet".to_owned())
    }
}

#[async_trait]
impl runtime::PodNetwork for NodeNetwork {
    async fn attach(&self, sandbox_id: &str, netns: &Path, ports: &[PortMapping]) -> Result<Vec<IpAddr>, String> {
        let ports: Vec<HostPort> = ports.iter().map(host_port).collect::<Result<_, _>>()?;
        self.opened()?.attach(sandbox_id, netns, &ports).await.map_err(|error| error.to_string())
    }

    async fn detach(&self, sandbox_id: &str, _netns: &Path) -> Result<(), String> {
        self.opened()?.detach(sandbox_id).await.map_err(|error| error.to_string())
    }

    fn ready(&self) -> Result<(), String> {
        self.opened().map(drop)
    }
}

fn host_port(port: &PortMapping) -> Result<HostPort, String> {
    let host_ip = match port.host_ip.as_str() {
        "" | "0.0.0.0" => None,
        text => Some(text.parse().map_err(|_| format!("host IP {text:?} is no address"))?),
    };
    let protocol = match port.protocol {
        cri::Protocol::Tcp => Protocol::Tcp,
        cri::Protocol::Udp => Protocol::Udp,
        cri::Protocol::Sctp => Protocol::Sctp,
    };
    Ok(HostPort { protocol, host_port: port.host_port, container_port: port.container_port, host_ip })
}
