//! The server: its configuration, its parts, and the ways to reach it.

use crate::allocators::Allocators;
use crate::authn::UserInfo;
use crate::authz::{node::Node, rbac::Rbac};
use crate::body::Body;
use crate::live::Live;
use crate::registry::Registry;
use crate::store::{Dispatcher, ObjectStore, Stored};
use crate::{admission, authz, bootstrap, chain, tls};
use http::{Request, Response};
use http_body_util::BodyExt;
use pki::{Ca, Identity, ServiceAccountKey};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// The authorizers.
pub struct Authorizers {
    /// Kubelets.
    pub node: Node,
    /// Everyone.
    pub rbac: Rbac,
}

/// The API server.
pub struct ApiServer {
    config: Config,
    registry: Registry,
    authorizers: Authorizers,
    lives: admission::Lives,
    allocators: Allocators,
    kubelet_tls: Arc<rustls::ClientConfig>,
    ready: AtomicBool,
    stopping: CancellationToken,
}

impl ApiServer {
    /// Builds a server; within a tokio runtime. [`ApiServer::bootstrap`] makes it ready.
    pub fn new(config: Config) -> Result<Arc<Self>, Error> {
        let dispatcher = Dispatcher::new(config.kv.clone());
        let registry = Registry::new(&dispatcher);
        let stopping = CancellationToken::new();
        let mut kubelet_tls = pki::tls::client_config(&[config.ca.cert_pem()], Some(&config.kubelet_client))?;
        kubelet_tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let server = Self {
            authorizers: authorizers(&registry, &stopping)?,
            lives: admission::Lives::start(&registry, &stopping)?,
            allocators: Allocators::new(&config).map_err(Error::Config)?,
            kubelet_tls: Arc::new(kubelet_tls),
            ready: AtomicBool::new(false),
            config,
            registry,
            stopping,
        };
        Ok(Arc::new(server))
    }

    /// Makes what every cluster has, and then reports ready.
    pub async fn bootstrap(self: &Arc<Self>) -> Result<(), Error> {
        self.allocators.load(self).await?;
        bootstrap::run(self).await?;
        self.authorizers.rbac.synced().await;
        self.authorizers.node.synced().await;
        self.lives.synced().await;
        crate::custom::controller::start(self).await;
        self.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether the server answers as it should.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.stopping.is_cancelled()
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
        let (server, user) = (self.clone(), Arc::new(user));
        tower::service_fn(move |request: Request<kube::client::Body>| {
            let (server, user) = (server.clone(), user.clone());
            async move {
                let request = request.map(|body| body.map_err(std::io::Error::other).boxed_unsync());
                Ok::<_, Infallible>(chain::handle(server, request, Some(user)).await)
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

    pub(crate) fn authorizers(&self) -> &Authorizers {
        &self.authorizers
    }

    pub(crate) fn lives(&self) -> &admission::Lives {
        &self.lives
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

fn authorizers(registry: &Registry, token: &CancellationToken) -> Result<Authorizers, Error> {
    use authz::{node, rbac};
    const RBAC: &str = "rbac.authorization.k8s.io";
    Ok(Authorizers {
        node: Node {
            pods: live(registry, token, ("", "pods"), node::parse_pod)?,
            volumes: live(registry, token, ("", "persistentvolumes"), node::parse_volume)?,
            attachments: live(registry, token, ("storage.k8s.io", "volumeattachments"), node::parse_node_name)?,
            slices: live(registry, token, ("resource.k8s.io", "resourceslices"), node::parse_node_name)?,
            rules: bootstrap::rbac::node_rules(),
        },
        rbac: Rbac {
            cluster_roles: live(registry, token, (RBAC, "clusterroles"), rbac::parse_role)?,
            cluster_role_bindings: live(registry, token, (RBAC, "clusterrolebindings"), rbac::parse_binding)?,
            roles: live(registry, token, (RBAC, "roles"), rbac::parse_role)?,
            role_bindings: live(registry, token, (RBAC, "rolebindings"), rbac::parse_binding)?,
        },
    })
}
