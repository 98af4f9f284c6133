//! The extension points of the scheduling framework.
//!
//! A plugin implements one trait per point it extends. `pre_filter` and `pre_score` return what the
//! per-node calls need, so a plugin's state lives exactly as long as one pod's cycle.

use crate::Handle;
use crate::changes::Changes;
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, claim_names};
use crate::profile::Profile;
use api::k8s::core::v1::{Node, Pod};
use futures::future::BoxFuture;
use informer::Key;
use std::any::TypeId;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

/// The highest score a plugin gives a node.
pub(crate) const MAX_SCORE: i64 = 100;

/// How final a rejection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Removing other pods might help.
    Unschedulable,
    /// Removing other pods would not help.
    Unresolvable,
    /// Something failed.
    Error,
}

/// Why a pod cannot go to a node, or anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub code: Code,
    pub reasons: Vec<Cow<'static, str>>,
}

impl Rejection {
    pub fn unschedulable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Code::Unschedulable, reasons: vec![reason.into()] }
    }

    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Code::Unresolvable, reasons: vec![reason.into()] }
    }

    pub fn error(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Code::Error, reasons: vec![reason.into()] }
    }

    /// Says of an error where it happened; other rejections stay as they are.
    #[must_use]
    pub fn error_in(self, place: impl FnOnce() -> String) -> Self {
        if self.code != Code::Error {
            return self;
        }
        Self::error(format!("{}: {}", place(), self.reasons.join(", ")))
    }
}

/// Something that happened in the cluster and may make a pod schedulable.
#[derive(Clone, Debug)]
pub(crate) enum ClusterEvent {
    NodeAdded(Arc<Node>),
    /// A node changed, if only in what its kubelet reports all the time.
    NodeUpdated {
        old: Arc<Node>,
        new: Arc<Node>,
    },
    NodeDeleted,
    /// A pod was bound, or a bound pod's labels changed.
    AssignedPodAdded,
    /// A bound pod is gone, has finished or takes less, or one that was being bound is not.
    AssignedPodDeleted,
    /// The pod itself changed.
    PodUpdated,
    /// Objects of a kind that some plugin watches changed.
    Changed(TypeId),
    /// These claims for volumes changed.
    ClaimsChanged(HashSet<Key>),
}

impl ClusterEvent {
    /// Whether objects of a kind changed.
    pub fn is_change_of<K: 'static>(&self) -> bool {
        matches!(self, Self::Changed(kind) if *kind == TypeId::of::<K>())
    }

    /// Whether a claim of a pod changed.
    pub fn changes_claim_of(&self, pod: &Pod) -> bool {
        let Self::ClaimsChanged(changed) = self else { return false };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        claim_names(pod).into_iter().any(|name| changed.contains(&Key::new(namespace, name)))
    }

    /// Whether a node is new, or new in some respect.
    pub fn brings<T: PartialEq>(&self, respect: impl Fn(&Node) -> Option<&T>) -> bool {
        match self {
            Self::NodeAdded(_) => true,
            Self::NodeUpdated { old, new } => respect(old) != respect(new),
            _ => false,
        }
    }

    /// Whether there is a node with labels that it did not have.
    pub fn brings_labels(&self) -> bool {
        self.brings(|node| node.metadata.labels.as_ref())
    }
}

/// What every plugin has. All that is particular to a plugin is said by it, and all that others know is its place in
/// [`crate::plugins::all`].
pub(crate) trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;

    /// Takes the plugin's place at each extension point that it has.
    fn extend(self: Arc<Self>, _profile: &mut Profile) {}

    /// Asks for changes of kinds that [`Self::hint`] knows (nodes and pods are watched anyway), and for the indexes
    /// that the plugin reads.
    fn register(&self, _handle: &Handle, _changes: &mut Changes) {}

    /// Whether `event` may make `pod`, which this plugin rejected, schedulable.
    fn hint(&self, _pod: &Pod, _event: &ClusterEvent) -> bool {
        false
    }
}

