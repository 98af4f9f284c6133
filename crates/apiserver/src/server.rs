//! The server: its configuration, its parts, and the ways to reach it.

use crate::aggregator::Aggregator;
use crate::allocators::{self, Allocators};
use crate::audit::{self, Auditor};
use crate::authn::{self, Authn, Connection, UserInfo};
use crate::authz::{Authorizers, node::Node, rbac::Rbac};
use crate::body::Body;
use crate::encryption::{self, Encryption};
use crate::fairness::{self, Fairness};
use crate::live::Live;
use crate::registry::Registry;
use crate::store::{Dispatcher, ObjectStore, Stored};
use crate::webhook::{self, Webhooks};
use crate::{admission, authz, bootstrap, chain, tls};
use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use pki::{Ca, Identity, ServiceAccountKey};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// What a server is built from.
pub struct Config {
    /// Where everything is kept.
    pub kv: Arc<dyn kv::Kv>,
    /// Verifies client certificates and kubelets' serving certificates.
    pub ca: Arc<Ca>,
    /// PEM of the CA whose clients may assert users by header.
    pub front_proxy_ca_pem: String,
    /// Signs and verifies service account tokens.
    pub sa_key: Arc<ServiceAccountKey>,
    /// Who the server is to kubelets (`kube-apiserver-kubelet-client`).
    pub kubelet_client: Identity,
    /// Issuer of tokens, `https://kubernetes.default.svc`.
    pub issuer: String,
    /// Audiences of tokens that are for this server.
    pub api_audiences: Vec<String>,
    /// Cluster IPs of services, `10.96.0.0/16`.
    pub service_cidr: String,
    /// Node ports of services.
    pub node_ports: RangeInclusive<u16>,
    /// Where pods reach the server.
    pub advertise_address: IpAddr,
    /// At which port.
    pub advertise_port: u16,
    /// How requests are authenticated.
    pub authentication: authn::Settings,
    /// How requests are authorized.
    pub authorization: authz::Settings,
    /// Who the server is to the servers of aggregated APIs (`front-proxy-client`).
    pub proxy_client: Option<Identity>,
    /// How much is done at once, and for how long.
    pub limits: Limits,
    /// What is written to the audit log.
    pub audit: audit::Settings,
    /// What is sealed in the store; none: nothing is.
    pub encryption: Option<Encryption>,
}

/// How much is done at once, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Requests at once (upstream's two limits, for reads and writes, together).
    pub requests: u64,
    /// Time for a request that is not long-running.
    pub request_timeout: Duration,
    /// Watches without a timeout last from this to twice as long.
    pub min_watch: Duration,
    /// Share of requests whose HTTP/2 connection is asked to go elsewhere.
    pub goaway_chance: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: 600,
            request_timeout: crate::deadline::DEFAULT,
            min_watch: Duration::from_secs(1800),
            goaway_chance: 0.0,
        }
    }
}

impl Config {
    /// The usual configuration: issuer and audience `https://kubernetes.default.svc`, services in
    /// 10.96.0.0/16, node ports 30000-32767.
    pub fn new(
        kv: Arc<dyn kv::Kv>,
        ca: Arc<Ca>,
        sa_key: Arc<ServiceAccountKey>,
        advertise: (IpAddr, u16),
    ) -> Result<Self, Error> {
        let kubelet_client = ca.issue_client("kube-apiserver-kubelet-client", &["system:masters"])?;
        Ok(Self {
            kv,
            front_proxy_ca_pem: ca.cert_pem().to_owned(),
            ca,
            sa_key,
            kubelet_client,
            issuer: "https://kubernetes.default.svc".into(),
            api_audiences: vec!["https://kubernetes.default.svc".into()],
            service_cidr: "10.96.0.0/16".into(),
            node_ports: 30000..=32767,
            advertise_address: advertise.0,
            advertise_port: advertise.1,
            authentication: authn::Settings::default(),
            authorization: authz::Settings::default(),
            proxy_client: None,
            limits: Limits::default(),
            audit: audit::Settings::default(),
            encryption: None,
        })
    }
}

/// Why a server cannot be built or started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate or key is of no use.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// A setting is of no use.
    #[error("{0}")]
    Config(String),
    /// What a new cluster begins with cannot be written.
    #[error("bootstrap: {0}")]
    Bootstrap(#[from] api::Status),
}

