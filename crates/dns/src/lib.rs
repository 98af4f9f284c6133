//! Cluster DNS: a responder on each node, fed by informers.
//!
//! A query comes in over UDP or TCP ([`server`]), its name is read as one of the forms of Kubernetes' DNS
//! specification ([`names`]) and answered from services and endpoint slices ([`zone`]); other names go to
//! the upstream resolvers ([`forward`]).
//!
//! Invariants: only pods and this machine are answered ([`clients`]); what one client asks costs bounded memory and time; a name of the cluster never leaves the node;
//! before the informers have synced, names of the cluster are answered with SERVFAIL, never with NXDOMAIN.
//!
//! Absent: a cache (data are local, upstreams have theirs), zone transfers, DNSSEC, checking that a pod of
//! a pod-ip name exists (CoreDNS' `pods insecure`).

mod clients;
mod forward;
mod names;
mod server;
mod source;
mod zone;

pub use clients::Clients;
use informer::{Informer, InformerFactory};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Settings of the responder.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens, UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// `cluster.local`
    pub domain: String,
    /// Who is asked for other names; those that are in `listen` are left out.
    pub upstreams: Vec<SocketAddr>,
    /// Addresses of pods. They and this machine are answered, others not.
    pub clients: Arc<Clients>,
}

/// Why the responder could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for DNS")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The domain is no domain name.
    #[error("{0:?} is no DNS domain")]
    Domain(String),
}

/// A responder whose sockets are open.
#[derive(Debug)]
pub struct Server {
    sockets: Vec<server::Sockets>,
    domain: zone::Domain,
    upstreams: Vec<SocketAddr>,
    clients: Arc<Clients>,
}

/// Opens every socket, so that an address that is taken is an error now and not a surprise later.
pub async fn bind(config: Config) -> Result<Server, Error> {
    let domain = zone::Domain::parse(&config.domain)?;
    let mut sockets = Vec::new();
    for address in &config.listen {
        sockets.push(server::Sockets::bind(*address).await?);
    }
    let upstreams = config.upstreams.into_iter().filter(|address| !config.listen.contains(address)).collect();
    Ok(Server { sockets, domain, upstreams, clients: config.clients })
}

impl Server {
    /// Answers until `shutdown`.
    pub async fn run(self, factory: Arc<InformerFactory>, shutdown: CancellationToken) {
        let services: Informer<Service> = factory.informer();
        let slices: Informer<EndpointSlice> = factory.informer();
        let zone = zone::Zone::new(self.domain, source::Informers::new(services, slices));
        let responder = Arc::new(server::Responder::new(zone, forward::Forwarder::new(self.upstreams), self.clients));
        server::serve(responder, self.sockets, shutdown).await;
    }
}

/// The resolvers of this host. Where it has only one on its loopback, which other network namespaces cannot
/// reach, those that systemd-resolved asks itself.
pub fn host_resolvers() -> Vec<SocketAddr> {
    let read = |path| std::fs::read_to_string(path).map(|text| nameservers(&text)).unwrap_or_default();
    let own = read("/etc/resolv.conf");
    if !own.is_empty() && !own.iter().all(|address| address.ip().is_loopback()) {
        return own;
    }
    let behind = read("/run/systemd/resolve/resolv.conf");
    if behind.is_empty() { own } else { behind }
}

/// The `nameserver` lines of a resolv.conf, with port 53.
fn nameservers(resolv_conf: &str) -> Vec<SocketAddr> {
    let lines = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = lines.filter_map(|rest| rest.split_whitespace().next()?.parse().ok());
    addresses.map(|ip| SocketAddr::new(ip, 53)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_resolv_conf() {
        let text = "# x\nnameserver 10.0.0.1\nsearch a b\n  nameserver\t::1 # y\nnameserver bad\nnameservers 1.1.1.1\n";
        let found: Vec<String> = super::nameservers(text).iter().map(|a| a.to_string()).collect();
        assert_eq!(found, ["10.0.0.1:53", "[::1]:53"]);
    }
}