/// Every node with the pods on it, as seen by one cycle.
#[derive(Clone, Copy)]
pub(crate) struct Snapshot<'a> {
    pub nodes: &'a [Arc<NodeInfo>],
    pub handle: &'a Handle,
    /// When the cycle began.
    pub began: Instant,
}

pub(crate) trait PreEnqueue: Plugin {
    /// Whether the pod may be queued at all.
    fn pre_enqueue(&self, pod: &Pod) -> Result<(), Rejection>;
}

pub(crate) trait QueueSort: Plugin {
    /// The pod's place among the active ones: lower keys first.
    fn key(&self, queued: &crate::queue::QueuedPod) -> SortKey;
}

/// Priority (highest first), then the time since which the pod waits.
pub(crate) type SortKey = (Reverse<i32>, tokio::time::Instant);

pub(crate) trait PreFilter: Plugin {
    /// Prepares the filtering of nodes for a pod; `None`: every node passes this plugin.
    fn pre_filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: Snapshot<'a>,
    ) -> Result<Option<Box<dyn Filter + 'a>>, Rejection>;
}

pub(crate) trait Filter: Send {
    /// Whether the pod fits the node.
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection>;
}

/// What a failed cycle knows about the nodes.
pub(crate) struct Failure {
    /// Rejections by index of the snapshot; empty when a pre-filter rejected the pod.
    pub rejections: Vec<Rejection>,
}

/// What a post-filter asks for.
#[derive(Debug)]
pub(crate) struct Nomination {
    pub node: String,
    pub victims: Vec<Arc<Pod>>,
}

pub(crate) trait PostFilter: Plugin {
    /// Tries to make room; an error is what people are told.
    fn post_filter(
        &self,
        pod: &PodInfo,
        snapshot: Snapshot<'_>,
        profile: &Profile,
        failure: &Failure,
    ) -> Result<Nomination, String>;
}

pub(crate) trait PreScore: Plugin {
    fn weight(&self) -> i64;

    /// Prepares the scoring of feasible nodes; `None`: this plugin has no preference.
    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: Snapshot<'a>,
        feasible: &[&'a NodeInfo],
    ) -> Option<Box<dyn Score + 'a>>;
}

pub(crate) trait Score {
    /// A node's score; 0 to [`MAX_SCORE`] unless [`Self::normalize`] brings it there.
    fn score(&self, node: &NodeInfo) -> i64;

    /// Brings the scores of all feasible nodes into range.
    fn normalize(&self, _scores: &mut [i64]) {}
}

pub(crate) trait Reserve: Plugin {
    /// Sets aside what the pod will use on its node.
    fn reserve(&self, pod: &Pod, node: &str) -> Result<(), Rejection>;
    /// Undoes [`Self::reserve`]; also called where that failed.
    fn unreserve(&self, handle: &Arc<Handle>, pod: &Pod, node: &str);
}

pub(crate) trait Permit: Plugin {
    /// Lets the pod go on to binding, or not.
    fn permit<'a>(&'a self, handle: &'a Handle, pod: &'a Pod, node: &'a str) -> BoxFuture<'a, Result<(), Rejection>>;
}

pub(crate) trait PreBind: Plugin {
    /// Does what must be done before the pod is bound.
    fn pre_bind<'a>(&'a self, handle: &'a Handle, pod: &'a Pod, node: &'a str) -> BoxFuture<'a, Result<(), Rejection>>;
}

pub(crate) trait Bind: Plugin {
    /// Binds the pod.
    fn bind<'a>(&'a self, handle: &'a Handle, pod: &'a Pod, node: &'a str) -> BoxFuture<'a, Result<(), Rejection>>;
}

pub(crate) trait PostBind: Plugin {
    /// Is told of a pod that was bound.
    fn post_bind(&self, pod: &Pod, node: &str);
}

/// Scales scores so that the highest becomes [`MAX_SCORE`]; `reverse` makes the lowest best.
pub(crate) fn normalize_to_max(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        *score = match (max, reverse) {
            (0, true) => MAX_SCORE,
            (0, false) => 0,
            (max, true) => MAX_SCORE - *score * MAX_SCORE / max,
            (max, false) => *score * MAX_SCORE / max,
        };
    }
}
