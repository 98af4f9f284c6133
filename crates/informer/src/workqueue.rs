//! A queue of keys: one at a time per key, delays, per-item exponential back-off and an overall bucket.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

const BASE: Duration = Duration::from_millis(5);
const MAX: Duration = Duration::from_secs(1000);
const RATE: f64 = 10.0;
const BURST: f64 = 100.0;

struct State<T> {
    ready: VecDeque<T>,
    dirty: HashSet<T>,
    processing: HashSet<T>,
    delayed: BTreeMap<(Instant, u64), T>,
    delayed_at: HashMap<T, (Instant, u64)>,
    failures: HashMap<T, u32>,
    sequence: u64,
    tokens: f64,
    refilled: Instant,
    closed: bool,
}

/// A deduplicating queue: an item added while it is processed is processed once more afterwards.
///
/// Cloning shares the queue.
pub struct WorkQueue<T> {
    inner: Arc<(Mutex<State<T>>, Notify)>,
    base: Duration,
    max: Duration,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), base: self.base, max: self.max }
    }
}

impl<T: Clone + Eq + Hash> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    /// A queue with Kubernetes' default back-off: 5 ms to 1000 s per item, 10 a second overall after 100.
    pub fn new() -> Self {
        Self::with_backoff(BASE, MAX)
    }

    /// A queue with another back-off per item.
    pub fn with_backoff(base: Duration, max: Duration) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            delayed: BTreeMap::new(),
            delayed_at: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            tokens: BURST,
            refilled: Instant::now(),
            closed: false,
        };
        Self { inner: Arc::new((Mutex::new(state), Notify::new())), base, max }
    }

    /// Adds an item, unless it waits already.
    pub fn add(&self, item: T) {
        self.inner.0.lock().push(item);
        self.inner.1.notify_one();
    }

    /// Adds an item after a delay; of several delays the shortest counts.
    pub fn add_after(&self, item: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(item);
        }
        self.inner.0.lock().delay(item, Instant::now() + delay);
        self.inner.1.notify_one();
    }

    /// Adds an item after its back-off, which doubles with every call until [`Self::forget`].
    pub fn add_rate_limited(&self, item: T) {
        let delay = {
            let mut state = self.inner.0.lock();
            let failures = state.failures.entry(item.clone()).or_default();
            let delay = self.base.saturating_mul(1u32.checked_shl(*failures).unwrap_or(u32::MAX)).min(self.max);
            *failures = failures.saturating_add(1);
            delay.max(state.bucket())
        };
        self.add_after(item, delay);
    }

    /// Ends an item's back-off.
    pub fn forget(&self, item: &T) {
        self.inner.0.lock().failures.remove(item);
    }

    /// How often an item was added with back-off since it was last forgotten.
    pub fn requeues(&self, item: &T) -> u32 {
        self.inner.0.lock().failures.get(item).copied().unwrap_or(0)
    }

    /// Items that wait to be processed now.
    pub fn len(&self) -> usize {
        self.inner.0.lock().ready.len()
    }

    /// Whether no item waits to be processed now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next item, which must be given back with [`Self::done`]; `None` once shut down.
    pub async fn get(&self) -> Option<T> {
        loop {
            let deadline = {
                let mut state = self.inner.0.lock();
                if state.closed {
                    self.inner.1.notify_one();
                    return None;
                }
                state.promote(Instant::now());
                if let Some(item) = state.take() {
                    // Someone else must serve what is left, ready or delayed.
                    if !state.ready.is_empty() || !state.delayed.is_empty() {
                        self.inner.1.notify_one();
                    }
                    return Some(item);
                }
                state.delayed.keys().next().map(|(at, _)| *at)
            };
            match deadline {
                Some(at) => tokio::select! {
                    () = self.inner.1.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.inner.1.notified().await,
            }
        }
    }

    /// Ends the processing of an item.
    pub fn done(&self, item: &T) {
        let mut state = self.inner.0.lock();
        state.processing.remove(item);
        if state.dirty.contains(item) {
            state.ready.push_back(item.clone());
            self.inner.1.notify_one();
        }
    }

    /// Makes [`Self::get`] answer `None` from now on.
    pub fn shut_down(&self) {
        self.inner.0.lock().closed = true;
        self.inner.1.notify_waiters();
        self.inner.1.notify_one();
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    fn push(&mut self, item: T) {
        if self.closed || !self.dirty.insert(item.clone()) || self.processing.contains(&item) {
            return;
        }
        self.ready.push_back(item);
    }

    fn take(&mut self) -> Option<T> {
        let item = self.ready.pop_front()?;
        self.dirty.remove(&item);
        self.processing.insert(item.clone());
        Some(item)
    }

    fn delay(&mut self, item: T, at: Instant) {
        if let Some(slot) = self.delayed_at.get(&item).copied() {
            if slot.0 <= at {
                return;
            }
            self.delayed.remove(&slot);
        }
        self.sequence += 1;
        self.delayed_at.insert(item.clone(), (at, self.sequence));
        self.delayed.insert((at, self.sequence), item);
    }

    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let item = entry.remove();
            self.delayed_at.remove(&item);
            self.push(item);
        }
    }

    /// How long the overall bucket makes the next item wait.
    fn bucket(&mut self) -> Duration {
        let now = Instant::now();
        let refill = now.duration_since(self.refilled).as_secs_f64() * RATE;
        self.refilled = now;
        self.tokens = (self.tokens + refill).min(BURST) - 1.0;
        Duration::from_secs_f64((-self.tokens / RATE).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn items_are_processed_one_at_a_time_and_again_when_dirty() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.get().await, Some("a"));
        queue.add("a");
        assert_eq!(queue.len(), 0);
        queue.done(&"a");
        assert_eq!(queue.get().await, Some("a"));
        queue.done(&"a");
        queue.shut_down();
        assert_eq!(queue.get().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn delays_take_the_shortest_and_back_off_doubles() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(9));
        assert_eq!(queue.get().await, Some("a"));
        assert_eq!(start.elapsed().as_secs(), 2);
        queue.done(&"a");
        for wait in [5, 10, 20] {
            let start = Instant::now();
            queue.add_rate_limited("a");
            assert_eq!(queue.get().await, Some("a"));
            queue.done(&"a");
            assert!(start.elapsed().as_millis().abs_diff(wait) <= 1, "{wait}");
        }
        queue.forget(&"a");
        assert_eq!(queue.requeues(&"a"), 0);
    }
}
