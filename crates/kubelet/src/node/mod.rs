//! The node: registration, status, heartbeat, pod CIDRs.
//!
//! Registers as soon as the API answers. The status is written when it changes, and every five minutes; until
//! the node is ready it is looked at often, because a runtime has no event for readiness.

pub mod allocatable;
pub mod lease;
pub mod machine;
pub mod status;

use crate::context::{Context, api_message};
use crate::events::{EventType, reason};
use api::k8s::core::v1::{Node, NodeCondition, NodeStatus};
use informer::{Event, Informer};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

const NOT_READY_LOOK: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(7);

/// Creates the Node object, or brings labels of one that is there up to date. Repeats until the API lets it.
pub async fn register(ctx: &Context) -> Node {
    let api: kube::Api<Node> = kube::Api::all(ctx.config.client.clone());
    let mut retry = Duration::from_millis(20);
    loop {
        let wanted = status::object(ctx, status::generate(ctx, &[]).await);
        let result = match api.create(&PostParams::default(), &wanted).await {
            Err(kube::Error::Api(answer)) if answer.code == 409 => {
                let patch = json!({"metadata": {"labels": status::labels(ctx)}});
                api.patch(&ctx.config.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await
            }
            result => result,
        };
        match result {
            Ok(node) => {
                *ctx.node.write() = Arc::new(node.clone());
                return node;
            }
            Err(error) => {
                tracing::info!(error = api_message(&error), "cannot register the node yet");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(LONGEST_RETRY);
            }
        }
    }
}

/// Follows the Node object: keeps the context's copy, and tells the network of the pod CIDRs. Those that the
/// registered node already has are told before this returns: a node that restarts does not become unready.
pub async fn follow(ctx: &Arc<Context>, registered: &Node, informer: &Informer<Node>, look: Arc<Notify>) {
    let known = pod_cidrs(registered);
    if let Some(handler) = ctx.config.on_pod_cidr.clone().filter(|_| !known.is_empty()) {
        handler(known.clone()).await;
    }
    let (weak, told) = (Arc::downgrade(ctx), parking_lot::Mutex::new(known));
    informer.on_event(move |event| {
        let Some(ctx) = weak.upgrade() else { return };
        *ctx.node.write() = event.object().clone();
        if let Event::Updated { old, new } = event
            && differ_for_others(old, new)
        {
            look.notify_one();
        }
        let attached = |node: &Node| node.status.as_ref().and_then(|s| s.volumes_attached.clone());
        if matches!(event, Event::Updated { old, new } if attached(old) != attached(new)) {
            ctx.plugins.csi.take_waiting().iter().for_each(|uid| (ctx.wake)(uid));
        }
        let cidrs = pod_cidrs(event.object());
        let mut told = told.lock();
        if cidrs.is_empty() || *told == cidrs {
            return;
        }
        told.clone_from(&cidrs);
        if let Some(handler) = ctx.config.on_pod_cidr.clone() {
            let look = look.clone();
            tokio::spawn(async move {
                handler(cidrs).await;
                look.notify_one();
            });
        }
    });
}

/// Whether a change of the node is one the status must answer: of its capacity, or of our conditions.
fn differ_for_others(old: &Node, new: &Node) -> bool {
    let capacity = |node: &Node| node.status.as_ref().and_then(|s| s.capacity.clone());
    let words = |node: &Node| -> Vec<(String, String)> {
        let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.map(|c| (c.type_.clone(), c.status.clone())).collect()
    };
    capacity(old) != capacity(new) || words(old) != words(new)
}

fn pod_cidrs(node: &Node) -> Vec<String> {
    node.spec.as_ref().and_then(|s| s.pod_cidrs.clone()).unwrap_or_default()
}

/// Writes the status: at once when it changes, else every five minutes.
pub async fn run(ctx: Arc<Context>, look: Arc<Notify>) {
    let mut written: Option<(NodeStatus, Instant)> = None;
    let mut ready = false;
    let settings = &ctx.config.settings;
    loop {
        let current = ctx.node.read().clone();
        let old = current.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        let fresh = status::generate(&ctx, &old).await;
        let due = written.as_ref().is_none_or(|(before, at)| at.elapsed() >= settings.node_status_report_frequency || differs(before, &fresh));
        let due = due || overwritten(&old, &fresh);
        if due {
            match write(&ctx, &current, &fresh).await {
                Ok(node) => {
                    announce(&ctx, &node, &mut ready, is_ready(&fresh));
                    *ctx.node.write() = Arc::new(node);
                    written = Some((fresh, Instant::now()));
                }
                Err(error) => tracing::warn!(error = api_message(&error), "cannot write the node's status"),
            }
        }
        let wait = if ready { settings.node_status_update_frequency } else { NOT_READY_LOOK };
        let _ = tokio::time::timeout(wait, news(&ctx, &look)).await;
    }
}

/// Waits until somebody asks for a look, or a device plugin's list has changed.
async fn news(ctx: &Context, look: &Notify) {
    tokio::select! {
        () = look.notified() => {}
        () = ctx.plugins.devices.changed() => {}
        () = ctx.plugins.csi.changed() => {}
    }
}

fn announce(ctx: &Context, node: &Node, before: &mut bool, now: bool) {
    if *before != now {
        let (name, reason) = (&ctx.config.node_name, if now { reason::NODE_READY } else { reason::NODE_NOT_READY });
        ctx.recorder.node(node, EventType::Normal, reason, format!("Node {name} status is now: {reason}"));
    }
    *before = now;
}

fn is_ready(status: &NodeStatus) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether anything but heartbeats differs.
fn differs(a: &NodeStatus, b: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        status.conditions.iter_mut().flatten().for_each(|c: &mut NodeCondition| c.last_heartbeat_time = None);
        status
    };
    still(a) != still(b)
}

/// Whether another writer (the node lifecycle controller, after an outage) has put its word over ours.
fn overwritten(current: &[NodeCondition], fresh: &NodeStatus) -> bool {
    fresh
        .conditions
        .iter()
        .flatten()
        .any(|ours| current.iter().any(|c| c.type_ == ours.type_ && c.status != ours.status))
}

async fn write(ctx: &Context, current: &Node, status: &NodeStatus) -> kube::Result<Node> {
    let mut value = serde_json::to_value(status).unwrap_or(Value::Null);
    // A map is merged by key: what is no longer in the capacity must be taken out by name.
    let before = current.status.as_ref().and_then(|s| s.allocatable.clone()).unwrap_or_default();
    for name in before.into_keys().filter(|name| status::is_extended(name)) {
        if value["allocatable"].get(&name).is_none() {
            value["allocatable"][name] = Value::Null;
        }
    }
    // Nothing in use is said by taking the list away.
    if status.volumes_in_use.is_none() {
        value["volumesInUse"] = Value::Null;
    }
    // Merged by type: addresses that are no more would stay.
    if let Some(addresses) = value.get_mut("addresses").and_then(Value::as_array_mut) {
        addresses.insert(0, json!({"$patch": "replace"}));
    }
    let api: kube::Api<Node> = kube::Api::all(ctx.config.client.clone());
    let patch = Patch::Strategic(json!({"status": value}));
    api.patch_status(&ctx.config.node_name, &PatchParams::default(), &patch).await
}
