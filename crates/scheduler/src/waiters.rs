//! Bindings that wait for objects: each is woken by changes of the objects it named, and by no others.
//!
//! An informer has one handler for all of them, so a binding costs nothing to those that do not wait for it. Changes
//! between two looks wake once; who is woken looks at the informers again.

use informer::{Event, Informer, Key, Stored};
use parking_lot::Mutex;
use std::any::TypeId;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// An object by its kind and key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Object(TypeId, Key);

impl Object {
    pub fn new<K: Stored>(key: Key) -> Self {
        Self(TypeId::of::<K>(), key)
    }

    pub fn of<K: Stored>(object: &K) -> Self {
        Self::new::<K>(Key::of(object))
    }
}

/// Who waits for which objects.
#[derive(Default)]
pub(crate) struct Waiters(Mutex<HashMap<Object, Vec<Arc<Wake>>>>);

#[derive(Default)]
struct Wake {
    notify: Notify,
    deleted: AtomicBool,
}

/// One that waits, until it is dropped.
pub(crate) struct Waiting {
    waiters: Arc<Waiters>,
    objects: Vec<Object>,
    wake: Arc<Wake>,
}

impl Waiters {
    /// Lets the changes of a kind wake those that wait for an object of it.
    pub fn follow<K: Stored>(self: &Arc<Self>, informer: &Informer<K>) {
        let waiters = self.clone();
        informer.on_event(move |event| waiters.tell(event));
    }

    /// Lets the changes of a kind wake those that wait for the object which `other` names, too.
    pub fn follow_for<K: Stored>(
        self: &Arc<Self>,
        informer: &Informer<K>,
        other: impl Fn(&K) -> Option<Object> + Send + Sync + 'static,
    ) {
        let waiters = self.clone();
        informer.on_event(move |event| {
            if !waiters.0.lock().is_empty()
                && let Some(object) = other(event.object())
            {
                waiters.wake(&object, false);
            }
        });
    }

    /// Begins to wait: every change of these objects from now on wakes.
    pub fn wait_for(self: &Arc<Self>, objects: impl IntoIterator<Item = Object>) -> Waiting {
        let (objects, wake): (Vec<_>, _) = (objects.into_iter().collect(), Arc::<Wake>::default());
        let mut waiters = self.0.lock();
        objects.iter().for_each(|object| waiters.entry(object.clone()).or_default().push(wake.clone()));
        drop(waiters);
        Waiting { waiters: self.clone(), objects, wake }
    }

    fn tell<K: Stored>(&self, event: &Event<K>) {
        if !self.0.lock().is_empty() {
            self.wake(&Object::of(event.object().as_ref()), matches!(event, Event::Deleted(_)));
        }
    }

    fn wake(&self, object: &Object, deleted: bool) {
        for wake in self.0.lock().get(object).into_iter().flatten() {
            wake.deleted.fetch_or(deleted, Ordering::Relaxed);
            wake.notify.notify_one();
        }
    }
}

impl Waiting {
    /// Waits for a change since it began to wait, or since it was woken last.
    pub async fn woken(&self) {
        self.wake.notify.notified().await;
    }

    /// Whether one of the objects was deleted meanwhile.
    pub fn saw_deletion(&self) -> bool {
        self.wake.deleted.load(Ordering::Relaxed)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiters = self.waiters.0.lock();
        for object in &self.objects {
            if let Some(wakes) = waiters.get_mut(object) {
                wakes.retain(|wake| !Arc::ptr_eq(wake, &self.wake));
                if wakes.is_empty() {
                    waiters.remove(object);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::k8s::core::v1::{Node, Pod};
    use futures::FutureExt;
    use serde_json::json;

    #[tokio::test]
    async fn one_is_woken_by_its_own_objects_only_and_once_for_many_changes() {
        let pod = |name: &str| {
            let pod = json!({"metadata": {"name": name, "namespace": "n"}});
            Arc::new(serde_json::from_value::<Pod>(pod).expect("pod"))
        };
        let waiters = Arc::<Waiters>::default();
        let node = Object::new::<Node>(Key::new("", "p"));
        let waiting = waiters.wait_for([Object::of(pod("p").as_ref()), node.clone()]);
        let woken = || waiting.woken().now_or_never().is_some();
        waiters.tell(&Event::Added(pod("q")));
        waiters.wake(&Object::new::<Pod>(Key::new("", "p")), false);
        assert!(!woken(), "others");
        waiters.tell(&Event::Added(pod("p")));
        waiters.wake(&node, false);
        assert!(woken() && !woken() && !waiting.saw_deletion());
        waiters.tell(&Event::Deleted(pod("p")));
        assert!(woken() && waiting.saw_deletion());
        drop(waiting);
        assert!(waiters.0.lock().is_empty());
    }
}
