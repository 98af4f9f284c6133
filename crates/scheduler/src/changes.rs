//! Kinds of objects that plugins watch, and which of them have changed.

use crate::framework::ClusterEvent;
use api::k8s::core::v1::PersistentVolumeClaim;
use informer::{Informer, Key, Stored};
use parking_lot::Mutex;
use std::any::TypeId;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::Notify;

/// The kinds that plugins asked for.
///
/// Only the kinds are kept, not the objects: a pod that may be helped is tried on the state there is by then, so many
/// changes between two looks are one event. Of claims for volumes, which help their own pods only, the keys are kept.
#[derive(Default)]
pub(crate) struct Changes {
    watched: HashSet<TypeId>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    kinds: Mutex<HashSet<TypeId>>,
    claims: Mutex<HashSet<Key>>,
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

    /// Makes an event of every change of claims from now on.
    pub fn watch_claims(&mut self, informer: &Informer<PersistentVolumeClaim>) {
        if !self.watched.insert(TypeId::of::<PersistentVolumeClaim>()) {
            return;
        }
        let seen = self.seen.clone();
        informer.on_event(move |event| {
            seen.claims.lock().insert(Key::of(event.object().as_ref()));
            seen.notify.notify_one();
        });
    }

    /// What has changed since the last look.
    pub fn take(&self) -> Vec<ClusterEvent> {
        let kinds = std::mem::take(&mut *self.seen.kinds.lock());
        let claims = std::mem::take(&mut *self.seen.claims.lock());
        let of_claims = (!claims.is_empty()).then_some(ClusterEvent::ClaimsChanged(claims));
        kinds.into_iter().map(ClusterEvent::Changed).chain(of_claims).collect()
    }

    /// Waits for a change that is new.
    pub async fn changed(&self) {
        self.seen.notify.notified().await;
    }
}
