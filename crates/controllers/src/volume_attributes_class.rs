//! The protection finalizer of volume attributes classes: one that a claim or volume names is deleted only afterwards.

use crate::context::{Context, synced};
use crate::ownership::is_not_found;
use api::k8s::core::v1::{PersistentVolume, PersistentVolumeClaim};
use api::k8s::storage::v1::VolumeAttributesClass;
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::api::PostParams;

const FINALIZER: &str = "kubernetes.io/vac-protection";

struct Classes {
    ctx: Context,
    classes: Informer<VolumeAttributesClass>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

/// The classes a claim wants or has.
fn of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let wanted = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.clone());
    let status = claim.status.as_ref();
    let current = status.and_then(|s| s.current_volume_attributes_class_name.clone());
    let target = status.and_then(|s| s.modify_volume_status.as_ref()).and_then(|m| m.target_volume_attributes_class_name.clone());
    [wanted, current, target].into_iter().flatten().collect()
}

fn of_volume(volume: &PersistentVolume) -> Vec<String> {
    volume.spec.as_ref().and_then(|s| s.volume_attributes_class_name.clone()).into_iter().collect()
}

/// Files the classes that an object names no longer.
fn released<K>(queue: &WorkQueue<Key>, event: &Event<K>, names: fn(&K) -> Vec<String>) {
    let before = match event {
        Event::Added(_) => return,
        Event::Updated { old, .. } => names(old),
        Event::Deleted(last) => names(last),
    };
    before.into_iter().for_each(|name| queue.add(Key::new("", name)));
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let (classes, claims, volumes) = (ctx.informer::<VolumeAttributesClass>(), ctx.informer(), ctx.informer());
    let filed = queue.clone();
    classes.on_event(move |event: &Event<VolumeAttributesClass>| filed.add(Key::of(event.object().as_ref())));
    let filed = queue.clone();
    claims.on_event(move |event| released(&filed, event, of_claim));
    let filed = queue.clone();
    volumes.on_event(move |event| released(&filed, event, of_volume));
    synced!(classes, claims, volumes);
    let reconciler = Classes { ctx: ctx.clone(), classes, claims, volumes };
    Controller::new("vac-protection", queue, reconciler).run(ctx.shutdown()).await;
}

impl Classes {
    fn is_used(&self, name: &String) -> bool {
        self.claims.list().iter().any(|claim| of_claim(claim).contains(name)) || self.volumes.list().iter().any(|volume| of_volume(volume).contains(name))
    }
}

impl Reconcile for Classes {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(class) = self.classes.get_key(key) else { return Ok(Requeue::Done) };
        let held = class.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
        let mut wanted = VolumeAttributesClass::clone(&class);
        let finalizers = wanted.metadata.finalizers.get_or_insert_default();
        match (held, class.metadata.deletion_timestamp.is_some()) {
            (false, false) => finalizers.push(FINALIZER.to_owned()),
            (true, true) if !self.is_used(&key.name) => finalizers.retain(|f| f != FINALIZER),
            _ => return Ok(Requeue::Done),
        }
        match self.ctx.cluster_api::<VolumeAttributesClass>().replace(&key.name, &PostParams::default(), &wanted).await {
            Err(error) if !is_not_found(&error) => Err(error.into()),
            _ => Ok(Requeue::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_name_their_classes() {
        let claim = json!({"spec": {"volumeAttributesClassName": "a"}, "status": {"currentVolumeAttributesClassName": "b"}});
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).expect("claim");
        assert_eq!(of_claim(&claim), ["a", "b"]);
        assert!(of_volume(&PersistentVolume::default()).is_empty());
    }
}
