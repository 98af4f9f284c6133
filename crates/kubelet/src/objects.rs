//! Config maps and secrets that pods of this node refer to, each watched on its own.
//!
//! The Node authorizer lets a kubelet read only objects its pods name, so there is one informer per object
//! (`metadata.name=…`), shared by all pods that use it and ended with the last of them. A change wakes those
//! pods; their next sync sees the new content.

use informer::{Informer, InformerFactory, Stored};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// How long a reader waits for the first list, as upstream's watch-based manager.
const FIRST_LIST: Duration = Duration::from_secs(1);

/// Called with the uid of a pod whose sync has something to see.
pub type Wake = Arc<dyn Fn(&str) + Send + Sync>;

type Users = Arc<Mutex<HashSet<String>>>;
type Key = (String, String);

struct Entry<K> {
    informer: Informer<K>,
    users: Users,
    /// Ends the watch when dropped.
    _factory: Arc<InformerFactory>,
}

/// Why an object could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The API has no such object.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// Lower-case kind.
        kind: &'static str,
        /// Name.
        name: String,
    },
    /// The API did not answer in time.
    #[error("failed to sync {0} cache: timed out waiting for the condition")]
    Timeout(&'static str),
}

/// Watched objects of one kind.
pub struct ObjectCache<K> {
    kind: &'static str,
    client: kube::Client,
    wake: Wake,
    entries: Mutex<HashMap<Key, Entry<K>>>,
}

impl<K: Stored<DynamicType = ()>> ObjectCache<K> {
    /// Makes an empty cache; `kind` is the lower-case kind of messages.
    pub fn new(kind: &'static str, client: kube::Client, wake: Wake) -> Self {
        Self { kind, client, wake, entries: Mutex::default() }
    }

    /// The object as last seen; the pod is woken by its changes until [`Self::release`].
    pub async fn get(&self, pod_uid: &str, namespace: &str, name: &str) -> Result<Arc<K>, Error> {
        let informer = self.informer(pod_uid, namespace, name);
        tokio::time::timeout(FIRST_LIST, informer.synced()).await.map_err(|_| Error::Timeout(self.kind))?;
        informer.get(namespace, name).ok_or_else(|| Error::NotFound { kind: self.kind, name: name.to_owned() })
    }

    /// Forgets a pod; watches that no pod needs end.
    pub fn release(&self, pod_uid: &str) {
        self.entries.lock().retain(|_, entry| {
            let mut users = entry.users.lock();
            users.remove(pod_uid);
            !users.is_empty()
        });
    }

    fn informer(&self, pod_uid: &str, namespace: &str, name: &str) -> Informer<K> {
        let mut entries = self.entries.lock();
        let entry =
            entries.entry((namespace.to_owned(), name.to_owned())).or_insert_with(|| self.start(namespace, name));
        entry.users.lock().insert(pod_uid.to_owned());
        entry.informer.clone()
    }

    fn start(&self, namespace: &str, name: &str) -> Entry<K> {
        let factory = InformerFactory::new(self.client.clone());
        let informer = factory.informer_filtered::<K>(&format!("metadata.name={name}"), "", namespace);
        let users = Users::default();
        let (wake, woken) = (self.wake.clone(), users.clone());
        informer.on_event(move |_| {
            let uids: Vec<String> = woken.lock().iter().cloned().collect();
            uids.iter().for_each(|uid| wake(uid));
        });
        Entry { informer, users, _factory: factory }
    }
}
