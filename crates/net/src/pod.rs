//! Networks of pods: one routed point-to-point veth each.
//!
//! In the pod: `eth0` with a /32, a link route to 169.254.1.1 and a default route through it. On the node: a
//! link `sg…` and a route to the pod's address. Both ends know each other's Ethernet address beforehand, so
//! no ARP is spoken, and no bridge or bridge-nf setting is involved.

use crate::error::{Error, Result};
use crate::ipam::{Cidr, Ipam};
use crate::link::{End, Links, Mac};
use crate::netlink::{Family, Socket};
use crate::route::Route;
use crate::{conntrack, hostport, netns, sysctl};
use async_trait::async_trait;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Protocol {
    /// TCP
    #[default]
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    /// Number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

/// A port of the node that leads to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HostPort {
    /// Protocol.
    pub protocol: Protocol,
    /// Port on the node.
    pub host_port: u16,
    /// Port in the pod.
    pub container_port: u16,
    /// Address on the node; `None`: all.
    pub host_ip: Option<IpAddr>,
}

/// Gives pods a network and takes it back.
#[async_trait]
pub trait PodNetwork: Send + Sync {
    /// Connects a sandbox's namespace; returns its addresses. Again for the same sandbox: the same addresses.
    /// On error nothing is left behind.
    async fn attach(&self, sandbox_id: &str, netns: &Path, ports: &[HostPort]) -> Result<Vec<IpAddr>>;
    /// Disconnects a sandbox and frees its addresses; idempotent, also when the namespace is gone.
    async fn detach(&self, sandbox_id: &str) -> Result<()>;
    /// Disconnects every sandbox that `live` does not know; for a restarted node.
    async fn retain(&self, live: &(dyn for<'a> Fn(&'a str) -> bool + Sync)) -> Result<()>;
}

/// Settings of a node's pod network.
#[derive(Clone, Debug)]
pub struct RoutedConfig {
    /// Where addresses and host ports in use are written down.
    pub state_dir: PathBuf,
    /// Addresses of this node's pods.
    pub pod_cidr: Cidr,
    /// Destinations that see the pods' own addresses; everything else sees the node's.
    pub cluster_cidr: Cidr,
    /// Source address of the node towards its pods; `None`: the kernel's choice.
    pub node_ip: Option<IpAddr>,
}

/// Routed veths on this node, the network namespace of this process.
#[derive(Clone)]
pub struct RoutedNetwork {
    inner: Arc<Inner>,
}

struct Inner {
    config: RoutedConfig,
    ipam: Ipam,
    mtu: u32,
    ports: Mutex<BTreeMap<String, Vec<HostPort>>>,
}

const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const NODE_MAC: Mac = [0xee; 6];
const DEFAULT_MTU: u32 = 1500;

impl RoutedNetwork {
    /// Sets the node up (forwarding, masquerading, host ports of known pods) and opens the allocator.
    pub async fn open(config: RoutedConfig) -> Result<RoutedNetwork> {
        netns::run(None, move || {
            let ipam = Ipam::open(config.state_dir.join("addresses"), config.pod_cidr)?;
            let ports = load_ports(&config.state_dir)?;
            prepare_node()?;
            let mtu = uplink_mtu()?;
            let pairs = ports.iter().filter_map(|(id, ports)| Some((ipam.lookup(id)?, ports)));
            let known: Vec<_> = pairs.flat_map(|(ip, ports)| ports.iter().map(move |port| (ip, *port))).collect();
            hostport::install(&mut Socket::open(Family::Netfilter)?, config.pod_cidr, config.cluster_cidr, &known)?;
            let inner = Inner { config, ipam, mtu, ports: Mutex::new(ports) };
            Ok(RoutedNetwork { inner: Arc::new(inner) })
        })
        .await
    }

    /// The allocator of addresses.
    pub fn ipam(&self) -> &Ipam {
        &self.inner.ipam
    }
}

#[async_trait]
impl PodNetwork for RoutedNetwork {
    async fn attach(&self, sandbox_id: &str, netns: &Path, ports: &[HostPort]) -> Result<Vec<IpAddr>> {
        let (inner, id, path, ports) = (self.inner.clone(), sandbox_id.to_owned(), netns.to_owned(), ports.to_vec());
        match netns::run(None, move || inner.attach(&id, &path, &ports)).await {
            Ok(ip) => Ok(vec![ip]),
            Err(error) => {
                // The attempt's own error is the one to tell.
                if let Err(error) = self.detach(sandbox_id).await {
                    tracing::warn!(sandbox = sandbox_id, %error, "cannot undo a failed network set-up");
                }
                Err(error)
            }
        }
    }

    async fn detach(&self, sandbox_id: &str) -> Result<()> {
        let (inner, id) = (self.inner.clone(), sandbox_id.to_owned());
        netns::run(None, move || inner.detach(&id)).await
    }

