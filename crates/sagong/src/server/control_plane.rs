//! The control plane: store, API server, controllers, scheduler.

use super::node::{Surroundings, TlsFiles};
use super::options::{Options, Part};
use super::kubeconfig;
use anyhow::{Context, Result};
use apiserver::encryption::{Encryption, key_file};
use apiserver::{ApiServer, UserInfo};
use informer::InformerFactory;
use pki::{Ca, Identity};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// File of the keys that seal secrets, in the data directory.
pub const ENCRYPTION_KEYS: &str = "encryption.keys";

/// A control plane that runs.
pub struct ControlPlane {
    server: Arc<ApiServer>,
    ca: Arc<Ca>,
    factory: Arc<InformerFactory>,
    dns: IpAddr,
    components: JoinSet<()>,
    serving: JoinSet<()>,
    served_until: CancellationToken,
}

impl ControlPlane {
    /// Starts everything; returns when the API answers and the administrator's kubeconfig is written.
    pub async fn start(options: &Options, stop: &CancellationToken) -> Result<Self> {
        options.ready.status("opening the store");
        let dir = &options.data_dir;
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        // Bound first: a port in use is the likeliest mistake, and nothing is half-made yet.
        let listener = TcpListener::bind(options.bind).await.with_context(|| format!("cannot serve the API on {}: another process may have the port; choose one with --port", options.bind))?;
        let port = listener.local_addr()?.port();
        let kv = kv::RedbKv::open(&dir.join("store.redb"), kv::Options::default())?;
        let pki_dir = dir.join("pki");
        let ca = Arc::new(Ca::load_or_create(&pki_dir)?);
        let front_proxy = Ca::load_or_create_front_proxy(&pki_dir)?;
        let key = Arc::new(options.access.token_key(&pki_dir)?);
        let mut config = apiserver::Config::new(kv, ca.clone(), key, (options.advertise, port))?;
        config.front_proxy_ca_pem = front_proxy.cert_pem().to_owned();
        config.proxy_client = Some(front_proxy.issue_client("front-proxy-client", &[])?);
        options.access.apply(&mut config)?;
        config.service_cidr = options.service_cidr.clone();
        let (first, dns) = service_addresses(&options.service_cidr)?;
        config.limits = options.api.limits;
        config.audit = options.api.audit.clone();
        config.encryption = Some(encryption(options)?);
        let server = ApiServer::new(config)?;
        let serving_cert = ca.issue_server("kube-apiserver", &names(options, first))?;
        let tls = Arc::new(pki::tls::server_config_asking(&serving_cert, &[ca.cert_pem(), &server.config().front_proxy_ca_pem])?);
        let (served_until, mut serving) = (CancellationToken::new(), JoinSet::new());
        serving.spawn(server.clone().serve(listener, tls, served_until.clone()));
        options.ready.status("starting the API server");
        server.bootstrap().await?;
        write_kubeconfigs(options, &ca, port)?;
        let manager = server.client(UserInfo::new("system:kube-controller-manager", &[]));
        let factory = InformerFactory::new(manager);
        let mut plane = Self { server, ca, factory, dns, components: JoinSet::new(), serving, served_until };
        plane.start_components(options, stop);
        Ok(plane)
    }

    fn start_components(&mut self, options: &Options, stop: &CancellationToken) {
        self.components.spawn(super::memory::follow_store(self.server.clone(), stop.clone()));
        if options.enabled(Part::Controllers) {
            let config = controllers::Config {
                cluster_cidr: options.cluster_cidr.clone(),
                root_ca: self.ca.cert_pem().to_owned(),
                signing_ca: Some(self.ca.clone()),
                token_key: Some(self.server.config().sa_key.clone()),
                cluster_dns: options.enabled(Part::Dns).then_some(self.dns),
                ..controllers::Config::default()
            };
            let server = self.server.clone();
            let client_for = move |account: &str| server.client(service_account(account));
            self.components.spawn(controllers::run(self.factory.clone(), client_for, config, stop.clone()));
        }
        if options.enabled(Part::Scheduler) {
            let client = self.server.client(UserInfo::new("system:kube-scheduler", &[]));
            self.components.spawn(scheduler::run(self.factory.clone(), client, stop.clone()));
        }
    }