/// The API server.
pub struct ApiServer {
    config: Config,
    registry: Registry,
    authn: Authn,
    authorizers: Authorizers,
    lives: admission::Lives,
    webhooks: Webhooks,
    aggregator: Aggregator,
    fairness: Arc<Fairness>,
    auditor: Arc<Auditor>,
    allocators: Allocators,
    kubelet_tls: Arc<rustls::ClientConfig>,
    ready: AtomicBool,
    stopping: CancellationToken,
    itself: OnceLock<Weak<Self>>,
}

impl ApiServer {
    /// Builds a server; within a tokio runtime. [`ApiServer::bootstrap`] makes it ready.
    pub fn new(config: Config) -> Result<Arc<Self>, Error> {
        let dispatcher = Dispatcher::encrypted(config.kv.clone(), config.encryption.clone().unwrap_or_default());
        let registry = Registry::new(&dispatcher);
        let stopping = CancellationToken::new();
        let mut kubelet_tls = pki::tls::client_config(&[config.ca.cert_pem()], Some(&config.kubelet_client))?;
        kubelet_tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let server = Self {
            authn: Authn::new(&config)?,
            authorizers: authorizers(&registry, &stopping, &config.authorization)?,
            lives: admission::Lives::start(&registry, &stopping)?,
            webhooks: Webhooks::new(Arc::new(webhook::Resolver::start(&registry, &stopping)?)),
            fairness: Fairness::new(config.limits.requests),
            auditor: Arc::new(Auditor::new(&config.audit).map_err(Error::Config)?),
            aggregator: Aggregator::new(&registry, &stopping)?,
            allocators: Allocators::new(&config, &registry, &stopping)?,
            kubelet_tls: Arc::new(kubelet_tls),
            ready: AtomicBool::new(false),
            itself: OnceLock::new(),
            config,
            registry,
            stopping,
        };
        let server = Arc::new(server);
        // Set once, here.
        let _ = server.itself.set(Arc::downgrade(&server));
        server.auditor.start(&server);
        Ok(server)
    }

    /// Makes what every cluster has, and then reports ready.
    pub async fn bootstrap(self: &Arc<Self>) -> Result<(), Error> {
        if let Some(encryption) = &self.config.encryption {
            let checked = encryption::check(&*self.config.kv, &self.registry, encryption).await;
            checked.map_err(|error| Error::Config(error.to_string()))?;
        }
        self.allocators.load(self).await?;
        tokio::try_join!(bootstrap::run(self), fairness::controller::ensure(self))?;
        self.authorizers.rbac.synced().await;
        self.authorizers.node.synced().await;
        self.lives.synced().await;
        self.webhooks.resolver().synced().await;
        crate::custom::controller::start(self).await;
        admission::policy_status::start(self);
        Aggregator::start(self);
        Authn::follow(self);
        Authorizers::follow(self);
        self.follow_fairness().await?;
        self.ready.store(true, Ordering::Release);
        let (repair, stopping) = (allocators::repair(Arc::downgrade(self)), self.stopping.clone());
        tokio::spawn(async move { stopping.run_until_cancelled_owned(repair).await });
        if let Some(encryption) = self.config.encryption.clone() {
            tokio::spawn(rewrite(Arc::downgrade(self), encryption));
        }
        Ok(())
    }

    async fn follow_fairness(self: &Arc<Self>) -> Result<(), Error> {
        use fairness::controller::{Objects, run};
        let objects = Objects::start(&self.registry, &self.stopping)?;
        objects.schemas.synced().await;
        objects.levels.synced().await;
        objects.apply(&self.fairness);
        let (weak, stopping) = (Arc::downgrade(self), self.stopping.clone());
        tokio::spawn(async move { stopping.run_until_cancelled_owned(run(weak, objects)).await });
        Ok(())
    }

