//! Live caches: the parsed objects of one resource, fed by its store's watch.
//!
//! Authorization and admission read them on every request, so they hold what is needed already parsed.
//! A cache is a moment behind the store, as every informer is.

use crate::store::{ObjectStore, Selection, Stored, WatchEvent, WatchOptions, WatchStart};
use futures::StreamExt;
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Namespace and name.
pub type Key = (String, String);
type Parse<T> = fn(&Stored) -> Option<T>;

/// The parsed objects of one resource.
pub struct Live<T> {
    items: RwLock<BTreeMap<Key, Arc<T>>>,
    synced: watch::Sender<bool>,
    version: watch::Sender<u64>,
    parse: Parse<T>,
}

impl<T: Send + Sync + 'static> Live<T> {
    /// Starts a cache of a store; it ends with the token.
    pub fn start(store: Arc<ObjectStore>, parse: Parse<T>, token: CancellationToken) -> Arc<Self> {
        let live = Arc::new(Self {
            items: RwLock::default(),
            synced: watch::Sender::new(false),
            version: watch::Sender::new(0),
            parse,
        });
        let task = live.clone();
        tokio::spawn(async move {
            token.run_until_cancelled(task.run(store)).await;
        });
        live
    }

    /// Waits until the cache has seen everything that existed when it started.
    pub async fn synced(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Tells of every change; the number itself means nothing.
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.items.read().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// The objects of a namespace (empty: cluster scope).
    pub fn in_namespace(&self, namespace: &str) -> Vec<(String, Arc<T>)> {
        let start = (namespace.to_owned(), String::new());
        let items = self.items.read();
        let range = items.range(start..).take_while(|((ns, _), _)| ns == namespace);
        range.map(|((_, name), item)| (name.clone(), item.clone())).collect()
    }

    /// All objects, by namespace and name.
    pub fn values(&self) -> Vec<Arc<T>> {
        self.items.read().values().cloned().collect()
    }

    /// Whether some object of a namespace is as wanted; nothing is copied.
    pub fn any_in_namespace(&self, namespace: &str, wanted: impl Fn(&T) -> bool) -> bool {
        let start = (namespace.to_owned(), String::new());
        let items = self.items.read();
        items.range(start..).take_while(|((ns, _), _)| ns == namespace).any(|(_, item)| wanted(item))
    }

    /// Whether some object of any namespace is as wanted; nothing is copied.
    pub fn any(&self, wanted: impl Fn(&T) -> bool) -> bool {
        self.items.read().values().any(|item| wanted(item))
    }

    async fn run(&self, store: Arc<ObjectStore>) {
        loop {
            let options =
                WatchOptions { selection: Selection::default(), start: WatchStart::InitialEvents(0), bookmarks: true };
            match store.watch(options).await {
                Ok(mut watch) => {
                    let mut fresh = Some(HashMap::new());
                    while let Some(event) = watch.next().await {
                        if !self.apply(event, &mut fresh) {
                            break;
                        }
                        if fresh.is_none() {
                            self.version.send_modify(|version| *version += 1);
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, resource = store.spec().prefix, "cannot watch"),
            }
            // The watch ended (compaction, lag): start over, without spinning when the store is ill.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Takes an event in; initial events are collected and replace the whole at their end.
    fn apply(&self, event: WatchEvent, fresh: &mut Option<HashMap<Key, Arc<T>>>) -> bool {
        match event {
            WatchEvent::Added(stored) | WatchEvent::Modified(stored) => {
                let key = (stored.meta.namespace.clone(), stored.meta.name.clone());
                let item = (self.parse)(&stored).map(Arc::new);
                match (fresh, item) {
                    (Some(fresh), Some(item)) => drop(fresh.insert(key, item)),
                    (None, Some(item)) => drop(self.items.write().insert(key, item)),
                    // It is no longer of the kind that is kept here.
                    (None, None) => drop(self.items.write().remove(&key)),
                    (Some(_), None) => {}
                }
            }
            WatchEvent::Deleted(stored) => {
                let key = (stored.meta.namespace.clone(), stored.meta.name.clone());
                match fresh {
                    Some(fresh) => drop(fresh.remove(&key)),
                    None => drop(self.items.write().remove(&key)),
                }
            }
            WatchEvent::Bookmark { initial_events_end: true, .. } => {
                if let Some(fresh) = fresh.take() {
                    *self.items.write() = fresh.into_iter().collect();
                    self.synced.send_replace(true);
                }
            }
            WatchEvent::Bookmark { .. } => {}
            WatchEvent::Error(error) => {
                tracing::debug!(%error, "watch ended");
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Meta;

    #[test]
    fn what_cannot_be_parsed_any_more_is_gone() {
        let parse: Parse<String> = |stored| stored.meta.label("kept").map(str::to_owned);
        let (synced, version) = (watch::Sender::new(false), watch::Sender::new(0));
        let live = Live { items: RwLock::default(), synced, version, parse };
        let object = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Stored::of("{}".into(), Meta { name: "a".into(), labels, ..Meta::default() })
        };
        assert!(live.apply(WatchEvent::Added(object(&[("kept", "1")])), &mut None));
        assert_eq!(live.get("", "a").as_deref().map(String::as_str), Some("1"));
        assert!(live.apply(WatchEvent::Modified(object(&[])), &mut None));
        assert_eq!(live.get("", "a"), None);
    }
}