    /// Address of the cluster's DNS.
    pub fn dns_address(&self) -> IpAddr {
        self.dns
    }

    /// What a node beside this control plane is given.
    pub fn surroundings(&self, options: &Options) -> Result<Surroundings> {
        let name = &options.node.name;
        let user = format!("system:node:{name}");
        let sans = [name.clone(), options.advertise.to_string()];
        let identity = self.ca.issue_server(&user, &sans)?;
        Ok(Surroundings {
            client: self.server.client(UserInfo::new(&user, &["system:nodes"])),
            factory: self.factory.clone(),
            tls: TlsFiles { identity, client_ca: self.ca.cert_pem().to_owned() },
            address: options.advertise,
            cluster_dns: options.enabled(Part::Dns).then_some(self.dns),
            cluster_cidr: options.cluster_cidr.clone(),
            proxy: options.enabled(Part::Proxy),
        })
    }

    /// Ends the components, then the API server, then the store.
    pub async fn stop(mut self) {
        self.components.shutdown().await;
        self.served_until.cancel();
        self.server.stop();
        // Watches end with the server; a connection that hangs on is cut.
        let done = async { while self.serving.join_next().await.is_some() {} };
        if tokio::time::timeout(std::time::Duration::from_secs(3), done).await.is_err() {
            self.serving.abort_all();
        }
    }
}

/// What seals secrets in the store: keys of the server's own, or what the configuration says.
fn encryption(options: &Options) -> Result<Encryption> {
    let own = key_file::load_or_create(&options.data_dir.join(ENCRYPTION_KEYS))?;
    Ok(match &options.api.encryption_config {
        Some(file) => apiserver::encryption::config::read(file, own)?,
        None => Encryption::own(own),
    })
}

/// The identity a controller writes with.
fn service_account(name: &str) -> UserInfo {
    UserInfo::new(&format!("system:serviceaccount:kube-system:{name}"), &["system:serviceaccounts", "system:serviceaccounts:kube-system"])
}

/// The API's own address in the service range (the first), and that of DNS (the tenth).
fn service_addresses(cidr: &str) -> Result<(IpAddr, IpAddr)> {
    let range: net::Cidr = cidr.parse().map_err(|error| anyhow::anyhow!("--service-cidr {cidr}: {error}"))?;
    let nth = |n| range.nth(n).map(IpAddr::from).with_context(|| format!("--service-cidr {cidr} is too small: give at least a /24"));
    Ok((nth(1)?, nth(10)?))
}

/// Every name and address under which the API is reached.
fn names(options: &Options, first_service: IpAddr) -> Vec<String> {
    let domain = &options.node.cluster_domain;
    let mut names: Vec<String> = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.extend([format!("kubernetes.default.svc.{domain}"), first_service.to_string(), options.advertise.to_string(), options.node.name.clone()]);
    let bound = options.bind.ip();
    if !bound.is_unspecified() {
        names.push(bound.to_string());
    }
    names.sort();
    names.dedup();
    names
}

/// Writes the administrator's kubeconfig; one that still holds is left alone, so that copies stay equal to it.
fn write_kubeconfigs(options: &Options, ca: &Ca, port: u16) -> Result<()> {
    let reached = if options.advertise.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { options.advertise };
    let server = format!("https://{}", std::net::SocketAddr::new(reached, port));
    let path = options.data_dir.join("admin.kubeconfig");
    let identity = match existing(&path) {
        Some(identity) => identity,
        None => ca.issue_client("kubernetes-admin", &["system:masters"])?,
    };
    let config = kubeconfig::config(&options.cluster_name, &server, ca.cert_pem(), &identity);
    for path in [Some(&path), options.write_kubeconfig.as_ref()].into_iter().flatten() {
        kubeconfig::write(path, &config)?;
    }
    Ok(())
}

fn existing(path: &std::path::Path) -> Option<Identity> {
    let config = cluster::kubeconfig::read(path).ok()??;
    let pem = |field: &str| kubeconfig::from_base64(config.pointer("/users/0/user")?.get(field)?.as_str()?).ok();
    Some(Identity { cert_pem: pem("client-certificate-data")?, key_pem: pem("client-key-data")? })
}
