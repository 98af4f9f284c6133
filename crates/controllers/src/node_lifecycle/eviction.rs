//! The taint manager: deletes pods that do not tolerate a `NoExecute` taint of their node, when their time is up.

use super::BY_NODE;
use crate::context::Context;
use crate::ownership::is_not_found;
use crate::pods;
use api::k8s::core::v1::{Node, Pod, Taint, Toleration};
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;

struct Eviction {
    ctx: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
}

pub(super) fn start(ctx: &Context, nodes: &Informer<Node>, pods: &Informer<Pod>) -> impl Future<Output = ()> + use<> {
    let queue: WorkQueue<Key> = WorkQueue::new();
    let (enqueue, known) = (queue.clone(), pods.clone());
    nodes.on_event(move |event| {
        let changed = match event {
            Event::Added(node) => !no_execute(node).is_empty(),
            Event::Updated { old, new } => no_execute(old) != no_execute(new),
            Event::Deleted(_) => false,
        };
        if changed {
            known.by_index(BY_NODE, &event.object().name_any()).iter().for_each(|p| enqueue.add(Key::of(p.as_ref())));
        }
    });
    let (enqueue, known) = (queue.clone(), nodes.clone());
    pods.on_event(move |event| {
        let pod = event.object();
        let tainted = known.get("", pods::node_name(pod)).is_some_and(|node| !no_execute(&node).is_empty());
        if tainted && !matches!(event, Event::Deleted(_)) {
            enqueue.add(Key::of(pod.as_ref()));
        }
    });
    let reconciler = Eviction { ctx: ctx.clone(), nodes: nodes.clone(), pods: pods.clone() };
    let shutdown = ctx.shutdown();
    async move {
        reconciler.nodes.synced().await;
        reconciler.pods.synced().await;
        Controller::new("taint-eviction", queue, reconciler).run(shutdown).await;
    }
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.filter(|t| t.effect == "NoExecute").cloned().collect()
}

pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    }
}

/// When a pod has to go: `None` never, otherwise the shortest toleration counted from its taint.
fn due(tolerations: &[Toleration], taints: &[Taint], now: Timestamp) -> Option<Timestamp> {
    let one = |taint: &Taint| {
        let matching: Vec<&Toleration> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if matching.is_empty() {
            return Some(now);
        }
        let seconds = matching.iter().filter_map(|t| t.toleration_seconds).min()?;
        let since = taint.time_added.as_ref().map_or(now, |t| t.0);
        since.checked_add(SignedDuration::from_secs(seconds.max(0))).ok()
    };
    taints.iter().filter_map(one).min()
}

impl Reconcile for Eviction {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(pod) = self.pods.get_key(key).filter(|p| !pods::is_deleting(p)) else { return Ok(Requeue::Done) };
        let Some(node) = self.nodes.get("", pods::node_name(&pod)) else { return Ok(Requeue::Done) };
        let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.clone()).unwrap_or_default();
        let now = Timestamp::now();
        let Some(due) = due(&tolerations, &no_execute(&node), now) else { return Ok(Requeue::Done) };
        if due > now {
            return Ok(Requeue::After(pods::until(due, now)));
        }
        self.evict(&pod).await
    }
}

impl Eviction {
    async fn evict(&self, pod: &Pod) -> Result<Requeue, Error> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        self.ctx.normal(pod, "TaintManagerEviction", format!("Marking for deletion Pod {namespace}/{name}"));
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": pods::now(), "observedGeneration": pod.metadata.generation});
        let patch =
            Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}));
        let api = self.ctx.api::<Pod>(&namespace);
        let guard = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let patched = api.patch_status(&name, &PatchParams::default(), &patch).await.map(drop);
        let result = match patched {
            Ok(()) => api.delete(&name, &DeleteParams::default().preconditions(guard)).await.map(drop),
            error => error,
        };
        match result {
            Err(error) if !is_not_found(&error) => Err(error.into()),
            _ => Ok(Requeue::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_toleration_counts() {
        let (added, now): (Timestamp, Timestamp) =
            ("2026-01-01T00:00:00Z".parse().expect("time"), "2026-01-01T00:01:00Z".parse().expect("time"));
        let taint = |key: &str| Taint {
            key: key.into(),
            effect: "NoExecute".into(),
            time_added: Some(api::machinery::apis::meta::v1::Time(added)),
            value: None,
        };
        let tolerate = |key: &str, seconds: Option<i64>| Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            toleration_seconds: seconds,
            ..Default::default()
        };
        let check = |tolerations: &[Toleration], taints: &[Taint], want: Option<i64>| {
            assert_eq!(due(tolerations, taints, now).map(|d| d.duration_since(added).as_secs()), want);
        };
        check(&[], &[], None);
        check(&[], &[taint("a")], Some(60));
        check(&[tolerate("a", None)], &[taint("a")], None);
        check(&[tolerate("a", Some(300))], &[taint("a")], Some(300));
        check(&[tolerate("a", Some(300)), tolerate("b", Some(30))], &[taint("a"), taint("b")], Some(30));
    }
}
