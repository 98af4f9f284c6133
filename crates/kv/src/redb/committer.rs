//! The thread that orders transactions, writes them in batches and makes them visible.
//!
//! One turn: take everything that waits; relaxed transactions become visible at once and join the
//! unwritten; immediate ones are staged, written together with the unwritten, and become visible
//! when the file has them. It sleeps while there is nothing to do.

use super::disk::{self, Counters};
use super::file::File;
use super::state::{RING, Record, Stage};
use super::{Shared, engine_error};
use crate::{Durability, Error, Revision, Txn, TxnOutcome};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a relaxed transaction may stay unwritten.
const RELAXED_FOR: Duration = Duration::from_millis(900);
/// Log entries swept between two batches.
const SWEEP: usize = 500;

pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What waits for the committer.
#[derive(Default)]
pub(super) struct Queue {
    pub relaxed: Vec<(Txn, Reply<TxnOutcome>)>,
    pub immediate: Vec<(Txn, Reply<TxnOutcome>)>,
    pub flushes: Vec<Reply<()>>,
    pub compactions: Vec<(Revision, Reply<()>)>,
    pub stopped: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        let waiting = self.relaxed.len() + self.immediate.len() + self.flushes.len() + self.compactions.len();
        waiting == 0 && !self.stopped
    }

    /// Adds a transaction.
    pub fn push(&mut self, txn: Txn, reply: Reply<TxnOutcome>) {
        match txn.durability {
            Durability::Immediate => self.immediate.push((txn, reply)),
            Durability::Relaxed => self.relaxed.push((txn, reply)),
        }
    }
}

pub(super) struct Committer {
    shared: Arc<Shared>,
    counters: Counters,
    unwritten: VecDeque<Record>,
    due: Option<Instant>,
    /// A write whose outcome only the reopened file tells.
    doubt: Option<Vec<Record>>,
}

impl Committer {
    pub fn new(shared: Arc<Shared>, counters: Counters) -> Self {
        Self { shared, counters, unwritten: VecDeque::new(), due: None, doubt: None }
    }

    /// Runs until the store is dropped; everything acknowledged is written by then.
    pub fn run(mut self) {
        loop {
            let work = self.next();
            let stopped = work.stopped;
            if self.doubt.is_some() && !self.recover() {
                refuse(work, &self.shared.failure());
                if stopped {
                    return;
                }
                continue;
            }
            self.relaxed(work.relaxed);
            let due = stopped || !work.flushes.is_empty() || self.is_due();
            self.commit(work.immediate, work.flushes, due);
            work.compactions.into_iter().for_each(|(revision, reply)| self.compact(revision, reply));
            if stopped {
                return self.close();
            }
            self.sweep();
        }
    }

    /// The end: the next start must know whether anything that was seen is missing in the file.
    fn close(&self) {
        if self.unwritten.is_empty()
            && let Err(error) = self.on_disk("close", |db, _| disk::close(db))
        {
            tracing::warn!(%error, "the next start takes this one for crashed");
        }
    }

    /// Waits for work, or until unwritten transactions are due.
    fn next(&self) -> Queue {
        let mut queue = self.shared.queue.lock();
        while queue.is_empty()
            && !self.is_due()
            && (self.counters.swept == self.counters.compacted || self.doubt.is_some())
        {
            match self.due {
                None => self.shared.wake.wait(&mut queue),
                Some(due) => drop(self.shared.wake.wait_until(&mut queue, due)),
            }
        }
        let stopped = queue.stopped;
        Queue { stopped, ..std::mem::take(&mut *queue) }
    }

    fn is_due(&self) -> bool {
        self.unwritten.len() >= RING / 2 || self.due.is_some_and(|due| Instant::now() >= due)
    }

    fn relaxed(&mut self, txns: Vec<(Txn, Reply<TxnOutcome>)>) {
        for (txn, reply) in txns {
            if self.unwritten.len() >= RING / 2 {
                // The ring must hold what is not in the file, for watchers that start late.
                if let Err(error) = self.write(Vec::new()) {
                    drop(reply.send(Err(error)));
                    continue;
                }
            }
            let mut state = self.shared.state.write();
            let mut stage = Stage::new(&state);
            let outcome = stage.add(txn);
            let records = std::mem::take(&mut stage.records);
            drop(stage);
            for record in records {
                state.publish(record.clone());
                self.unwritten.push_back(record);
                self.due.get_or_insert_with(|| Instant::now() + RELAXED_FOR);
            }
            drop(state);
            drop(reply.send(Ok(outcome)));
        }
    }

    /// Stages, writes, publishes, and only then answers: a conflict too may rest on the batch's own writes.
    fn commit(&mut self, txns: Vec<(Txn, Reply<TxnOutcome>)>, flushes: Vec<Reply<()>>, due: bool) {
        let state = self.shared.state.read();
        let mut stage = Stage::new(&state);
        let mut replies = Vec::with_capacity(txns.len());
        for (txn, reply) in txns {
            replies.push((stage.add(txn), reply));
        }
        let records = std::mem::take(&mut stage.records);
        drop(stage);
        drop(state);
        let idle = records.is_empty() && (!due || self.unwritten.is_empty());
        let written = if idle || self.doubt.is_some() { self.trusted() } else { self.write(records) };
        for (outcome, reply) in replies {
            drop(reply.send(written.clone().map(|()| outcome)));
        }
        flushes.into_iter().for_each(|reply| drop(reply.send(written.clone())));
    }

