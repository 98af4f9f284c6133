//! The store of one informer: objects by key, indexes, handlers.

use crate::subscription::{self, Subscription};
use kube::Resource;
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What an informer can hold: every `k8s-openapi` kind, and kube's dynamic and metadata-only objects.
pub trait Stored: Resource + DeserializeOwned + Send + Sync + 'static {}
impl<K: Resource + DeserializeOwned + Send + Sync + 'static> Stored for K {}

/// Namespace and name of an object; the namespace is empty for cluster-scoped ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// Builds a key.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub fn of<K: Resource>(obj: &K) -> Self {
        let meta = obj.meta();
        Self { namespace: meta.namespace.clone().unwrap_or_default(), name: meta.name.clone().unwrap_or_default() }
    }
}

/// Prints `namespace/name`, or `name` alone.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// A change of one object, as handlers see it.
#[derive(Debug)]
pub enum Event<K> {
    /// The object is new to this handler.
    Added(Arc<K>),
    /// The object changed; `old` is what this handler saw last.
    Updated {
        /// The state this handler was told last.
        old: Arc<K>,
        /// The present state.
        new: Arc<K>,
    },
    /// The object is gone; its last known state.
    Deleted(Arc<K>),
}

impl<K> Clone for Event<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Added(obj) => Self::Added(obj.clone()),
            Self::Updated { old, new } => Self::Updated { old: old.clone(), new: new.clone() },
            Self::Deleted(obj) => Self::Deleted(obj.clone()),
        }
    }
}

impl<K> Event<K> {
    /// The newest state the event carries.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(obj) | Self::Deleted(obj) | Self::Updated { new: obj, .. } => obj,
        }
    }
}

type IndexFn<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;
/// Answers whether it wants further events.
type Handler<K> = Box<dyn Fn(&Event<K>) -> bool + Send + Sync>;

struct Index<K> {
    values_of: IndexFn<K>,
    keys: HashMap<String, HashSet<Key>>,
}

impl<K> Index<K> {
    fn insert(&mut self, key: &Key, obj: &K) {
        for value in (self.values_of)(obj) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &Key, obj: &K) {
        for value in (self.values_of)(obj) {
            if let Some(set) = self.keys.get_mut(&value) {
                set.remove(key);
                if set.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

struct Contents<K> {
    objects: BTreeMap<Key, Arc<K>>,
    indexes: HashMap<&'static str, Index<K>>,
}

pub(crate) struct Store<K> {
    contents: RwLock<Contents<K>>,
    // Held while the store changes and handlers run, so that replay and events cannot interleave.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
    stop: CancellationToken,
}

impl<K> Drop for Store<K> {
    fn drop(&mut self) {
        // The reflector may be waiting for a frame that never comes.
        self.stop.cancel();
    }
}

impl<K: Stored> Store<K> {
    pub(crate) fn new(stop: CancellationToken) -> Arc<Self> {
        let contents = RwLock::new(Contents { objects: BTreeMap::new(), indexes: HashMap::new() });
        Arc::new(Self { contents, handlers: Mutex::default(), synced: watch::channel(false).0, stop })
    }

    /// Puts one object in place and tells the handlers.
    pub(crate) fn apply(&self, obj: K) {
        let mut handlers = self.handlers.lock();
        if let Some(event) = self.put(Arc::new(obj)) {
            handlers.retain(|handler| handler(&event));
        }
    }

    /// Removes one object; `last` is its final state.
    pub(crate) fn delete(&self, last: K) {
        let mut handlers = self.handlers.lock();
        let key = Key::of(&last);
        if self.take(&key).is_some() {
            let event = Event::Deleted(Arc::new(last));
            handlers.retain(|handler| handler(&event));
        }
    }

    /// Makes the store hold exactly `list`, telling the handlers the differences.
    pub(crate) fn replace(&self, list: Vec<K>) {
        let mut handlers = self.handlers.lock();
        let present: HashSet<Key> = list.iter().map(Key::of).collect();
        let gone: Vec<Key> = self.contents.read().objects.keys().filter(|k| !present.contains(*k)).cloned().collect();
        let deleted = gone.iter().filter_map(|key| self.take(key)).map(Event::Deleted).collect::<Vec<_>>();
        let changed = list.into_iter().filter_map(|obj| self.put(Arc::new(obj))).collect::<Vec<_>>();
        for event in deleted.iter().chain(&changed) {
            handlers.retain(|handler| handler(event));
        }
        self.synced.send_replace(true);
    }

    fn put(&self, new: Arc<K>) -> Option<Event<K>> {
        let key = Key::of(new.as_ref());
        let mut contents = self.contents.write();
        let Contents { objects, indexes } = &mut *contents;
        let old = objects.get(&key).cloned();
        if old.as_ref().is_some_and(|old| old.meta().resource_version == new.meta().resource_version) {
            return None;
        }
        for index in indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.insert(&key, &new);
        }
        objects.insert(key, new.clone());
        Some(match old {
            Some(old) => Event::Updated { old, new },
            None => Event::Added(new),
        })
    }

    fn take(&self, key: &Key) -> Option<Arc<K>> {
        let mut contents = self.contents.write();
        let old = contents.objects.remove(key)?;
        contents.indexes.values_mut().for_each(|index| index.remove(key, &old));
        Some(old)
    }
}

/// A shared, always current view of the objects of one kind (and selector).
pub struct Informer<K> {
    pub(crate) store: Arc<Store<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone() }
    }
}

impl<K: Stored> Informer<K> {
    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get_key(&Key::new(namespace, name))
    }

