//! One watch of the key-value store feeds the cachers of all resources.
//!
//! A transaction is handed to the cacher whose prefix its keys have; then `progress` says that every
//! cacher has seen its revision, which is how quiet resources know how fresh they are. When the watch
//! breaks, every cacher forgets what it has, its watchers end, and clients list again.

use super::cacher::Cacher;
use super::continuation::too_large;
use crate::encryption::Encryption;
use api::Status;
use kv::{Kv, Revision, WatchBatch, WatchStream};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, OnceCell, watch};
use tokio::time::Instant;

/// Below this are all keys.
pub(super) const ROOT: &str = "/registry/";
/// How long a request waits for a revision.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most transactions that are handed on before those who wait for them are woken.
const BATCHES: usize = 256;
/// How often it is looked whether there is history to forget.
const COMPACT_EVERY: Duration = Duration::from_secs(300);
/// History is kept so long (twelve looks)...
const KEEP_LOOKS: usize = 12;
/// ... or for so many revisions, when they are reached earlier; never less than from one look to the next.
const KEEP_REVISIONS: Revision = 200_000;

/// How far the cachers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Every cacher has seen this revision.
    pub revision: Revision,
    /// Raised when the watch breaks: what was loaded before is worthless.
    pub generation: u64,
    /// Whether the watch is in progress.
    pub up: bool,
}

/// Feeds every cacher of a server from one watch of the key-value store.
pub struct Dispatcher {
    kv: Arc<dyn Kv>,
    encryption: Encryption,
    routes: Mutex<HashMap<String, Vec<Weak<Cacher>>>>,
    progress: watch::Sender<Progress>,
    /// Lists that began before this revision are not continued.
    pages_from: AtomicU64,
    forgot: Notify,
    started: OnceCell<()>,
}

impl Dispatcher {
    /// Whether a list that began at a revision can still be continued. History is kept for longer, but clients
    /// count on tokens that expire after five to ten minutes, and then take what there is now.
    pub(super) fn continues(&self, revision: Revision) -> bool {
        revision >= self.pages_from.load(Ordering::Relaxed)
    }

    /// Builds a dispatcher; it starts with the first use of a store.
    pub fn new(kv: Arc<dyn Kv>) -> Arc<Self> {
        Self::encrypted(kv, Encryption::default())
    }

    /// As [`Dispatcher::new`], for resources some of which are sealed.
    pub fn encrypted(kv: Arc<dyn Kv>, encryption: Encryption) -> Arc<Self> {
        Arc::new(Self {
            kv,
            encryption,
            routes: Mutex::default(),
            progress: watch::channel(Progress::default()).0,
            pages_from: AtomicU64::new(0),
            forgot: Notify::new(),
            started: OnceCell::new(),
        })
    }

    /// What seals the resources.
    pub(super) fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// The key-value store below.
    pub fn kv(&self) -> &Arc<dyn Kv> {
        &self.kv
    }

    /// Waits until old events and history have been forgotten, which happens some minutes after they were young:
    /// what a busy time took is free now.
    pub async fn has_forgotten(&self) {
        self.forgot.notified().await;
    }

    /// Starts the watch, once, and waits until it is in progress.
    pub(super) async fn ready(self: &Arc<Self>) -> Result<Progress, Status> {
        self.started.get_or_try_init(|| self.start()).await?;
        self.wait(|p| p.up).await.map_err(|_| Status::internal("the store's watch is broken; see the server's log"))
    }

    async fn start(self: &Arc<Self>) -> Result<(), Status> {
        let stream = self.connect().await.map_err(Status::internal)?;
        tokio::spawn(run(Arc::downgrade(self), stream));
        Ok(())
    }

    async fn connect(&self) -> Result<WatchStream, kv::Error> {
        let revision = self.kv.revision().await?;
        let stream = self.kv.watch(ROOT, revision).await?;
        self.progress.send_modify(|p| (p.revision, p.up) = (revision, true));
        Ok(stream)
    }