    fn trusted(&self) -> Result<(), Error> {
        if self.doubt.is_some() { Err(self.shared.failure()) } else { Ok(()) }
    }

    /// Writes the unwritten and these transactions, and publishes these.
    fn write(&mut self, records: Vec<Record>) -> Result<(), Error> {
        self.trusted()?;
        let result = match self.shared.file.read().database() {
            Some(db) => disk::write(db, self.unwritten.iter().chain(&records)),
            None => Err(redb::Error::DatabaseClosed),
        };
        match result {
            Ok(()) => {
                self.written(records);
                Ok(())
            }
            Err(error) => {
                let error = engine_error(&self.shared.path, "write to", &error);
                tracing::error!(%error, transactions = records.len(), "commit failed");
                *self.shared.failure.lock() = Some(error.clone());
                self.doubt = Some(records);
                self.recover();
                Err(error)
            }
        }
    }

    fn written(&mut self, records: Vec<Record>) {
        self.unwritten.clear();
        self.due = None;
        let mut state = self.shared.state.write();
        records.into_iter().for_each(|record| state.publish(record));
        self.counters.revision = state.revision;
        self.shared.written.store(state.revision, Ordering::Release);
    }

    /// Opens the file again after a failed write; what it holds decides whether the write took place.
    fn recover(&mut self) -> bool {
        let mut file = self.shared.file.write();
        if let Err(error) = file.reopen() {
            tracing::error!(%error, "cannot reopen the store");
            *self.shared.failure.lock() = Some(error);
            self.due = (!self.unwritten.is_empty()).then(|| Instant::now() + RELAXED_FOR);
            return false;
        }
        let on_disk = file.counters();
        drop(file);
        self.counters = on_disk;
        *self.shared.failure.lock() = None;
        let records = self.doubt.take().unwrap_or_default();
        let newest = records.last().or(self.unwritten.back()).map_or(0, |r| r.revision);
        if newest > 0 && on_disk.revision >= newest {
            self.written(records);
        } else if !self.unwritten.is_empty() {
            self.due = Some(Instant::now() + RELAXED_FOR);
        }
        true
    }

    fn compact(&mut self, revision: Revision, reply: Reply<()>) {
        let current = self.counters.revision;
        let result = if revision > current {
            Err(Error::Future { requested: revision, current })
        } else if revision <= self.counters.compacted {
            Ok(())
        } else {
            self.on_disk("compact", |db, _| disk::set_compacted(db, revision)).map(|()| {
                self.counters.compacted = revision;
                self.shared.state.write().compacted = revision;
            })
        };
        drop(reply.send(result));
    }

    fn sweep(&mut self) {
        if self.counters.swept == self.counters.compacted || self.doubt.is_some() {
            return;
        }
        match self.on_disk("compact", |db, counters| disk::sweep(db, counters, SWEEP)) {
            Ok(swept) => self.counters.swept = swept,
            Err(error) => {
                tracing::error!(%error, "compaction stopped; the next one resumes it");
                self.counters.swept = self.counters.compacted;
            }
        }
    }

    fn on_disk<T>(
        &self,
        action: &str,
        f: impl FnOnce(&redb::Database, Counters) -> Result<T, redb::Error>,
    ) -> Result<T, Error> {
        self.trusted()?;
        let file = self.shared.file.read();
        let result = file.database().ok_or(redb::Error::DatabaseClosed).and_then(|db| f(db, self.counters));
        result.map_err(|error| engine_error(&self.shared.path, action, &error))
    }
}

fn refuse(work: Queue, error: &Error) {
    for (_, reply) in work.relaxed.into_iter().chain(work.immediate) {
        drop(reply.send(Err(error.clone())));
    }
    let flushes = work.flushes.into_iter().chain(work.compactions.into_iter().map(|(_, reply)| reply));
    flushes.for_each(|reply| drop(reply.send(Err(error.clone()))));
}

impl Shared {
    /// The last failure of the file.
    fn failure(&self) -> Error {
        let failure = self.failure.lock().clone();
        failure.unwrap_or_else(|| engine_error(&self.path, "use", &redb::Error::DatabaseClosed))
    }
}

/// Starts the thread.
pub(super) fn spawn(shared: Arc<Shared>, file: &File) -> Result<std::thread::JoinHandle<()>, Error> {
    let committer = Committer::new(shared, file.counters());
    let thread = std::thread::Builder::new().name("kv-commit".into()).spawn(move || committer.run());
    thread
        .map_err(|error| Error::Engine(format!("cannot start the store's thread: {error}; raise the limit of threads")))
}
