//! How a pod's worker is told of news: the latest wins, nothing queues.

use crate::allocation::Allocation;
use crate::pod::PodExt;
use api::k8s::core::v1::Pod;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Why a pod is ended by its node: its phase becomes Failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Reason of the status.
    pub reason: String,
    /// Message of the status.
    pub message: String,
    /// Time its containers have, where that is not what the pod says.
    pub grace: Option<Duration>,
    /// Reason and message of the condition `DisruptionTarget`.
    pub disruption: Option<(String, String)>,
}

struct Content {
    /// As the API has it.
    asked: Arc<Pod>,
    /// With what it was granted.
    pod: Arc<Pod>,
    allocation: Arc<Allocation>,
    removed: bool,
    relist: bool,
    collect: bool,
    dirty: BTreeSet<String>,
    admission: Option<(String, String)>,
    failure: Option<Failure>,
}

/// News taken out of a mailbox.
pub struct News {
    /// The pod as last seen in the API, with what it was granted.
    pub pod: Arc<Pod>,
    /// The pod as last seen in the API.
    pub asked: Arc<Pod>,
    /// Whether the API has it no more.
    pub removed: bool,
    /// Whether events were lost and the runtime must be listed.
    pub relist: bool,
    /// Sandboxes and containers to look at.
    pub dirty: BTreeSet<String>,
    /// Whether dead containers are to be removed.
    pub collect: bool,
    /// Reason and message, where the pod was not admitted.
    pub rejected: Option<(String, String)>,
    /// Why the node ends it.
    pub failure: Option<Failure>,
}

/// One pod's mailbox.
pub struct Mailbox {
    content: Mutex<Content>,
    notify: Notify,
    /// Fires when the pod is to end: long waits of a sync stop.
    pub ending: CancellationToken,
    /// Fires when the pod uses nothing of the node any more.
    pub stopped: CancellationToken,
}

impl Mailbox {
    /// A mailbox that first makes its reader list the runtime; `rejected` pods are never run.
    pub fn new(asked: Arc<Pod>, allocation: Allocation, rejected: Option<(String, String)>) -> Self {
        let content = Content {
            pod: allocation.apply(&asked),
            asked,
            allocation: Arc::new(allocation),
            removed: false,
            relist: true,
            collect: false,
            dirty: BTreeSet::new(),
            admission: rejected,
            failure: None,
        };
        let (ending, stopped) = (CancellationToken::new(), CancellationToken::new());
        let mailbox = Self { content: Mutex::new(content), notify: Notify::new(), ending, stopped };
        mailbox.end_if_due();
        mailbox
    }

    fn end_if_due(&self) {
        let content = self.content.lock();
        if content.removed || content.failure.is_some() || content.pod.is_deleted() || content.pod.is_terminal() {
            self.ending.cancel();
        }
    }

    fn tell(&self, change: impl FnOnce(&mut Content)) {
        change(&mut self.content.lock());
        self.end_if_due();
        self.notify.notify_one();
    }

    /// The pod changed in the API.
    pub fn update(&self, pod: Arc<Pod>) {
        self.tell(|content| {
            content.pod = content.allocation.apply(&pod);
            content.asked = pod;
        });
    }

    /// The pod is granted something else; returns it with that.
    pub fn grant(&self, allocation: Allocation) -> Arc<Pod> {
        let mut content = self.content.lock();
        content.pod = allocation.apply(&content.asked);
        content.allocation = Arc::new(allocation);
        content.pod.clone()
    }

    /// What the pod was granted.
    pub fn allocation(&self) -> Arc<Allocation> {
        self.content.lock().allocation.clone()
    }

    /// The pod is gone from the API.
    pub fn remove(&self) {
        self.tell(|content| content.removed = true);
    }

    /// Something happened to a sandbox or container.
    pub fn touch(&self, id: String) {
        self.tell(|content| {
            content.dirty.insert(id);
        });
    }

    /// The node ends the pod; the first reason counts.
    pub fn fail(&self, failure: Failure) {
        self.tell(|content| {
            content.failure.get_or_insert(failure);
        });
    }

    /// Dead containers are to be removed.
    pub fn collect(&self) {
        self.tell(|content| content.collect = true);
    }

    /// Events of the runtime were lost.
    pub fn relist(&self) {
        self.tell(|content| content.relist = true);
    }

    /// Asks for a sync.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// The pod now, with what it was granted.
    pub fn pod(&self) -> Arc<Pod> {
        self.content.lock().pod.clone()
    }

    /// Whether the API has the pod no more.
    pub fn is_removed(&self) -> bool {
        self.content.lock().removed
    }

    /// Whether the pod uses the node's resources, as admission counts.
    pub fn counts(&self) -> bool {
        let content = self.content.lock();
        let over = content.removed || content.pod.is_terminal() || self.stopped.is_cancelled();
        content.admission.is_none() && !over
    }

    /// Takes what has come.
    pub fn take(&self) -> News {
        let mut content = self.content.lock();
        News {
            pod: content.pod.clone(),
            asked: content.asked.clone(),
            removed: content.removed,
            relist: std::mem::take(&mut content.relist),
            collect: std::mem::take(&mut content.collect),
            dirty: std::mem::take(&mut content.dirty),
            rejected: content.admission.clone(),
            failure: content.failure.clone(),
        }
    }

    /// Waits for news; what came since the last wait counts.
    pub async fn wait(&self) {
        self.notify.notified().await;
    }
}
