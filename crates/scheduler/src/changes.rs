//! Kinds of objects that plugins watch, and which of them have changed.

use crate::framework::ClusterEvent;
use informer::{Informer, Stored};
use parking_lot::Mutex;
use std::any::TypeId;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::Notify;

/// The kinds that plugins asked for.
///
/// Only the kinds are kept, not the objects: a pod that may be helped is tried on the state there is by then, so many
/// changes between two looks are one event.
#[derive(Default)]
pub(crate) struct Changes {
    watched: HashSet<TypeId>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    kinds: Mutex<HashSet<TypeId>>,
    notify: Notify,
}

impl Changes {
    /// Makes an event of every change of a kind from now on.
    pub fn watch<K: Stored>(&mut self, informer: &Informer<K>) {
        let kind = TypeId::of::<K>();
        if !self.watched.insert(kind) {
            return;
        }
        let seen = self.seen.clone();
        informer.on_event(move |_| {
            seen.kinds.lock().insert(kind);
            seen.notify.notify_one();
        });
    }

    /// What has changed since the last look.
    pub fn take(&self) -> Vec<ClusterEvent> {
        std::mem::take(&mut *self.seen.kinds.lock()).into_iter().map(ClusterEvent::Changed).collect()
    }

    /// Waits for a change that is new.
    pub async fn changed(&self) {
        self.seen.notify.notified().await;
    }
}