    /// Whether the server answers as it should.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.stopping.is_cancelled()
    }

    /// Whether the server has done what it does once, before it is ready.
    pub(crate) fn has_begun(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// The service that answers one identity's requests from memory.
    pub fn service(
        self: &Arc<Self>,
        user: UserInfo,
    ) -> impl tower::Service<
        Request<kube::client::Body>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + 'static {
        let agent = HeaderValue::from_static(component(&user.name));
        let (server, user) = (self.clone(), Arc::new(user));
        tower::service_fn(move |mut request: Request<kube::client::Body>| {
            let (server, user) = (server.clone(), user.clone());
            request.headers_mut().entry(USER_AGENT).or_insert_with(|| agent.clone());
            async move {
                let request = request.map(|body| body.map_err(std::io::Error::other).boxed_unsync());
                Ok::<_, Infallible>(chain::handle(server, request, Connection::Memory(user)).await)
            }
        })
    }

    /// A client that acts as `user`, without TCP and TLS.
    pub fn client(self: &Arc<Self>, user: UserInfo) -> kube::Client {
        let service = self.service(user).map_err(|never| -> std::io::Error { match never {} });
        kube::Client::new(service, "default")
    }

    /// Serves a listener until the token is cancelled and its connections are done.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Arc<ServerConfig>, token: CancellationToken) {
        tls::serve(self, listener, tls, token).await;
    }

    /// Ends watches and caches; called when the process stops.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The resources served.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The store of a resource in its stored version.
    pub fn store(&self, group: &str, resource: &str) -> Option<Arc<ObjectStore>> {
        self.registry.any_version(group, resource).map(|r| r.store.clone())
    }

    pub(crate) fn authn(&self) -> &Authn {
        &self.authn
    }

    pub(crate) fn authorizers(&self) -> &Authorizers {
        &self.authorizers
    }

    pub(crate) fn lives(&self) -> &admission::Lives {
        &self.lives
    }

    /// What can outlive a request and does not keep the server.
    pub(crate) fn weak(&self) -> Weak<Self> {
        self.itself.get().cloned().unwrap_or_default()
    }

    pub(crate) fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    pub(crate) fn fairness(&self) -> &Arc<Fairness> {
        &self.fairness
    }

    pub(crate) fn auditor(&self) -> &Arc<Auditor> {
        &self.auditor
    }

    pub(crate) fn aggregator(&self) -> &Aggregator {
        &self.aggregator
    }

    pub(crate) fn allocators(&self) -> &Allocators {
        &self.allocators
    }

    pub(crate) fn kubelet_tls(&self) -> &Arc<rustls::ClientConfig> {
        &self.kubelet_tls
    }

    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

/// Seals anew what an old key has sealed, beside the requests.
async fn rewrite(server: Weak<ApiServer>, encryption: Encryption) {
    let Some(server) = server.upgrade() else { return };
    match encryption::rewrite(&*server.config.kv, &server.registry, &encryption).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "stored objects were encrypted with the newest key"),
        Err(error) => tracing::error!(%error, "cannot encrypt stored objects with the newest key; the next start tries again"),
    }
}

/// Starts a live cache of a resource.
pub(crate) fn live<T: Send + Sync + 'static>(
    registry: &Registry,
    token: &CancellationToken,
    (group, resource): (&str, &str),
    parse: fn(&Stored) -> Option<T>,
) -> Result<Arc<Live<T>>, Error> {
    let row = registry.any_version(group, resource);
    let row = row.ok_or_else(|| Error::Config(format!("{resource} of group {group:?} are not served")))?;
    Ok(Live::start(row.store.clone(), parse, token.clone()))
}

fn authorizers(
    registry: &Registry,
    token: &CancellationToken,
    settings: &authz::Settings,
) -> Result<Authorizers, Error> {
    use authz::{node, rbac};
    const RBAC: &str = "rbac.authorization.k8s.io";
    let node = Node {
        pods: live(registry, token, ("", "pods"), node::parse_pod)?,
        volumes: live(registry, token, ("", "persistentvolumes"), node::parse_volume)?,
        attachments: live(registry, token, ("storage.k8s.io", "volumeattachments"), node::parse_node_name)?,
        slices: live(registry, token, ("resource.k8s.io", "resourceslices"), node::parse_node_name)?,
        rules: bootstrap::rbac::node_rules(),
    };
    let rbac = Rbac {
        cluster_roles: live(registry, token, (RBAC, "clusterroles"), rbac::parse_role)?,
        cluster_role_bindings: live(registry, token, (RBAC, "clusterrolebindings"), rbac::parse_binding)?,
        roles: live(registry, token, (RBAC, "roles"), rbac::parse_role)?,
        role_bindings: live(registry, token, (RBAC, "rolebindings"), rbac::parse_binding)?,
    };
    Authorizers::new(node, rbac, settings).map_err(Error::Config)
}
/// The component that acts as a user of this process; fields that it sets are managed by that name.
fn component(user: &str) -> &'static str {
    match user {
        "system:kube-scheduler" => "kube-scheduler",
        node if node.starts_with("system:node:") => "kubelet",
        manager if manager == "system:kube-controller-manager" || manager.starts_with("system:serviceaccount:") => {
            "kube-controller-manager"
        }
        _ => "kube-apiserver",
    }
}

