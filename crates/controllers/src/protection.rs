//! Protection finalizers: a claim that a pod uses, and a volume that is bound, are deleted only afterwards.

use crate::context::{Context, synced};
use crate::ownership::is_not_found;
use crate::pods;
use api::k8s::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::ResourceExt;
use kube::api::PostParams;

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";
const BY_CLAIM: &str = "claim";

struct Claims {
    ctx: Context,
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<Pod>,
}

struct Volumes {
    ctx: Context,
    volumes: Informer<PersistentVolume>,
}

/// What to do about a finalizer.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
    None,
}

fn change(held: bool, deleting: bool, in_use: bool) -> Change {
    match (held, deleting) {
        (false, false) => Change::Add,
        (true, true) if !in_use => Change::Remove,
        _ => Change::None,
    }
}

fn apply(finalizers: &mut Option<Vec<String>>, name: &str, change: &Change) {
    let list = finalizers.get_or_insert_default();
    match change {
        Change::Add => list.push(name.to_owned()),
        Change::Remove => list.retain(|f| f != name),
        Change::None => {}
    }
}

fn settled(result: Result<(), kube::Error>) -> Result<Requeue, Error> {
    match result {
        Err(error) if !is_not_found(&error) => Err(error.into()),
        _ => Ok(Requeue::Done),
    }
}

/// Claims a pod uses, as keys.
fn claims_of(pod: &Pod) -> Vec<String> {
    let namespace = pod.namespace().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let name = |v: &api::k8s::core::v1::Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name_any(), v.name)),
        _ => None,
    };
    volumes.filter_map(name).map(|name| Key::new(namespace.clone(), name).to_string()).collect()
}

pub(crate) async fn run_claims(ctx: Context) {
    let queue = WorkQueue::new();
    let (claims, pods) = (ctx.informer::<PersistentVolumeClaim>(), ctx.informer::<Pod>());
    pods.add_index(BY_CLAIM, claims_of);
    let enqueue = queue.clone();
    claims.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    let (enqueue, known) = (queue.clone(), claims.clone());
    pods.on_event(move |event| {
        let pod = event.object();
        if matches!(event, Event::Deleted(_)) || pods::is_terminal(pod) {
            let namespace = pod.namespace().unwrap_or_default();
            let names =
                claims_of(pod).into_iter().filter_map(|key| key.split_once('/').map(|(_, name)| name.to_owned()));
            let deleting =
                |name: &String| known.get(&namespace, name).is_some_and(|c| c.metadata.deletion_timestamp.is_some());
            names.filter(deleting).for_each(|name| enqueue.add(Key::new(namespace.clone(), name)));
        }
    });
    synced!(claims, pods);
    let reconciler = Claims { ctx: ctx.clone(), claims, pods };
    Controller::new("pvc-protection", queue, reconciler).run(ctx.shutdown()).await;
}

impl Reconcile for Claims {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(claim) = self.claims.get_key(key) else { return Ok(Requeue::Done) };
        let held = claim.metadata.finalizers.iter().flatten().any(|f| f == CLAIM);
        // A pod that finished or was never placed does not use its claim.
        let uses = |p: &std::sync::Arc<Pod>| !pods::is_terminal(p) && !pods::node_name(p).is_empty();
        let in_use = self.pods.by_index(BY_CLAIM, &key.to_string()).iter().any(uses);
        let change = change(held, claim.metadata.deletion_timestamp.is_some(), in_use);
        if change == Change::None {
            return Ok(Requeue::Done);
        }
        let mut wanted = PersistentVolumeClaim::clone(&claim);
        apply(&mut wanted.metadata.finalizers, CLAIM, &change);
        settled(
            self.ctx
                .api::<PersistentVolumeClaim>(&key.namespace)
                .replace(&key.name, &PostParams::default(), &wanted)
                .await
                .map(drop),
        )
    }
}

pub(crate) async fn run_volumes(ctx: Context) {
    let queue = WorkQueue::new();
    let volumes = ctx.informer::<PersistentVolume>();
    let enqueue = queue.clone();
    volumes.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    synced!(volumes);
    let reconciler = Volumes { ctx: ctx.clone(), volumes };
    Controller::new("pv-protection", queue, reconciler).run(ctx.shutdown()).await;
}

impl Reconcile for Volumes {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(volume) = self.volumes.get_key(key) else { return Ok(Requeue::Done) };
        let held = volume.metadata.finalizers.iter().flatten().any(|f| f == VOLUME);
        let in_use = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        let change = change(held, volume.metadata.deletion_timestamp.is_some(), in_use);
        if change == Change::None {
            return Ok(Requeue::Done);
        }
        let mut wanted = PersistentVolume::clone(&volume);
        apply(&mut wanted.metadata.finalizers, VOLUME, &change);
        settled(
            self.ctx
                .cluster_api::<PersistentVolume>()
                .replace(&key.name, &PostParams::default(), &wanted)
                .await
                .map(drop),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finalizers_come_first_and_go_last() {
        for (held, deleting, in_use, want) in [
            (false, false, false, Change::Add),
            (true, false, false, Change::None),
            (true, true, true, Change::None),
            (true, true, false, Change::Remove),
            (false, true, false, Change::None),
        ] {
            assert_eq!(change(held, deleting, in_use), want, "{held} {deleting} {in_use}");
        }
    }
}
