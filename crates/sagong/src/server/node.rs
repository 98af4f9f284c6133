//! The node: runtime, kubelet, service proxy and DNS, around one API client.

use super::node_runtime::{self, NodeRuntime};
use super::options::NodeOptions;
use super::remote::Remote;
use anyhow::{Context, Result};
use api::k8s::core::v1::Node as ApiNode;
use informer::InformerFactory;
use kubelet::{Kubelet, ServerOptions};
use pki::Identity;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const KUBELET_PORT: u16 = 10250;
/// Port of the node's DNS responder; the cluster's DNS service leads here.
const DNS_PORT: u16 = 10053;

/// What the kubelet serves with and whom it trusts.
pub struct TlsFiles {
    /// Serving certificate and key.
    pub identity: Identity,
    /// PEM of the CA of its clients.
    pub client_ca: String,
}

/// What a node is given by the cluster it joins.
pub struct Surroundings {
    /// Acts as the node.
    pub client: kube::Client,
    /// Informers of services and the like.
    pub factory: Arc<InformerFactory>,
    /// TLS of the kubelet's API.
    pub tls: TlsFiles,
    /// Address of the node.
    pub address: IpAddr,
    /// Address of cluster DNS, where the cluster has one.
    pub cluster_dns: Option<IpAddr>,
    /// Addresses of all pods.
    pub cluster_cidr: String,
    /// Whether the service proxy runs.
    pub proxy: bool,
}

impl Surroundings {
    /// What an agent on another host finds out from the API.
    pub async fn remote(remote: &Remote, options: &NodeOptions, address: IpAddr) -> Result<Self> {
        let client = remote.client()?;
        let services: kube::Api<api::k8s::core::v1::Service> = kube::Api::namespaced(client.clone(), "kube-system");
        let dns = services.get_opt("kube-dns").await.with_context(|| format!("ask {} about cluster DNS as node {:?}", remote.server, options.name))?;
        let cluster_dns = dns.and_then(|s| s.spec).and_then(|s| s.cluster_ip).and_then(|ip| ip.parse().ok());
        Ok(Self {
            factory: InformerFactory::new(client.clone()),
            client,
            tls: TlsFiles { identity: remote.identity.clone(), client_ca: remote.ca.clone() },
            address,
            cluster_dns,
            cluster_cidr: options.cluster_cidr.clone(),
            proxy: true,
        })
    }
}

/// A node that runs.
pub struct Node {
    name: String,
    factory: Arc<InformerFactory>,
    components: JoinSet<()>,
}

impl Node {
    /// Opens the runtime, takes over what runs, and starts the components; they end with `stop`.
    pub async fn start(options: &NodeOptions, given: Surroundings, stop: &CancellationToken) -> Result<Self> {
        anyhow::ensure!(rustix::process::geteuid().is_root(), "a node makes namespaces, mounts and cgroups and needs root; run as root, or with --agent=false for a control plane alone");
        let mut components = JoinSet::new();
        let cluster_cidr = given.cluster_cidr.parse().map_err(|error| anyhow::anyhow!("--cluster-cidr {}: {error}", given.cluster_cidr))?;
        let asking = Arc::new(dns::Clients::new(vec![cluster_cidr]));
        if given.cluster_dns.is_some() {
            start_dns(&mut components, options, &given, asking.clone(), stop).await?;
        }
        if given.proxy {
            let config = proxy::Config { node_name: options.name.clone(), cluster_cidr };
            components.spawn(proxy::run(given.factory.clone(), config, stop.clone()));
        }
        let mut runtime = match &options.runtime_endpoint {
            None => node_runtime::own(options, given.address).await?,
            Some(socket) => node_runtime::remote(options, socket).await?,
        };
        // A kernel without swap has no such file.
        let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
        options.kubelet.check_machine(runtime.service.features().cgroup_version, &swaps)?;
        components.spawn(super::memory::follow_pods(runtime.service.subscribe(), stop.clone()));
        let handler = runtime.on_pod_cidr.clone();
        // A node may be given pods' addresses that are not of the cluster's range.
        runtime.on_pod_cidr = Arc::new(move |cidrs| {
            asking.also(cidrs.iter().filter_map(|cidr| cidr.parse().ok()));
            handler(cidrs)
        });
        if let Some(socket) = &options.cri_socket {
            let server = runtime.server(options, socket.clone()).await?;
            let stop = stop.clone();
            components.spawn(async move { stop.run_until_cancelled(server.run()).await; });
        }
        let (name, factory) = (options.name.clone(), given.factory.clone());
        let kubelet = Kubelet::new(kubelet_config(options, given, runtime)?);
        components.spawn(kubelet.run(stop.clone()));
        Ok(Self { name, factory, components })
    }

    /// Returns when the API shows the node as Ready.
    pub async fn ready(&self) -> Result<()> {
        // A node may read itself only.
        let nodes = self.factory.informer_filtered::<ApiNode>(&format!("metadata.name={}", self.name), "", "");
        let mut changes = nodes.subscribe();
        loop {
            if nodes.get("", &self.name).is_some_and(|node| is_ready(&node)) {
                return Ok(());
            }
            changes.next().await.context("the node's informer ended")?;
        }
    }

    /// Returns when the components have ended.
    pub async fn stopped(mut self) {
        while self.components.join_next().await.is_some() {}
    }
}

fn is_ready(node: &ApiNode) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

async fn start_dns(components: &mut JoinSet<()>, options: &NodeOptions, given: &Surroundings, clients: Arc<dns::Clients>, stop: &CancellationToken) -> Result<()> {
    let config = dns::Config {
        listen: vec![SocketAddr::new(given.address, DNS_PORT)],
        domain: options.cluster_domain.clone(),
        upstreams: dns::host_resolvers(),
        clients,
    };
    let server = dns::bind(config).await.with_context(|| format!("serve DNS on {}:{DNS_PORT}; free the port or use --disable dns", given.address))?;
    components.spawn(server.run(given.factory.clone(), stop.clone()));
    Ok(())
}

fn kubelet_config(options: &NodeOptions, given: Surroundings, runtime: NodeRuntime) -> Result<kubelet::Config> {
    let mut tls = pki::tls::server_config(&given.tls.identity, &[&given.tls.client_ca])?;
    // Streams are upgraded connections, which HTTP/2 does not have.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(kubelet::Config {
        node_name: options.name.clone(),
        client: given.client,
        runtime: runtime.service,
        images: runtime.images,
        root_dir: options.kubelet_dir.clone(),
        log_dir: options.data_dir.join("logs"),
        node_ips: vec![given.address],
        cluster_dns: given.cluster_dns.into_iter().collect(),
        cluster_domain: options.cluster_domain.clone(),
        resolv_conf: "/etc/resolv.conf".into(),
        credential_provider: options.credential_provider.clone(),
        git: Some(kubelet::GitClone {
            program: std::env::current_exe().context("find this program")?,
            certificates: images::system_bundle().map(Into::into),
        }),
        settings: options.kubelet.clone(),
        node_labels: BTreeMap::new(),
        taints: options.kubelet.register_with_taints.clone(),
        on_pod_cidr: Some(runtime.on_pod_cidr),
        server: Some(ServerOptions { listen: SocketAddr::new(given.address, KUBELET_PORT), tls: Arc::new(tls) }),
    })
}
