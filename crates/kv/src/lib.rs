//! A revisioned key-value store: the trait [`Kv`], the embedded engine, and the suite every engine passes.
//!
//! A store is a history of transactions. Each committed transaction gets the next [`Revision`]
//! (starting at 1), which Kubernetes shows as `resourceVersion`. After a crash some are passed over: those of relaxed
//! transactions that were seen and are lost do not come again. Readers ask for the
//! newest state or for the state at a revision not yet compacted; watchers get every transaction
//! from a revision on, in order, whole.
//!
//! Invariants: a transaction is durable (fsync) before its commit is reported, to the writer or to
//! any watcher; compares see all earlier transactions of the same batch; a watch has no gaps: it
//! ends with [`Error::Compacted`] or [`Error::Lagged`] rather than skip.
//!
//! Deliberately absent: leases, nested transactions, knowledge of what keys or values mean.

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

mod redb;
pub mod suite;

pub use redb::{Options, RedbKv};

/// A point in the history; 0 is before the first transaction.
pub type Revision = u64;

/// A key with its value at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Key.
    pub key: Arc<str>,
    /// Value.
    pub value: Bytes,
    /// Revision that made the key.
    pub create_revision: Revision,
    /// Revision that wrote this value.
    pub mod_revision: Revision,
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Key.
    pub key: Arc<str>,
    /// The revision that wrote its present value; 0: the key is absent.
    pub mod_revision: Revision,
}

/// A change. Of one key's changes within a transaction the last counts; a key that is put and then deleted
/// gives one event, whose `previous` is the value put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a value.
    Put(Arc<str>, Bytes),
    /// Writes a value that is made when its revision is known.
    Stamp(Arc<str>, Stamp),
    /// Removes a key; nothing when it is absent.
    Delete(Arc<str>),
}

/// Makes a value out of the revision that writes it. It is called at most once for each attempt to commit, on the
/// engine's thread, and must be quick.
#[derive(Clone)]
pub struct Stamp(Arc<dyn Fn(Revision) -> Bytes + Send + Sync>);

impl Stamp {
    /// A stamp.
    pub fn new(make: impl Fn(Revision) -> Bytes + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// The value at a revision.
    pub fn at(&self, revision: Revision) -> Bytes {
        (self.0)(revision)
    }
}

impl std::fmt::Debug for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stamp")
    }
}

impl PartialEq for Stamp {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Stamp {}

/// What must survive power loss before a commit is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// This transaction.
    #[default]
    Immediate,
    /// Nothing: written with the next immediate transaction or within a second. For events and leases.
    Relaxed,
}

/// A transaction: all changes, or none when a compare fails. One that changes nothing takes no revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// Conditions, all of which must hold.
    pub compares: Vec<Compare>,
    /// Changes, at one revision.
    pub ops: Vec<Op>,
    /// Durability.
    pub durability: Durability,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOutcome {
    /// Done at this revision.
    Committed(Revision),
    /// A compare failed; the present state of every compared key.
    Conflict(Vec<Option<KeyValue>>),
}

/// A read of keys in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First key.
    pub start: String,
    /// First key after the range; empty: `start` alone.
    pub end: String,
    /// How many keys at most; 0: all.
    pub limit: usize,
    /// At which revision; 0: the newest.
    pub revision: Revision,
}

/// The answer to a [`Range`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeReply {
    /// Keys in order.
    pub kvs: Vec<KeyValue>,
    /// How many keys the range holds in all.
    pub count: usize,
    /// The revision that was read.
    pub revision: Revision,
}

/// One change of a committed transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The new state; `None`: deleted.
    pub kv: Option<KeyValue>,
    /// The state before; `None`: the key is new.
    pub previous: Option<KeyValue>,
}

/// A committed transaction as watchers see it: only keys below the watched prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// Its revision.
    pub revision: Revision,
    /// Its changes; empty for a transaction that touched nothing below the prefix.
    pub events: Arc<[Event]>,
}

/// A watch in progress.
pub type WatchStream = tokio::sync::mpsc::Receiver<Result<WatchBatch, Error>>;

/// Why an operation failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The revision has been compacted away.
    #[error("revision {requested} has been compacted (oldest kept: {oldest})")]
    Compacted {
        /// Asked for.
        requested: Revision,
        /// The oldest that can be read.
        oldest: Revision,
    },
    /// The revision has not happened yet.
    #[error("revision {requested} is in the future (current: {current})")]
    Future {
        /// Asked for.
        requested: Revision,
        /// The newest.
        current: Revision,
    },
    /// The watcher fell too far behind.
    #[error("the watcher fell behind")]
    Lagged,
    /// The store's file cannot be used: disk full, damaged, locked by another process ...
    #[error("{0}")]
    Engine(String),
}

/// A store.
#[async_trait]
pub trait Kv: Send + Sync + 'static {
    /// Commits a transaction; returns after it is as durable as it asked to be.
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, Error>;
    /// Reads keys.
    async fn range(&self, range: Range) -> Result<RangeReply, Error>;
    /// The newest committed revision.
    async fn revision(&self) -> Result<Revision, Error>;
    /// Watches keys that start with `prefix`, from `after + 1` on.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, Error>;
    /// Whether writes are taken at present.
    fn is_healthy(&self) -> bool {
        true
    }
    /// Forgets history before `revision`; the newest state of every key stays.
    async fn compact(&self, revision: Revision) -> Result<(), Error>;
}
