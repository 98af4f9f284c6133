//! Nodes that stop reporting: conditions become Unknown, taints say so, pods are evicted.
//!
//! A node reports by its status and its Lease. When either was last seen to change is noted by our own
//! clock; one timer per node fires when the grace period could have passed.

mod eviction;
mod taints;

use crate::context::{Context, synced};
use crate::pods;
use api::k8s::coordination::v1::Lease;
use api::k8s::core::v1::{Node, NodeCondition, Pod};
pub(crate) use eviction::tolerates;
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a node may be silent.
const GRACE: Duration = Duration::from_secs(50);
/// How long a new node may take to report for the first time.
const STARTUP_GRACE: Duration = Duration::from_secs(60);
const LEASES: &str = "kube-node-lease";
const BY_NODE: &str = "node";
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// When each node was last heard of.
type Heard = Arc<Mutex<HashMap<String, Instant>>>;

struct NodeLifecycle {
    ctx: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    heard: Heard,
}

pub(crate) async fn run(ctx: Context) {
    let queue: WorkQueue<Key> = WorkQueue::new();
    let heard: Heard = Arc::default();
    let (nodes, pods) = (ctx.informer::<Node>(), ctx.informer::<Pod>());
    let leases = ctx.factory().informer_filtered::<Lease>("", "", LEASES);
    pods.add_index(BY_NODE, |pod| {
        Some(pods::node_name(pod).to_owned()).filter(|n| !n.is_empty()).into_iter().collect()
    });
    let note = heard.clone();
    leases.on_event(move |event| {
        if !matches!(event, Event::Deleted(_)) {
            note.lock().insert(event.object().name_any(), Instant::now());
        }
    });
    let (note, enqueue, tell) = (heard.clone(), queue.clone(), ctx.clone());
    nodes.on_event(move |event| {
        let node = event.object();
        let name = node.name_any();
        match event {
            Event::Added(_) => {
                tell.normal(
                    node.as_ref(),
                    "RegisteredNode",
                    format!("Node {name} event: Registered Node {name} in Controller"),
                );
                note.lock().insert(name.clone(), Instant::now());
            }
            Event::Updated { old, new } if heartbeats(old) != heartbeats(new) => {
                note.lock().insert(name.clone(), Instant::now());
            }
            Event::Updated { .. } => {}
            Event::Deleted(_) => {
                tell.normal(
                    node.as_ref(),
                    "RemovingNode",
                    format!("Node {name} event: Removing Node {name} from Controller"),
                );
                note.lock().remove(&name);
            }
        }
        enqueue.add(Key::new("", name));
    });
    let eviction = eviction::start(&ctx, &nodes, &pods);
    synced!(nodes, pods, leases);
    let reconciler = NodeLifecycle { ctx: ctx.clone(), nodes, pods, heard };
    let lifecycle = Controller::new("nodelifecycle", queue, reconciler).run(ctx.shutdown());
    tokio::join!(lifecycle, eviction);
}

/// What the kubelet changes when it reports.
fn heartbeats(node: &Node) -> Vec<Option<jiff::Timestamp>> {
    let list = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    list.map(|c| c.last_heartbeat_time.as_ref().map(|t| t.0)).collect()
}

pub(super) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

fn ready_status(node: &Node) -> &str {
    condition(node, "Ready").map_or("Unknown", |c| c.status.as_str())
}

impl Reconcile for NodeLifecycle {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(node) = self.nodes.get_key(key) else { return Ok(Requeue::Done) };
        let heard = self.heard.lock().get(&key.name).copied().unwrap_or_else(Instant::now);
        let reported = condition(&node, "Ready").is_some();
        let left = (if reported { GRACE } else { STARTUP_GRACE }).saturating_sub(heard.elapsed());
        let silent = left.is_zero();
        let node =
            if silent && ready_status_is_stale(&node) { Arc::new(self.mark_unknown(&node).await?) } else { node };
        self.sync_taints(&node).await?;
        if reported && ready_status(&node) != "True" {
            self.mark_pods_not_ready(&node).await?;
        }
        Ok(if silent { Requeue::Done } else { Requeue::After(left + Duration::from_millis(10)) })
    }
}

fn ready_status_is_stale(node: &Node) -> bool {
    CONDITIONS.iter().any(|kind| condition(node, kind).is_none_or(|c| c.status != "Unknown"))
}

impl NodeLifecycle {
    async fn mark_unknown(&self, node: &Node) -> Result<Node, Error> {
        let now = pods::now();
        let unknown = |kind: &&str| {
            let known = condition(node, kind);
            let (reason, message) = match known {
                Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
            };
            let heartbeat = known.map_or(node.metadata.creation_timestamp.clone(), |c| c.last_heartbeat_time.clone());
            json!({"type": kind, "status": "Unknown", "reason": reason, "message": message, "lastHeartbeatTime": heartbeat, "lastTransitionTime": now})
        };
        let stale = CONDITIONS.iter().filter(|kind| condition(node, kind).is_none_or(|c| c.status != "Unknown"));
        let conditions: Vec<_> = stale.map(unknown).collect();
        let name = node.name_any();
        let patch = Patch::Strategic(
            json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "status": {"conditions": conditions}}),
        );
        let updated = self.ctx.cluster_api::<Node>().patch_status(&name, &PatchParams::default(), &patch).await?;
        self.ctx.normal(node, "NodeNotReady", format!("Node {name} status is now: NodeNotReady"));
        Ok(updated)
    }

    async fn sync_taints(&self, node: &Node) -> Result<(), Error> {
        let Some(wanted) = taints::wanted(node) else { return Ok(()) };
        let patch = Patch::Merge(
            json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": wanted}}),
        );
        self.ctx.cluster_api::<Node>().patch(&node.name_any(), &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Pods of a node that is not ready are not ready either.
    async fn mark_pods_not_ready(&self, node: &Node) -> Result<(), Error> {
        for pod in self.pods.by_index(BY_NODE, &node.name_any()).iter().filter(|p| pods::is_ready(p)) {
            let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": pods::now()});
            let patch =
                Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}));
            let api = self.ctx.api::<Pod>(&pod.namespace().unwrap_or_default());
            match api.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
                Err(error) if !crate::ownership::is_not_found(&error) => return Err(error.into()),
                _ => self.ctx.warning(pod.as_ref(), "NodeNotReady", "Node is not ready"),
            }
        }
        Ok(())
    }
}
