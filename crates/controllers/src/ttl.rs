//! The node annotation that says how long kubelets may cache secrets and config maps, by cluster size.

use crate::context::{Context, synced};
use api::k8s::core::v1::Node;
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::api::{Patch, PatchParams};
use serde_json::json;

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";
/// Most nodes for which a TTL holds, and the TTL in seconds.
const STEPS: [(usize, u32); 4] = [(100, 0), (500, 15), (1000, 30), (2000, 60)];
const LARGEST: u32 = 300;

struct Ttl {
    ctx: Context,
    nodes: Informer<Node>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let nodes = ctx.informer::<Node>();
    let (enqueue, all) = (queue.clone(), nodes.clone());
    nodes.on_event(move |event| match event {
        Event::Updated { old, new } if old.metadata.annotations == new.metadata.annotations => {}
        // The number of nodes changed: where that crosses a step every node changes.
        Event::Added(_) | Event::Deleted(_)
            if ttl(all.len()) != ttl(all.len().saturating_sub(1)) || ttl(all.len()) != ttl(all.len() + 1) =>
        {
            all.list().iter().for_each(|node| enqueue.add(Key::of(node.as_ref())));
            enqueue.add(Key::of(event.object().as_ref()));
        }
        _ => enqueue.add(Key::of(event.object().as_ref())),
    });
    synced!(nodes);
    let reconciler = Ttl { ctx: ctx.clone(), nodes };
    Controller::new("ttl", queue, reconciler).workers(2).run(ctx.shutdown()).await;
}

fn ttl(nodes: usize) -> u32 {
    STEPS.iter().find(|(most, _)| nodes <= *most).map_or(LARGEST, |(_, ttl)| *ttl)
}

impl Reconcile for Ttl {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(node) = self.nodes.get_key(key) else { return Ok(Requeue::Done) };
        let wanted = ttl(self.nodes.len()).to_string();
        if node.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION)) == Some(&wanted) {
            return Ok(Requeue::Done);
        }
        let patch = Patch::Strategic(json!({"metadata": {"annotations": {ANNOTATION: wanted}}}));
        self.ctx.cluster_api::<Node>().patch(&key.name, &PatchParams::default(), &patch).await?;
        Ok(Requeue::Done)
    }
}
