//! The objects of one resource in memory, with their recent changes and watchers.
//!
//! Loaded on first use; from then on the dispatcher applies every change. Reads copy references.

use super::dispatcher::{Dispatcher, Progress};
use super::encode::{Codec, restamped};
use super::event::CacheEvent;
use super::objects::Objects;
use super::watchers::{Trigger, Watchers};
use super::{Selection, StoreSpec, Stored, WatchEvent};
use crate::fairness::Stats;
use api::Status;
use kv::{Event, KeyValue, Range, Revision};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Events always remembered for watchers that resume.
const WINDOW_MIN: usize = 100;
/// Events remembered at most.
const WINDOW_MAX: usize = 16 << 10;
/// Bytes of objects a window holds at most, however young its events are.
const WINDOW_BYTES: usize = 64 << 20;
/// Events younger than this are remembered, up to the maximum.
const WINDOW_AGE: Duration = Duration::from_secs(75);
/// Written objects that wait for their event; the rest is parsed.
const PREPARED_MAX: usize = 4096;

/// The cache of one resource.
pub(super) struct Cacher {
    codec: Codec,
    prefix: String,
    progress: watch::Receiver<Progress>,
    state: RwLock<State>,
    loading: tokio::sync::Mutex<()>,
    /// What writers already know of the bytes they wrote, by address: the event needs no parsing.
    prepared: Mutex<HashMap<usize, Stored>>,
}

struct State {
    phase: Phase,
    objects: Objects,
    window: VecDeque<Arc<CacheEvent>>,
    /// Bytes of the objects in it.
    window_size: usize,
    /// All events after this revision are in the window.
    window_start: Revision,
    last_change: Revision,
    /// The revision of the list it was loaded from; the dispatcher may still be behind it.
    loaded: Revision,
    watchers: Watchers,
}

enum Phase {
    Empty,
    /// Keeps what happens while the list is read.
    Loading(Vec<(Revision, Vec<Event>)>),
    Ready,
}

/// Where a watch begins.
pub(super) enum Begin {
    /// With the present state.
    Present,
    /// After a revision.
    After(Revision),
}

/// A registered watcher.
pub(super) struct Registered {
    pub backlog: VecDeque<WatchEvent>,
    /// The revision of the state it begins with.
    pub revision: Revision,
    pub events: super::queue::Receiver,
    pub trigger: Trigger,
}

/// Objects as of a revision.
pub(super) struct Snapshot {
    pub items: Vec<(Arc<str>, Stored)>,
    /// Objects of the span, whether selected or not; meaningful when there are more.
    pub in_range: usize,
    /// Whether the limit ended it.
    pub more: bool,
    pub revision: Revision,
}

impl Cacher {
    pub fn new(codec: Codec, prefix: String, progress: watch::Receiver<Progress>) -> Arc<Self> {
        let state = RwLock::new(State::new(&codec.spec));
        Arc::new(Self { prefix, progress, state, loading: Default::default(), prepared: Mutex::default(), codec })
    }