    /// One object by its key.
    pub fn get_key(&self, key: &Key) -> Option<Arc<K>> {
        self.store.contents.read().objects.get(key).cloned()
    }

    /// Every object, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.store.contents.read().objects.values().cloned().collect()
    }

    /// Every object of a namespace, ordered by name.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = Key::new(namespace, "");
        let contents = self.store.contents.read();
        let range = contents.objects.range((Bound::Included(from), Bound::Unbounded));
        range.take_while(|(key, _)| key.namespace == namespace).map(|(_, obj)| obj.clone()).collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.store.contents.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an index; a name that exists keeps its first function.
    pub fn add_index(&self, name: &'static str, values_of: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) {
        let mut contents = self.store.contents.write();
        let Contents { objects, indexes } = &mut *contents;
        indexes.entry(name).or_insert_with(|| {
            let mut index = Index { values_of: Box::new(values_of), keys: HashMap::new() };
            objects.iter().for_each(|(key, obj)| index.insert(key, obj));
            index
        });
    }

    /// The objects an index files under a value; empty for an index that was never added.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let contents = self.store.contents.read();
        let keys = contents.indexes.get(name).and_then(|index| index.keys.get(value));
        keys.into_iter().flatten().filter_map(|key| contents.objects.get(key).cloned()).collect()
    }

    /// Whether the first list has arrived and every handler was told of it.
    pub fn has_synced(&self) -> bool {
        *self.store.synced.borrow()
    }

    /// Waits for the first list.
    pub async fn synced(&self) {
        let mut seen = self.store.synced.subscribe();
        // The sender lives in the store that `self` holds, so this cannot fail.
        let _ = seen.wait_for(|synced| *synced).await;
    }

    /// Calls `handler` for the present objects (as `Added`) and then for every change, in order.
    ///
    /// It runs on the reflector's task: it must only file a key or set a flag. It may read this
    /// informer but must not register handlers on it.
    pub fn on_event(&self, handler: impl Fn(&Event<K>) + Send + Sync + 'static) {
        self.register(Box::new(move |event| {
            handler(event);
            true
        }));
    }

    fn register(&self, handler: Handler<K>) {
        let mut handlers = self.store.handlers.lock();
        if self.list().into_iter().all(|obj| handler(&Event::Added(obj))) {
            handlers.push(handler);
        }
    }

    /// A stream of the same events for a task of its own; changes it is late for are coalesced per object.
    pub fn subscribe(&self) -> Subscription<K> {
        let (buffer, subscription) = subscription::pair(self.store.stop.clone());
        self.register(Box::new(move |event| buffer.push(event.clone())));
        subscription
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use api::k8s::core::v1::Pod;
    use serde_json::json;

    pub(crate) fn pod(name: &str, rv: &str, node: &str) -> Pod {
        let object = json!({"metadata": {"name": name, "namespace": "n", "uid": format!("{name}-uid"), "resourceVersion": rv},
            "spec": {"nodeName": node, "containers": []}});
        serde_json::from_value(object).expect("pod")
    }

    pub(crate) fn informer<K: Stored>() -> Informer<K> {
        Informer { store: Store::new(CancellationToken::new()) }
    }

    fn describe(event: &Event<Pod>) -> String {
        let rv = |p: &Pod| p.metadata.resource_version.clone().unwrap_or_default();
        match event {
            Event::Added(p) => format!("+{}", rv(p)),
            Event::Updated { old, new } => format!("{}>{}", rv(old), rv(new)),
            Event::Deleted(p) => format!("-{}", rv(p)),
        }
    }

    #[test]
    fn handlers_see_replay_changes_and_relist_differences() {
        let pods = informer();
        pods.store.replace(vec![pod("a", "1", "x"), pod("b", "2", "x")]);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        pods.on_event(move |event| log.lock().push(describe(event)));
        pods.store.apply(pod("a", "3", "y"));
        pods.store.apply(pod("a", "3", "y"));
        pods.store.replace(vec![pod("a", "3", "y"), pod("c", "4", "y")]);
        pods.store.delete(pod("c", "5", "y"));
        assert_eq!(*seen.lock(), ["+1", "+2", "1>3", "-2", "+4", "-5"]);
    }

    #[test]
    fn indexes_follow_changes() {
        let pods = informer();
        pods.store.apply(pod("a", "1", "x"));
        pods.add_index("node", |p| p.spec.iter().filter_map(|s| s.node_name.clone()).collect());
        pods.store.apply(pod("b", "2", "x"));
        assert_eq!(pods.by_index("node", "x").len(), 2);
        pods.store.apply(pod("a", "3", "y"));
        pods.store.delete(pod("b", "4", "x"));
        assert_eq!((pods.by_index("node", "x").len(), pods.by_index("node", "y").len()), (0, 1));
        assert_eq!((pods.list_in("n").len(), pods.list_in("m").len(), pods.list_in("o").len()), (1, 0, 0));
    }
}
