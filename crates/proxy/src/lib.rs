//! The service proxy: services and endpoint slices to nftables.
//!
//! Informers mark services dirty; after a few quiet milliseconds [`run`] turns each dirty service into a [`Plan`]
//! ([`plan`], pure), and the [`Table`] sends what differs from before as one nftables transaction.
//!
//! The private table `ip sagong-proxy`: maps lead from `address . protocol . port` (and from node ports) to a chain
//! per service port; the chain picks an endpoint by `numgen random mod n` with one compare rule per endpoint.
//! Services without endpoints are in a map of their own whose chains reject or drop.
//!
//! Invariants: the table is owned by this process alone and made anew at its start, in a transaction; a failed
//! transaction changes nothing and is followed by making the table anew. Nothing polls.
//!
//! Absent: IPv6 services, topology hints.

mod endpoints;
mod health;
mod plan;
mod rules;
mod stale;
mod table;

pub use plan::{Plan, plan};
pub use table::Table;

use endpoints::SERVICE_NAME;
use informer::{Event, Informer, InformerFactory, Key};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Settings of the proxy.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node_name: String,
    /// Addresses of all pods: who sends from elsewhere to a cluster IP is masqueraded.
    pub cluster_cidr: net::Cidr,
}

/// Changes that come this close together are sent together.
const QUIET: Duration = Duration::from_millis(5);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
const INDEX: &str = "proxy/service";

/// Keeps the node's table in step with services and endpoint slices until `shutdown`; the table stays.
pub async fn run(factory: Arc<InformerFactory>, config: Config, shutdown: CancellationToken) {
    let services: Informer<Service> = factory.informer();
    let slices: Informer<EndpointSlice> = factory.informer();
    slices.add_index(INDEX, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect());
    let dirty = Dirty::watch(&services, &slices);
    let ready = async { tokio::join!(services.synced(), slices.synced()) };
    if shutdown.run_until_cancelled(ready).await.is_none() {
        return;
    }
    let proxy = Proxy { services, slices, dirty, config, health: health::Servers::default() };
    shutdown.run_until_cancelled(proxy.run()).await;
}

struct Proxy {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    dirty: Arc<Dirty>,
    config: Config,
    health: health::Servers,
}

impl Proxy {
    async fn run(self) {
        let mut table = Table::new(self.config.cluster_cidr);
        let mut retry = RETRY_FIRST;
        // The first round makes the table even if there is no service.
        self.dirty.wake.notify_one();
        loop {
            self.dirty.wake.notified().await;
            tokio::time::sleep(QUIET).await;
            let changed = self.dirty.take();
            let plans = changed.into_iter().map(|key| (key.clone(), self.plan(&key))).collect();
            let (back, result) = apply(table, plans).await;
            table = back;
            let Err(error) = result else {
                retry = RETRY_FIRST;
                continue;
            };
            tracing::error!(%error, "cannot bring the service rules up to date; making them anew");
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
            self.dirty.mark(self.services.list().iter().map(|service| Key::of(&**service)));
        }
    }

    fn plan(&self, key: &Key) -> Option<Plan> {
        let service = self.services.get_key(key);
        let plan = service.map(|service| {
            let slices = self.slices.by_index(INDEX, &key.to_string());
            plan(&service, &slices, &self.config.node_name, &self.config.cluster_cidr)
        });
        self.health.set(key, plan.as_ref().and_then(|plan| plan.health));
        plan
    }
}

/// Blocking work on a thread; the table comes back in any case.
async fn apply(mut table: Table, plans: HashMap<Key, Option<Plan>>) -> (Table, net::Result<()>) {
    let cidr = table.cluster_cidr();
    let done = net::netns::run(None, move || {
        let result = table.apply(plans);
        Ok((table, result))
    });
    done.await.unwrap_or_else(|error| (Table::new(cidr), Err(error)))
}

/// Services to look at.
#[derive(Default)]
struct Dirty {
    keys: Mutex<HashSet<Key>>,
    wake: Notify,
}

impl Dirty {
    fn watch(services: &Informer<Service>, slices: &Informer<EndpointSlice>) -> Arc<Dirty> {
        let dirty = Arc::new(Dirty::default());
        let marker = dirty.clone();
        services.on_event(move |event| marker.mark([Key::of(&**event.object())]));
        let marker = dirty.clone();
        slices.on_event(move |event| {
            let old = match event {
                Event::Updated { old, .. } => service_of(old),
                _ => None,
            };
            marker.mark(old.into_iter().chain(service_of(event.object())));
        });
        dirty
    }

    fn mark(&self, keys: impl IntoIterator<Item = Key>) {
        self.keys.lock().extend(keys);
        self.wake.notify_one();
    }

    fn take(&self) -> HashSet<Key> {
        std::mem::take(&mut *self.keys.lock())
    }
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}