    /// Forgets events that have become too old since the last one came.
    pub fn forget_events(&self) {
        let mut state = self.state.write();
        state.forget_old();
        state.window.shrink_to(WINDOW_MIN);
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Loads the resource unless it is loaded.
    pub async fn ready(self: &Arc<Self>, dispatcher: &Arc<Dispatcher>) -> Result<(), Status> {
        if self.is_ready() {
            return Ok(());
        }
        let _one = self.loading.lock().await;
        while !self.is_ready() {
            let generation = dispatcher.ready().await?.generation;
            self.state.write().phase = Phase::Loading(Vec::new());
            dispatcher.route(self);
            let range = Range { start: self.prefix.clone(), end: end_of(&self.prefix), ..Range::default() };
            let reply = dispatcher.kv().range(range).await.map_err(Status::internal)?;
            let mut state = self.state.write();
            let now = *self.progress.borrow();
            match std::mem::replace(&mut state.phase, Phase::Empty) {
                Phase::Loading(missed) if now.up && now.generation == generation => {
                    state.load(&self.codec, reply.kvs, reply.revision);
                    missed.iter().for_each(|(revision, events)| self.apply_to(&mut state, *revision, events));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        matches!(self.state.read().phase, Phase::Ready)
    }

    /// Watchers end, and the next use loads anew; until then the objects stay for reads under way.
    pub fn reset(&self) {
        let mut state = self.state.write();
        state.phase = Phase::Empty;
        state.watchers = Watchers::new(self.codec.spec.indexed.len());
        self.prepared.lock().clear();
    }

    /// Watchers end; the objects stay.
    pub fn end_watches(&self) {
        self.state.write().watchers = Watchers::new(self.codec.spec.indexed.len());
    }

    /// Tells what is known of bytes that are being written.
    pub fn prepare(&self, stored: &Stored) {
        let mut prepared = self.prepared.lock();
        if prepared.len() >= PREPARED_MAX {
            // Writes that failed leave theirs behind.
            prepared.clear();
        }
        prepared.insert(stored.json.as_ptr() as usize, stored.clone());
    }

    /// Applies a transaction's changes of this resource.
    pub fn apply(&self, revision: Revision, events: &[Event]) {
        let mut state = self.state.write();
        match &mut state.phase {
            Phase::Empty => {}
            Phase::Loading(missed) => missed.push((revision, events.to_vec())),
            Phase::Ready => self.apply_to(&mut state, revision, events),
        }
    }

    fn apply_to(&self, state: &mut State, revision: Revision, events: &[Event]) {
        if revision <= state.loaded {
            return;
        }
        for event in events {
            match (&event.kv, &event.previous) {
                (Some(kv), _) => state.put(&self.codec.spec, kv.key.clone(), self.decode(kv), revision),
                (None, Some(last)) => {
                    // A state that was written and deleted at once is known from the event only.
                    let object = (last.mod_revision == revision).then(|| self.decode(last)).flatten();
                    state.delete(&self.codec.spec, &last.key, object, revision);
                }
                (None, None) => {}
            }
        }
        state.last_change = revision;
    }

    fn decode(&self, kv: &KeyValue) -> Option<Stored> {
        let prepared = self.prepared.lock().remove(&(kv.value.as_ptr() as usize));
        if let Some(stored) = prepared
            && stored.meta.resource_version == kv.mod_revision
        {
            return Some(stored);
        }
        self.codec
            .decode(kv)
            .inspect_err(
                |error| tracing::error!(key = &*kv.key, %error, "the stored object is damaged and is not shown"),
            )
            .ok()
    }

    /// One object as it is now.
    pub fn get(&self, key: &str) -> Option<Stored> {
        self.state.read().objects.get(key).cloned()
    }

    /// How much there is; `None` when it is not loaded.
    pub fn stats(&self) -> Option<Stats> {
        let state = self.state.read();
        let loaded = matches!(state.phase, Phase::Ready);
        loaded.then(|| Stats { count: state.objects.len() as u64, bytes: state.objects.bytes() as u64 })
    }

    /// How many objects there are.
    pub fn count(&self) -> usize {
        self.state.read().objects.len()
    }

    /// The revision of the last change, when it is at most `revision`: the cache shows that revision too.
    pub fn shows(&self, revision: Revision) -> bool {
        self.state.read().last_change <= revision
    }

    /// Selected objects of a span; `limit` 0: all. `None` when the cacher has to be loaded first.
    pub fn snapshot(&self, selection: &Selection, span: &Span, limit: usize) -> Option<Snapshot> {
        let state = self.state.read();
        let revision = self.revision(&state)?;
        let (mut items, mut more) = (Vec::new(), false);
        for (key, stored) in state.objects.candidates(&self.codec.spec, selection, span) {
            if limit > 0 && items.len() == limit {
                more = true;
                break;
            }
            if selection.matches(&stored.meta) {
                items.push((key.clone(), stored.clone()));
            }
        }
        let in_range = if more { state.objects.count(span) } else { items.len() };
        Some(Snapshot { items, in_range, more, revision })
    }

    /// The revision the state shows. The progress is read while the state is locked and ready: it cannot be that
    /// of a watch which began after this state was given up.
    fn revision(&self, state: &State) -> Option<Revision> {
        let seen = self.progress.borrow().revision;
        matches!(state.phase, Phase::Ready).then(|| seen.max(state.last_change))
    }

    /// Adds a watcher; `None` when the cacher has to be loaded first. The error is the oldest revision a watch can
    /// begin after.
    pub fn watch(&self, selection: &Selection, begin: Begin) -> Option<Result<Registered, Revision>> {
        let mut state = self.state.write();
        let revision = self.revision(&state)?;
        let mut backlog = VecDeque::new();
        let mut after = 0;
        let span = Span::of(&self.prefix, &self.codec.spec, selection);
        match begin {
            Begin::Present => {
                let present = state.objects.candidates(&self.codec.spec, selection, &span);
                let selected = present.filter(|(_, stored)| selection.matches(&stored.meta));
                backlog.extend(selected.map(|(_, stored)| WatchEvent::Added(stored.clone())));
            }
            Begin::After(revision) if revision < state.window_start => return Some(Err(state.window_start)),
            Begin::After(revision) => {
                let first = state.window.partition_point(|e| e.revision <= revision);
                backlog.extend(state.window.range(first..).filter_map(|e| e.seen_by(selection)));
                after = revision;
            }
        }
        let trigger = Trigger::of(&self.codec.spec, selection, &span);
        let events = state.watchers.add(&trigger, selection.clone(), after);
        Some(Ok(Registered { backlog, revision, events, trigger }))
    }

    /// Removes watchers whose receiver is gone.
    pub fn forget(&self, trigger: &Trigger) {
        self.state.write().watchers.prune(trigger);
    }
}

impl State {
    fn new(spec: &StoreSpec) -> Self {
        Self {
            phase: Phase::Empty,
            objects: Objects::new(spec.indexed.len()),
            window: VecDeque::new(),
            window_size: 0,
            window_start: 0,
            last_change: 0,
            loaded: 0,
            watchers: Watchers::new(spec.indexed.len()),
        }
    }

    fn load(&mut self, codec: &Codec, kvs: Vec<KeyValue>, revision: Revision) {
        *self = Self::new(&codec.spec);
        for kv in kvs {
            match codec.decode(&kv) {
                Ok(stored) => drop(self.objects.insert(&codec.spec, kv.key, stored)),
                Err(error) => tracing::error!(key = &*kv.key, %error, "the stored object is damaged and is not shown"),
            }
        }
        (self.phase, self.loaded) = (Phase::Ready, revision);
        (self.window_start, self.last_change) = (revision, revision);
    }

    fn put(&mut self, spec: &StoreSpec, key: Arc<str>, object: Option<Stored>, revision: Revision) {
        let Some(object) = object else { return self.delete(spec, &key, None, revision) };
        let previous = self.objects.insert(spec, key, object.clone());
        self.remember(spec, CacheEvent::put(object, previous));
    }

    fn delete(&mut self, spec: &StoreSpec, key: &str, last: Option<Stored>, revision: Revision) {
        let previous = self.objects.remove(spec, key);
        let last = last.or_else(|| previous.as_ref().map(|p| restamped(p, revision)));
        if let Some(last) = last {
            self.remember(spec, CacheEvent::deleted(last, previous));
        }
    }

    fn remember(&mut self, spec: &StoreSpec, event: CacheEvent) {
        let event = Arc::new(event);
        self.watchers.deliver(spec, &event);
        self.window_size += event.object.json.len();
        self.window.push_back(event);
        self.forget_old();
    }

    /// Forgets events that are too old or too many.
    fn forget_old(&mut self) {
        while let Some(oldest) = self.window.front() {
            let young = oldest.at.elapsed() < WINDOW_AGE && self.window.len() <= WINDOW_MAX;
            if (young || self.window.len() <= WINDOW_MIN) && self.window_size <= WINDOW_BYTES {
                break;
            }
            self.window_start = oldest.revision;
            self.window_size -= oldest.object.json.len();
            self.window.pop_front();
        }
    }
}

/// The keys of a selection: of the resource, or of one namespace of it.
pub(super) struct Span {
    /// What all its keys start with.
    pub scope: String,
    /// First key, at or after the scope.
    pub start: String,
    /// First key after it.
    pub end: String,
}

impl Span {
    /// The keys of a selection.
    pub fn of(prefix: &str, spec: &StoreSpec, selection: &Selection) -> Self {
        let scope = match spec.namespaced && !selection.namespace.is_empty() {
            true => format!("{prefix}{}/", selection.namespace),
            false => prefix.to_owned(),
        };
        Self { start: scope.clone(), end: end_of(&scope), scope }
    }

    /// The keys from `start`, which is below the scope, on.
    pub fn from(self, start: &str) -> Self {
        Self { start: format!("{}{start}", self.scope), ..self }
    }
}

/// The first key after all that start with `prefix`, which ends with a slash.
fn end_of(prefix: &str) -> String {
    format!("{}0", prefix.strip_suffix('/').unwrap_or(prefix))
}
