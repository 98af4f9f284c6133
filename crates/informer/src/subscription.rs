//! Events for a consumer that runs at its own pace: coalesced per object, so bounded by what exists.

use crate::store::{Event, Key, Stored};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// More unseen deletions and recreations of one name than this are dropped from the middle.
const MAX_PER_KEY: usize = 8;

struct Pending<K> {
    order: VecDeque<Key>,
    events: HashMap<Key, VecDeque<Event<K>>>,
}

pub(crate) struct Buffer<K> {
    pending: Arc<(Mutex<Pending<K>>, Notify)>,
}

/// A stream of events; dropping it ends it.
pub struct Subscription<K> {
    pending: Arc<(Mutex<Pending<K>>, Notify)>,
    stop: CancellationToken,
}

pub(crate) fn pair<K>(stop: CancellationToken) -> (Buffer<K>, Subscription<K>) {
    let pending = Pending { order: VecDeque::new(), events: HashMap::new() };
    let pending = Arc::new((Mutex::new(pending), Notify::new()));
    (Buffer { pending: pending.clone() }, Subscription { pending, stop })
}

impl<K: Stored> Buffer<K> {
    /// Files an event; answers whether anyone still listens.
    pub(crate) fn push(&self, event: Event<K>) -> bool {
        // One owner left means that the subscription was dropped.
        if Arc::strong_count(&self.pending) == 1 {
            return false;
        }
        let (pending, notify) = &*self.pending;
        let mut guard = pending.lock();
        let Pending { order, events } = &mut *guard;
        let key = Key::of(event.object().as_ref());
        let queue = events.entry(key.clone()).or_default();
        if queue.is_empty() {
            order.push_back(key);
        }
        coalesce(queue, event);
        drop(guard);
        notify.notify_one();
        true
    }
}

fn coalesce<K>(queue: &mut VecDeque<Event<K>>, event: Event<K>) {
    match (queue.back_mut(), event) {
        (Some(Event::Added(last)), Event::Updated { new, .. }) => *last = new,
        (Some(Event::Updated { new: last, .. }), Event::Updated { new, .. }) => *last = new,
        (_, event) => queue.push_back(event),
    }
    while queue.len() > MAX_PER_KEY {
        // Entries alternate, so removing two neighbours keeps a sequence that makes sense.
        queue.drain(1..3);
    }
}

impl<K: Stored> Subscription<K> {
    /// The next event; `None` once the factory is shut down.
    pub async fn next(&mut self) -> Option<Event<K>> {
        loop {
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            tokio::select! {
                () = self.pending.1.notified() => {}
                () = self.stop.cancelled() => return None,
            }
        }
    }

    /// An event that is already there.
    pub fn try_next(&mut self) -> Option<Event<K>> {
        let mut guard = self.pending.0.lock();
        let Pending { order, events } = &mut *guard;
        let key = order.front()?.clone();
        let queue = events.get_mut(&key)?;
        let event = queue.pop_front();
        if queue.is_empty() {
            events.remove(&key);
            order.pop_front();
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{informer, pod};

    #[tokio::test]
    async fn late_consumers_get_coalesced_events_in_order() {
        let pods = informer();
        pods.store.apply(pod("a", "1", ""));
        let mut events = pods.subscribe();
        pods.store.apply(pod("b", "2", ""));
        pods.store.apply(pod("a", "3", ""));
        pods.store.apply(pod("a", "4", ""));
        pods.store.delete(pod("b", "5", ""));
        let mut seen = Vec::new();
        while let Some(event) = events.try_next() {
            let rv = event.object().metadata.resource_version.clone().unwrap_or_default();
            seen.push((
                std::mem::discriminant(&event) == std::mem::discriminant(&Event::Deleted(event.object().clone())),
                rv,
            ));
        }
        assert_eq!(seen, [(false, "4".to_owned()), (false, "2".into()), (true, "5".into())]);
    }
}
