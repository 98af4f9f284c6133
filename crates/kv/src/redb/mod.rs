//! The embedded engine: one redb file, one committer thread, the newest state in memory.
//!
//! Reads of the newest state never touch the file. Writers hand their transaction to the committer
//! and wait; all that wait together share one fsync. Watchers get a transaction after it is durable
//! (a relaxed one: at once). After a failed write the file is opened again and what it holds decides:
//! memory never holds an immediate transaction that the file does not.
//!
//! Deliberately absent: compression (records are small), an index by anything but the key.

mod committer;
mod disk;
mod file;
mod state;
#[cfg(test)]
mod tests;

use crate::{Error, Kv, Range, RangeReply, Revision, Txn, TxnOutcome, WatchStream};
use async_trait::async_trait;
use committer::{Queue, Reply};
use file::{File, Opener, engine_error};
use parking_lot::{Condvar, Mutex, RwLock};
use state::{State, Watcher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Transactions read from the file at a time for a watcher that starts in the past.
const REPLAY: usize = 256;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the file kept in memory; small, as reads of the newest state do not need it.
    pub cache: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache: 4 << 20 }
    }
}

/// The embedded store.
pub struct RedbKv {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    path: PathBuf,
    file: RwLock<File>,
    state: RwLock<State>,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// The newest revision in the file.
    written: AtomicU64,
    failure: Mutex<Option<Error>>,
}

impl RedbKv {
    /// Opens the store's file, made when it is missing.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Arc<Self>, Error> {
        let path = path.as_ref();
        Self::with_opener(path, file::opener(path, options.cache))
    }

    fn with_opener(path: &Path, opener: Opener) -> Result<Arc<Self>, Error> {
        let mut file = File::open(path, opener)?;
        file.begin()?;
        let counters = file.counters();
        let db = file.database().ok_or(redb::Error::DatabaseClosed);
        let live = db.and_then(disk::load).map_err(|error| engine_error(path, "read", &error))?;
        let state = State::new(live, counters.revision, counters.compacted);
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            file: RwLock::new(file),
            state: RwLock::new(state),
            queue: Mutex::default(),
            wake: Condvar::new(),
            written: AtomicU64::new(counters.revision),
            failure: Mutex::default(),
        });
        let thread = committer::spawn(shared.clone(), &shared.file.read())?;
        Ok(Arc::new(Self { shared, thread: Some(thread) }))
    }

    /// Hands work to the committer and waits for its answer.
    async fn submit<T>(&self, push: impl FnOnce(&mut Queue, Reply<T>) + Send) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        push(&mut self.shared.queue.lock(), reply);
        self.shared.wake.notify_one();
        answer.await.unwrap_or_else(|_| Err(Error::Engine("the store is shutting down; try again".into())))
    }

    /// Reads a state that is no longer the newest from the file.
    async fn range_at(&self, range: Range) -> Result<RangeReply, Error> {
        if range.revision > self.shared.written.load(Ordering::Acquire) {
            self.submit(|queue, reply| queue.flushes.push(reply)).await?;
        }
        let shared = self.shared.clone();
        let reply = blocking(move || shared.read("read", |db| disk::range_at(db, &range)).map(|r| (r, range))).await?;
        // Versions may have been swept away while they were being read.
        self.shared.not_compacted(reply.1.revision)?;
        Ok(reply.0)
    }
}

impl Drop for RedbKv {
    fn drop(&mut self) {
        self.shared.queue.lock().stopped = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread panicked");
        }
    }
}

#[async_trait]
impl Kv for RedbKv {
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, Error> {
        self.submit(|queue, reply| queue.push(txn, reply)).await
    }

    async fn range(&self, range: Range) -> Result<RangeReply, Error> {
        {
            let state = self.shared.state.read();
            let current = state.revision;
            if range.revision > current {
                return Err(Error::Future { requested: range.revision, current });
            }
            if range.revision == 0 || range.revision == current {
                return Ok(state.range(&range));
            }
        }
        self.shared.not_compacted(range.revision)?;
        self.range_at(range).await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.shared.state.read().revision)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, Error> {
        let (sender, stream) = mpsc::channel(state::WATCHER_QUEUE);
        let watcher = Watcher { prefix: prefix.into(), sender };
        let current = self.shared.state.read().revision;
        if after > current {
            return Err(Error::Future { requested: after, current });
        }
        self.shared.not_compacted(after)?;
        if let Some((watcher, at)) = self.shared.join(watcher, after) {
            let shared = self.shared.clone();
            drop(tokio::task::spawn_blocking(move || shared.replay(watcher, at)));
        }
        Ok(stream)
    }

    fn is_healthy(&self) -> bool {
        self.shared.failure.lock().is_none()
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.submit(|queue, reply| queue.compactions.push((revision, reply))).await
    }
}

impl Shared {
    fn not_compacted(&self, requested: Revision) -> Result<(), Error> {
        let oldest = self.state.read().compacted;
        if requested < oldest { Err(Error::Compacted { requested, oldest }) } else { Ok(()) }
    }

    fn read<T>(&self, action: &str, f: impl FnOnce(&redb::Database) -> Result<T, redb::Error>) -> Result<T, Error> {
        let file = self.file.read();
        let result = file.database().ok_or(redb::Error::DatabaseClosed).and_then(f);
        result.map_err(|error| engine_error(&self.path, action, &error))
    }

    /// Gives a watcher what memory still has since `after` and registers it; hands it back when that is
    /// too much or not enough.
    fn join(&self, watcher: Watcher, after: Revision) -> Option<(Watcher, Revision)> {
        let mut state = self.state.write();
        match state.since(after) {
            Some(records) if records.len() + 1 < watcher.sender.capacity() => {
                if records.iter().all(|record| watcher.deliver(record)) {
                    state.register(watcher);
                }
                None
            }
            _ => Some((watcher, after)),
        }
    }

    /// Sends a watcher the past, from the file as far as memory does not have it, until it can join.
    fn replay(&self, watcher: Watcher, after: Revision) {
        let (mut watcher, mut at) = (watcher, after);
        loop {
            match self.join(watcher, at) {
                None => return,
                Some((again, _)) => watcher = again,
            }
            let (in_memory, in_file) = {
                let state = self.state.read();
                (state.since(at), state.before_ring())
            };
            let records = match in_memory {
                Some(records) => Ok(records),
                None => self.read("read", |db| disk::records_after(db, at, REPLAY)),
            };
            // Checked after reading: a compaction in between may have taken records away.
            let batches = self.not_compacted(at).and(records);
            let sent = match batches {
                Err(error) => {
                    drop(watcher.sender.blocking_send(Err(error)));
                    return;
                }
                // Revisions may be missing at the end of what the file has: a crash took them.
                Ok(records) if records.is_empty() => {
                    at = at.max(in_file);
                    Some(())
                }
                Ok(records) => records.into_iter().try_for_each(|record| {
                    at = record.revision;
                    watcher.sender.blocking_send(Ok(watcher.batch(&record))).ok()
                }),
            };
            if sent.is_none() {
                return;
            }
        }
    }
}

/// Runs file access off the async threads.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let result = tokio::task::spawn_blocking(f).await;
    result.unwrap_or_else(|error| Err(Error::Engine(format!("reading the store was interrupted: {error}; try again"))))
}
