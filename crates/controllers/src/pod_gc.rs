//! Pods nobody ends: too many finished ones, ones on nodes that are gone, and ones never scheduled that are being deleted.

use crate::context::{Context, synced};
use crate::ownership::is_not_found;
use crate::pods;
use api::k8s::core::v1::{Node, Pod};
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const BY_NODE: &str = "node";
/// How long a node must be gone before its pods are.
const QUARANTINE: Duration = Duration::from_secs(40);
/// The key for which finished pods are counted.
const TERMINATED: &str = "";

struct PodGc {
    ctx: Context,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
}

pub(crate) async fn run(ctx: Context) {
    let queue: WorkQueue<Key> = WorkQueue::new();
    let (pods, nodes) = (ctx.informer::<Pod>(), ctx.informer::<Node>());
    pods.add_index(BY_NODE, |pod| {
        Some(pods::node_name(pod).to_owned()).filter(|n| !n.is_empty()).into_iter().collect()
    });
    let (enqueue, known) = (queue.clone(), nodes.clone());
    pods.on_event(move |event| {
        let pod = event.object();
        let node = pods::node_name(pod);
        if matches!(event, Event::Deleted(_)) {
            return;
        }
        if node.is_empty() && pods::is_deleting(pod) {
            enqueue.add(Key::of(pod.as_ref()));
        } else if !node.is_empty() && known.get("", node).is_none() {
            enqueue.add_after(Key::new("", node), QUARANTINE);
        }
        let finishes =
            matches!(event, Event::Updated { old, new } if pods::is_terminal(new) && !pods::is_terminal(old));
        if finishes {
            enqueue.add(Key::new("", TERMINATED));
        }
    });
    let enqueue = queue.clone();
    nodes.on_event(move |event| {
        if let Event::Deleted(node) = event {
            enqueue.add_after(Key::new("", node.name_any()), QUARANTINE);
        }
    });
    synced!(pods, nodes);
    queue.add(Key::new("", TERMINATED));
    let reconciler = PodGc { ctx: ctx.clone(), pods, nodes };
    Controller::new("podgc", queue, reconciler).workers(1).run(ctx.shutdown()).await;
}

impl Reconcile for PodGc {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        if !key.namespace.is_empty() {
            let pod = self.pods.get_key(key).filter(|p| pods::is_deleting(p) && pods::node_name(p).is_empty());
            return match pod {
                Some(pod) => self.delete(&pod).await,
                None => Ok(Requeue::Done),
            };
        }
        if key.name == TERMINATED {
            return self.delete_terminated().await;
        }
        self.delete_orphaned(&key.name).await
    }
}

impl PodGc {
    async fn delete_terminated(&self) -> Result<Requeue, Error> {
        let mut finished: Vec<Arc<Pod>> = self.pods.list();
        finished.retain(|p| pods::is_terminal(p));
        let surplus = finished.len().saturating_sub(self.ctx.config().terminated_pod_gc_threshold);
        if surplus > 0 {
            finished.sort_by(|a, b| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp));
            for pod in &finished[..surplus] {
                self.delete(pod).await?;
            }
        }
        Ok(Requeue::Done)
    }

    /// Deletes the pods of a node that neither the informer nor the server has.
    async fn delete_orphaned(&self, node: &str) -> Result<Requeue, Error> {
        let orphans = self.pods.by_index(BY_NODE, node);
        if orphans.is_empty() || self.nodes.get("", node).is_some() {
            return Ok(Requeue::Done);
        }
        if self.ctx.cluster_api::<Node>().get_metadata_opt(node).await?.is_some() {
            return Ok(Requeue::Again);
        }
        for pod in orphans {
            if !pods::is_terminal(&pod) {
                self.fail(&pod).await?;
            }
            self.delete(&pod).await?;
        }
        Ok(Requeue::Done)
    }

    /// Says on the pod why it ends.
    async fn fail(&self, pod: &Pod) -> Result<(), Error> {
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists", "lastTransitionTime": pods::now(), "observedGeneration": pod.metadata.generation});
        let patch = Patch::Strategic(
            json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed", "conditions": [condition]}}),
        );
        let api = self.ctx.api::<Pod>(&pod.namespace().unwrap_or_default());
        match api.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
            Err(error) if !is_not_found(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn delete(&self, pod: &Pod) -> Result<Requeue, Error> {
        let guard = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams::default().grace_period(0).preconditions(guard);
        match self.ctx.api::<Pod>(&pod.namespace().unwrap_or_default()).delete(&pod.name_any(), &params).await {
            Err(error) if !is_not_found(&error) => Err(error.into()),
            _ => Ok(Requeue::Done),
        }
    }
}
