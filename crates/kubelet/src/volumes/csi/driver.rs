//! The registered drivers, and what is set up with them.

use crate::plugins::rpc;
use parking_lot::Mutex;
use protos::csi::NodeGetCapabilitiesRequest;
use protos::csi::node_client::NodeClient;
use protos::csi::node_service_capability::{Type, rpc::Type as Rpc};
use protos::socket::{self, MAX_MESSAGE};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tonic::transport::Channel;

/// A driver that is registered.
#[derive(Clone)]
pub struct Driver {
    /// Where it listens.
    pub endpoint: PathBuf,
    channel: Channel,
    capabilities: Arc<tokio::sync::OnceCell<BTreeSet<i32>>>,
}

impl Driver {
    /// Connects when it is first called.
    pub fn new(endpoint: &Path) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            channel: socket::connect_lazily(endpoint),
            capabilities: Default::default(),
        }
    }

    /// The node service.
    pub fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Whether the node service can do something; asked once per registration.
    pub async fn can(&self, what: Rpc) -> Result<bool, String> {
        let ask = || async {
            let answer = self.node().node_get_capabilities(rpc::timed(NodeGetCapabilitiesRequest {})).await;
            let list = answer.map_err(|s| rpc::text(&s))?.into_inner().capabilities;
            Ok::<_, String>(list.into_iter().filter_map(|c| c.r#type).map(|Type::Rpc(rpc)| rpc.r#type).collect())
        };
        Ok(self.capabilities.get_or_try_init(ask).await?.contains(&i32::from(what)))
    }
}

/// Drivers by name, and the volumes that are set up.
#[derive(Default)]
pub struct Drivers {
    known: Mutex<BTreeMap<String, Driver>>,
    /// Targets that are published, and when they are to be published again.
    published: Mutex<BTreeMap<PathBuf, Option<Instant>>>,
    /// Attached volumes (unique names) by target.
    in_use: Mutex<BTreeMap<PathBuf, String>>,
    /// Pods that wait for an attachment.
    waiting: Mutex<BTreeSet<String>>,
    /// What is in use has changed.
    changed: tokio::sync::Notify,
    /// One call at a time per staging path.
    locks: Mutex<BTreeMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
}

impl Drivers {
    /// The driver of a name.
    pub fn get(&self, name: &str) -> Result<Driver, String> {
        let known = self.known.lock().get(name).cloned();
        known.ok_or_else(|| format!("driver name {name} not found in the list of registered CSI drivers"))
    }

    /// Adds a driver, or replaces it.
    pub fn put(&self, name: &str, driver: Driver) {
        self.known.lock().insert(name.to_owned(), driver);
    }

    /// Forgets a driver.
    pub fn remove(&self, name: &str) {
        self.known.lock().remove(name);
    }

    /// Whether a target is published and not due.
    pub fn is_published(&self, target: &Path) -> Option<Option<Instant>> {
        let published = self.published.lock();
        published.get(target).copied().filter(|due| due.is_none_or(|at| at > Instant::now()))
    }

    /// Notes a published target.
    pub fn set_published(&self, target: &Path, again: Option<Instant>, attached: Option<String>) {
        self.published.lock().insert(target.to_owned(), again);
        self.set_in_use(target, attached.as_deref());
    }

    /// Notes that an attached volume is about to be used: it must not be detached from now on.
    pub fn set_in_use(&self, target: &Path, attached: Option<&str>) {
        let Some(name) = attached else { return };
        if self.in_use.lock().insert(target.to_owned(), name.to_owned()).is_none() {
            self.changed.notify_one();
        }
    }

    /// Waits until what is in use has changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Notes a pod that waits for the node's status to name an attached volume.
    pub fn wait_for_attachment(&self, pod_uid: &str) {
        self.waiting.lock().insert(pod_uid.to_owned());
    }

    /// Takes those who wait.
    pub fn take_waiting(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// Forgets a target.
    pub fn forget(&self, target: &Path) {
        self.published.lock().remove(target);
        if self.in_use.lock().remove(target).is_some() {
            self.changed.notify_one();
        }
    }

    /// `status.volumesInUse`: what must not be detached.
    pub fn volumes_in_use(&self) -> Vec<String> {
        self.in_use.lock().values().cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Waits for one's turn at a staging path.
    pub async fn lock(&self, path: &Path) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock();
            // Those nobody holds or waits for are made anew when needed.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(path.to_owned()).or_default().clone()
        };
        lock.lock_owned().await
    }
}