    /// Follows how far the cachers are.
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Waits until the cachers have seen everything that is committed now.
    pub(super) async fn wait_current(&self) -> Result<(), Status> {
        let current = self.kv.revision().await.map_err(Status::internal)?;
        self.wait_for(current).await
    }

    /// Waits until the cachers have seen a revision.
    pub(super) async fn wait_for(&self, revision: Revision) -> Result<(), Status> {
        let waited = self.wait(|p| p.up && p.revision >= revision).await;
        waited.map(drop).map_err(|now| too_large(revision, now.revision))
    }

    /// Waits until the queues of the watchers have what was committed at a revision, so that its writer is not told of
    /// it first: a controller that is would at once work from what its watch has not shown it yet.
    pub(super) async fn delivered(&self, revision: Revision) {
        // A broken watch holds no writer up, a slow one not for long.
        let _ = self.wait(|p| !p.up || p.revision >= revision).await;
        // The tasks of the watches are awake and come first.
        tokio::task::yield_now().await;
    }

    async fn wait(&self, reached: impl Fn(&Progress) -> bool) -> Result<Progress, Progress> {
        let now = *self.progress.borrow();
        if reached(&now) {
            return Ok(now);
        }
        let mut progress = self.progress.subscribe();
        let waited = tokio::time::timeout(PATIENCE, progress.wait_for(|p| reached(p))).await;
        match waited {
            Ok(Ok(now)) => Ok(*now),
            _ => Err(*self.progress.borrow()),
        }
    }

    /// Sends a cacher the changes of its keys from now on.
    pub(super) fn route(&self, cacher: &Arc<Cacher>) {
        let mut routes = self.routes.lock();
        let list = routes.entry(cacher.prefix().to_owned()).or_default();
        list.retain(|c| c.strong_count() > 0);
        if list.iter().all(|c| c.as_ptr() != Arc::as_ptr(cacher)) {
            list.push(Arc::downgrade(cacher));
        }
    }

    /// Hands on what the watch gave; an error says why it gives no more.
    fn receive(&self, received: &mut Vec<Result<WatchBatch, kv::Error>>) -> Result<(), String> {
        let mut ended = if received.is_empty() { Err("the watch ended".to_owned()) } else { Ok(()) };
        let mut newest = None;
        for batch in received.drain(..) {
            match batch {
                Ok(batch) => {
                    self.dispatch(&batch);
                    newest = Some(batch.revision);
                }
                Err(error) => ended = Err(error.to_string()),
            }
        }
        if let Some(revision) = newest {
            self.progress.send_modify(|p| p.revision = revision);
        }
        ended
    }

    fn dispatch(&self, batch: &WatchBatch) {
        let mut rest = &batch.events[..];
        while let Some(first) = rest.first() {
            let key = key_of(first);
            let cachers = self.cachers_of(key);
            let same = |e: &kv::Event| cachers.first().map_or(key_of(e) == key, |c| key_of(e).starts_with(c.prefix()));
            let count = rest.iter().take_while(|e| same(e)).count().max(1);
            let (events, others) = rest.split_at(count);
            cachers.iter().for_each(|cacher| cacher.apply(batch.revision, events));
            rest = others;
        }
    }

    /// The cachers of a key: its prefix has one or two segments below the root.
    fn cachers_of(&self, key: &str) -> Vec<Arc<Cacher>> {
        let ends = key.char_indices().skip(ROOT.len()).filter(|(_, c)| *c == '/').map(|(at, _)| at + 1).take(2);
        let routes = self.routes.lock();
        let lists = ends.filter_map(|end| routes.get(&key[..end]));
        lists.flatten().filter_map(Weak::upgrade).collect()
    }

    fn cachers(&self) -> Vec<Arc<Cacher>> {
        self.routes.lock().values().flatten().filter_map(Weak::upgrade).collect()
    }