    async fn retain(&self, live: &(dyn for<'a> Fn(&'a str) -> bool + Sync)) -> Result<()> {
        for owner in self.inner.ipam.owners() {
            if !live(&owner) {
                self.detach(&owner).await?;
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Runs on a thread of its own, which ends in the pod's namespace.
    fn attach(&self, id: &str, netns: &Path, ports: &[HostPort]) -> Result<IpAddr> {
        let ip = self.ipam.allocate(id)?;
        let mut node_netfilter = if ports.is_empty() { None } else { Some(Socket::open(Family::Netfilter)?) };
        let mut node = Links::open()?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let pod_ns = rustix::fs::open(netns, flags, Mode::empty())
            .map_err(Error::kernel(format!("open network namespace {netns:?}")))?;
        let (name, mac) = (link_name(id), pod_mac(ip));
        // What an attempt that was cut short left behind.
        node.delete(&name)?;
        let here = End { name: &name, mac: Some(NODE_MAC), netns: None };
        let there = End { name: "eth0", mac: Some(mac), netns: Some(rustix::fd::AsFd::as_fd(&pod_ns)) };
        node.add_veth(&here, &there, self.mtu)?;
        // No addresses of its own: silence on the link. Kernels without IPv6 lack the file.
        let _ = sysctl::set(&format!("ipv6/conf/{name}/disable_ipv6"), "1");
        node.set_up(&name)?;
        node.replace_neighbour(&name, ip, mac)?;
        node.replace_route(&Route { source: self.config.node_ip, ..Route::on_link(Cidr::host(ip), &name) })?;
        if let Some(socket) = &mut node_netfilter {
            save_ports(&self.config.state_dir, id, ports)?;
            self.ports.lock().insert(id.to_owned(), ports.to_vec());
            hostport::open(socket, ip, ports)?;
            forget(socket, ip, ports);
        }
        rustix::thread::move_into_link_name_space(rustix::fd::AsFd::as_fd(&pod_ns), Some(LinkNameSpaceType::Network))
            .map_err(Error::kernel(format!("enter network namespace {netns:?}")))?;
        configure_pod(ip)?;
        Ok(ip)
    }

    fn detach(&self, id: &str) -> Result<()> {
        let mut links = Links::open()?;
        links.delete(&link_name(id))?;
        let ports = self.ports.lock().remove(id).unwrap_or_default();
        if let Some(ip) = self.ipam.lookup(id)
            && !ports.is_empty()
        {
            let mut socket = Socket::open(Family::Netfilter)?;
            hostport::close(&mut socket, ip, &ports)?;
            forget(&mut socket, ip, &ports);
            remove_ports(&self.config.state_dir, id)?;
        }
        self.ipam.free(id)?;
        Ok(())
    }
}

fn prepare_node() -> Result<()> {
    sysctl::set("ipv4/ip_forward", "1")?;
    sysctl::set("ipv4/conf/all/route_localnet", "1")?;
    // A pod that reaches itself through a service leaves by the link it came from.
    sysctl::set("ipv4/conf/all/send_redirects", "0")?;
    sysctl::set("ipv4/conf/default/send_redirects", "0")?;
    // Pods cannot borrow each other's addresses.
    sysctl::set("ipv4/conf/default/rp_filter", "1")
}

fn uplink_mtu() -> Result<u32> {
    let mut links = Links::open()?;
    let Some(uplink) = links.uplink()? else { return Ok(DEFAULT_MTU) };
    Ok(links.list()?.into_iter().find(|link| link.index == uplink.index).map_or(DEFAULT_MTU, |link| link.mtu))
}

/// In the pod's namespace.
fn configure_pod(ip: IpAddr) -> Result<()> {
    let mut pod = Links::open()?;
    pod.set_up("lo")?;
    pod.set_up("eth0")?;
    pod.add_address("eth0", Cidr::host(ip))?;
    pod.replace_neighbour("eth0", GATEWAY.into(), NODE_MAC)?;
    pod.replace_route(&Route::on_link(Cidr::host(GATEWAY.into()), "eth0"))?;
    pod.replace_route(&Route::via(Cidr::any(), GATEWAY.into()))
}

/// Forgets UDP flows to the host ports, which would otherwise go on to where they went before.
fn forget(socket: &mut Socket, ip: IpAddr, ports: &[HostPort]) {
    let udp: Vec<u16> = ports.iter().filter(|p| p.protocol == Protocol::Udp).map(|p| p.host_port).collect();
    if udp.is_empty() {
        return;
    }
    if let Err(error) = conntrack::delete(socket, |flow| flow.protocol == 17 && udp.contains(&flow.port)) {
        tracing::warn!(%ip, %error, "cannot forget old UDP connections of host ports");
    }
}

/// `sg` and 13 digits: links have 15 bytes, sandbox ids are random.
fn link_name(id: &str) -> String {
    format!("sg{}", id.chars().filter(char::is_ascii_alphanumeric).take(13).collect::<String>())
}

fn pod_mac(ip: IpAddr) -> Mac {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [0x0a, 0x58, a, b, c, d]
        }
        IpAddr::V6(ip) => {
            let o = ip.octets();
            [0x0a, 0x58, o[12], o[13], o[14], o[15]]
        }
    }
}

fn ports_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("hostports")
}

fn load_ports(state_dir: &Path) -> Result<BTreeMap<String, Vec<HostPort>>> {
    let dir = ports_dir(state_dir);
    std::fs::create_dir_all(&dir).map_err(Error::io(format!("make {dir:?}")))?;
    let mut ports = BTreeMap::new();
    for entry in std::fs::read_dir(&dir).map_err(Error::io(format!("read {dir:?}")))? {
        let path = entry.map_err(Error::io(format!("read {dir:?}")))?.path();
        let id = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let bytes = std::fs::read(&path).map_err(Error::io(format!("read {path:?}")))?;
        // Cut short by a power failure, after which no pod lives.
        if let Ok(known) = serde_json::from_slice(&bytes) {
            ports.insert(id, known);
        }
    }
    Ok(ports)
}

fn save_ports(state_dir: &Path, id: &str, ports: &[HostPort]) -> Result<()> {
    let path = ports_dir(state_dir).join(id);
    let bytes = serde_json::to_vec(ports).map_err(|e| Error::Invalid(e.to_string()))?;
    std::fs::write(&path, bytes).map_err(Error::io(format!("write {path:?}")))
}

fn remove_ports(state_dir: &Path, id: &str) -> Result<()> {
    let path = ports_dir(state_dir).join(id);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(format!("remove {path:?}"))(e)),
        _ => Ok(()),
    }
}
