//! The harness of a controller: workers that take keys and reconcile them.

use crate::workqueue::WorkQueue;
use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What to do with a key that was reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// Nothing until the next event.
    Done,
    /// Reconcile again after this long.
    After(Duration),
    /// Reconcile again after the key's back-off, as after an error but without reporting one.
    Again,
}

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server answered with an error, or could not be reached; retried.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// Something else failed; retried.
    #[error("{0}")]
    Transient(String),
    /// Retrying would not help; the key waits for its next event.
    #[error("{0}")]
    Terminal(String),
}

impl Error {
    /// The error in one line: of an answer of the API server its message alone.
    pub fn text(&self) -> String {
        match self {
            Self::Api(kube::Error::Api(status)) => status.message.clone(),
            other => other.to_string(),
        }
    }

    /// The HTTP status the API server answered with, 0 when it did not.
    pub fn code(&self) -> u16 {
        match self {
            Self::Api(kube::Error::Api(status)) => status.code,
            _ => 0,
        }
    }
}

impl Error {
    /// Whether a namespace that is being deleted refused new content: nothing is to be done there any more.
    fn is_namespace_terminating(&self) -> bool {
        let Self::Api(kube::Error::Api(status)) = self else { return false };
        status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == "NamespaceTerminating")
    }
}

/// Makes the world match what one key asks for.
pub trait Reconcile: Send + Sync + 'static {
    /// What is queued: usually a [`crate::Key`].
    type Key: Clone + Eq + Hash + Display + Send + Sync + 'static;

    /// Reads the present state and acts; called again after an error, with back-off.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Requeue, Error>> + Send;
}

/// A named set of workers on one queue.
pub struct Controller<R: Reconcile> {
    name: &'static str,
    queue: WorkQueue<R::Key>,
    workers: usize,
    reconciler: Arc<R>,
}

impl<R: Reconcile> Controller<R> {
    /// A controller with five workers.
    pub fn new(name: &'static str, queue: WorkQueue<R::Key>, reconciler: R) -> Self {
        Self { name, queue, workers: 5, reconciler: Arc::new(reconciler) }
    }

    /// Sets how many keys are reconciled at once.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Runs until `shutdown`; what is being reconciled then is finished.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..self.workers {
            workers.spawn(work(self.name, self.queue.clone(), self.reconciler.clone()));
        }
        shutdown.cancelled().await;
        self.queue.shut_down();
        while workers.join_next().await.is_some() {}
    }
}

async fn work<R: Reconcile>(name: &'static str, queue: WorkQueue<R::Key>, reconciler: Arc<R>) {
    while let Some(key) = queue.get().await {
        match reconciler.reconcile(&key).await {
            Ok(Requeue::Done) => queue.forget(&key),
            Ok(Requeue::After(delay)) => {
                queue.forget(&key);
                queue.add_after(key.clone(), delay);
            }
            Ok(Requeue::Again) => queue.add_rate_limited(key.clone()),
            Err(Error::Terminal(error)) => {
                tracing::error!(controller = name, %key, error, "reconcile failed for good");
                queue.forget(&key);
            }
            Err(error) if error.is_namespace_terminating() => {
                tracing::debug!(controller = name, %key, "the namespace is being deleted");
                queue.forget(&key);
            }
            Err(error) => {
                // These only say that the informer is a little behind.
                if matches!(error.code(), 404 | 409) {
                    tracing::debug!(controller = name, %key, %error, "object changed or gone, will retry");
                } else {
                    tracing::warn!(controller = name, %key, error = error.text(), "reconcile failed, will retry");
                }
                queue.add_rate_limited(key.clone());
            }
        }
        queue.done(&key);
    }
}