    /// Makes every cacher start anew.
    fn reset(&self) {
        let cachers = self.cachers();
        self.progress.send_modify(|p| (p.generation, p.up) = (p.generation + 1, false));
        cachers.iter().for_each(|cacher| cacher.reset());
    }
}

fn key_of(event: &kv::Event) -> &str {
    event.kv.as_ref().or(event.previous.as_ref()).map_or("", |kv| &kv.key)
}

/// Runs until the dispatcher is dropped.
async fn run(dispatcher: Weak<Dispatcher>, mut stream: WatchStream) {
    let (mut compaction, mut received) = (Compaction::default(), Vec::new());
    loop {
        tokio::select! {
            _ = stream.recv_many(&mut received, BATCHES) => {}
            () = compaction.due() => {
                let Some(dispatcher) = dispatcher.upgrade() else { return };
                compaction.run(&dispatcher).await;
                continue;
            }
        }
        let Some(dispatcher) = dispatcher.upgrade() else { return };
        match dispatcher.receive(&mut received) {
            Ok(()) => compaction.saw(),
            Err(error) => {
                tracing::warn!(error, "the store's watch broke; every watcher has to list again");
                dispatcher.reset();
                stream = reconnect(&dispatcher).await;
            }
        }
    }
}

async fn reconnect(dispatcher: &Dispatcher) -> WatchStream {
    loop {
        match dispatcher.connect().await {
            Ok(stream) => return stream,
            Err(error) => tracing::error!(%error, "cannot watch the store; trying again in a second"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Forgets old history, with a timer that only runs while there is history to forget.
#[derive(Default)]
struct Compaction {
    at: Option<Instant>,
    /// The revision at each of the last looks, the oldest first.
    marks: VecDeque<Revision>,
    done: Revision,
}

impl Compaction {
    fn saw(&mut self) {
        self.at.get_or_insert_with(|| Instant::now() + COMPACT_EVERY);
    }

    async fn due(&self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    async fn run(&mut self, dispatcher: &Dispatcher) {
        dispatcher.cachers().iter().for_each(|cacher| cacher.forget_events());
        let now = dispatcher.progress.borrow().revision;
        dispatcher.pages_from.store(self.marks.back().copied().unwrap_or(0), Ordering::Relaxed);
        if let Some(revision) = self.look(now) {
            match dispatcher.kv.compact(revision).await {
                Ok(()) => self.done = revision,
                Err(error) => tracing::warn!(%error, "cannot compact the store"),
            }
        }
        let more = self.marks.iter().any(|mark| *mark > self.done);
        self.at = more.then(|| Instant::now() + COMPACT_EVERY);
        dispatcher.forgot.notify_one();
    }

    /// Notes the present revision; returns the one before which history is to be forgotten, when there is some.
    fn look(&mut self, now: Revision) -> Option<Revision> {
        let mut forget = None;
        while self.marks.len() >= KEEP_LOOKS
            || self.marks.len() > 1 && self.marks.front().is_some_and(|mark| now.saturating_sub(*mark) > KEEP_REVISIONS)
        {
            forget = self.marks.pop_front();
        }
        self.marks.push_back(now);
        forget.filter(|revision| *revision > self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_kept_by_time_and_size() {
        let mut slow = Compaction::default();
        let forgotten: Vec<_> = (1..=14).filter_map(|n| slow.look(n * 10)).collect();
        assert_eq!(forgotten, [10, 20], "an hour is kept");
        let mut quick = Compaction::default();
        let forgotten: Vec<_> = (1..=4).filter_map(|n| quick.look(n * 150_000)).collect();
        assert_eq!(forgotten, [150_000, 300_000], "not more than so much");
        let mut flood = Compaction::default();
        let forgotten: Vec<_> = (1..=3).filter_map(|n| flood.look(n * 1_000_000)).collect();
        assert_eq!(forgotten, [1_000_000], "what a watch may still resume from stays");
    }
}
