//! What readers see: the newest state in memory, recent transactions, and the watchers.

use crate::{Error, Event, KeyValue, Op, Range, RangeReply, Revision, Txn, TxnOutcome, WatchBatch};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Recent transactions kept in memory for new watchers.
pub(super) const RING: usize = 512;
/// Batches a watcher may be behind.
pub(super) const WATCHER_QUEUE: usize = 4096;

/// A committed transaction.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub revision: Revision,
    pub events: Arc<[Event]>,
}

/// The published state; only the committer changes it.
#[derive(Default)]
pub(super) struct State {
    pub live: BTreeMap<Arc<str>, KeyValue>,
    pub revision: Revision,
    pub compacted: Revision,
    ring: VecDeque<Record>,
    /// What is newer is in the ring.
    before_ring: Revision,
    watchers: Vec<Watcher>,
}

pub(super) struct Watcher {
    pub prefix: Arc<str>,
    pub sender: mpsc::Sender<Result<WatchBatch, Error>>,
}

impl State {
    /// The state a file holds.
    pub fn new(live: BTreeMap<Arc<str>, KeyValue>, revision: Revision, compacted: Revision) -> Self {
        Self { live, revision, compacted, before_ring: revision, ..Self::default() }
    }

    /// Makes a transaction visible to readers and watchers.
    pub fn publish(&mut self, record: Record) {
        for event in record.events.iter() {
            match (&event.kv, &event.previous) {
                (Some(kv), _) => drop(self.live.insert(kv.key.clone(), kv.clone())),
                (None, Some(previous)) => drop(self.live.remove(&previous.key)),
                (None, None) => {}
            }
        }
        self.revision = record.revision;
        self.watchers.retain(|watcher| watcher.deliver(&record));
        if self.ring.len() == RING {
            self.before_ring = self.ring.pop_front().map_or(self.before_ring, |oldest| oldest.revision);
        }
        self.ring.push_back(record);
    }

    /// The revision after which memory has every transaction.
    pub fn before_ring(&self) -> Revision {
        self.before_ring
    }

    /// The transactions after a revision, when memory still has them all.
    pub fn since(&self, after: Revision) -> Option<Vec<Record>> {
        if after < self.before_ring {
            return None;
        }
        let first = self.ring.partition_point(|r| r.revision <= after);
        Some(self.ring.range(first..).cloned().collect())
    }

    /// Adds a watcher that has seen everything up to the present revision.
    pub fn register(&mut self, watcher: Watcher) {
        self.watchers.push(watcher);
    }

    /// Reads the newest state.
    pub fn range(&self, range: &Range) -> RangeReply {
        let mut out = RangeReply { kvs: Vec::new(), count: 0, revision: self.revision };
        if range.end.is_empty() {
            out.kvs.extend(self.live.get(range.start.as_str()).cloned());
            out.count = out.kvs.len();
            return out;
        }
        if range.end <= range.start {
            return out;
        }
        let bounds = (Bound::Included(range.start.as_str()), Bound::Excluded(range.end.as_str()));
        for kv in self.live.range::<str, _>(bounds).map(|(_, kv)| kv) {
            out.count += 1;
            if range.limit == 0 || out.kvs.len() < range.limit {
                out.kvs.push(kv.clone());
            }
        }
        out
    }
}

impl Watcher {
    /// Sends a transaction; false when the watcher is gone or has fallen too far behind.
    pub fn deliver(&self, record: &Record) -> bool {
        // The last place in the queue is kept for the word that the watch ends.
        if self.sender.capacity() <= 1 {
            drop(self.sender.try_send(Err(Error::Lagged)));
            return false;
        }
        self.sender.try_send(Ok(self.batch(record))).is_ok()
    }

    /// The transaction as this watcher sees it.
    pub fn batch(&self, record: &Record) -> WatchBatch {
        let below = |event: &Event| {
            let kv = event.kv.as_ref().or(event.previous.as_ref());
            kv.is_some_and(|kv| kv.key.starts_with(&*self.prefix))
        };
        let events = match record.events.iter().all(below) {
            true => record.events.clone(),
            false => record.events.iter().filter(|e| below(e)).cloned().collect(),
        };
        WatchBatch { revision: record.revision, events }
    }
}

/// Transactions that are checked and numbered, but not yet visible.
pub(super) struct Stage<'a> {
    state: &'a State,
    overlay: HashMap<Arc<str>, Option<KeyValue>>,
    pub records: Vec<Record>,
    revision: Revision,
}

impl<'a> Stage<'a> {
    /// Begins after the published state.
    pub fn new(state: &'a State) -> Self {
        Self { state, overlay: HashMap::new(), records: Vec::new(), revision: state.revision }
    }

    /// Checks a transaction against everything before it and adds it.
    pub fn add(&mut self, txn: Txn) -> TxnOutcome {
        let holds = |c: &crate::Compare| self.get(&c.key).map_or(0, |kv| kv.mod_revision) == c.mod_revision;
        if !txn.compares.iter().all(holds) {
            return TxnOutcome::Conflict(txn.compares.iter().map(|c| self.get(&c.key).cloned()).collect());
        }
        let events = self.events(txn.ops);
        if events.is_empty() {
            return TxnOutcome::Committed(self.revision);
        }
        self.revision += 1;
        for event in &events {
            if let Some(kv) = event.kv.as_ref().or(event.previous.as_ref()) {
                self.overlay.insert(kv.key.clone(), event.kv.clone());
            }
        }
        self.records.push(Record { revision: self.revision, events: events.into() });
        TxnOutcome::Committed(self.revision)
    }

    fn get(&self, key: &str) -> Option<&KeyValue> {
        match self.overlay.get(key) {
            Some(kv) => kv.as_ref(),
            None => self.state.live.get(key),
        }
    }

    /// The changes of a transaction, at most one for a key.
    fn events(&self, ops: Vec<Op>) -> Vec<Event> {
        let revision = self.revision + 1;
        let mut events: Vec<Event> = Vec::with_capacity(ops.len());
        for op in ops {
            let key = match &op {
                Op::Put(key, _) | Op::Stamp(key, _) | Op::Delete(key) => key.clone(),
            };
            let touched =
                events.iter().position(|e| e.kv.as_ref().or(e.previous.as_ref()).is_some_and(|kv| kv.key == key));
            let mut event = match touched {
                Some(at) => events.swap_remove(at),
                None => {
                    let present = self.get(&key).cloned();
                    Event { kv: present.clone(), previous: present }
                }
            };
            let value = match op {
                Op::Put(_, value) => Some(value),
                Op::Stamp(_, stamp) => Some(stamp.at(revision)),
                Op::Delete(_) => None,
            };
            match value {
                Some(value) => {
                    let create_revision = event.kv.as_ref().map_or(revision, |kv| kv.create_revision);
                    event.kv = Some(KeyValue { key, value, create_revision, mod_revision: revision });
                }
                None => match event.kv.take() {
                    Some(last) => event.previous = Some(last),
                    None if touched.is_none() => continue,
                    None => {}
                },
            }
            events.push(event);
        }
        events
    }
}
