//! The persistent volume binder: claims and volumes find each other, and part again.
//!
//! Two queues, one per kind. A claim ([`claim`]) looks for a volume ([`matching`]) or waits for an external
//! provisioner; a volume ([`volume`]) follows its claim and, when that is gone, its reclaim policy. A binding is
//! four writes in a fixed order (volume, its status, claim, its status); a crash between them is mended by the next
//! sync, because each step looks at what is there.
//!
//! Absent: provisioners and deleters of our own (external ones do that), recycling.

mod claim;
mod matching;
mod volume;

use crate::context::{Context, synced};
use api::k8s::core::v1::{PersistentVolume, PersistentVolumeClaim};
use api::k8s::storage::v1::StorageClass;
use informer::{Controller, Error, Event, Informer, Key, WorkQueue};
use kube::api::PostParams;
use std::sync::Arc;

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
const BY_CLAIM: &str = "claim";

/// What both halves share.
#[derive(Clone)]
struct Binder {
    ctx: Context,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    /// Claims to look at.
    claim_queue: WorkQueue<Key>,
}

pub(crate) async fn run(ctx: Context) {
    let (claim_queue, volume_queue) = (WorkQueue::new(), WorkQueue::new());
    let (claims, volumes, classes) =
        (ctx.informer::<PersistentVolumeClaim>(), ctx.informer::<PersistentVolume>(), ctx.informer::<StorageClass>());
    volumes.add_index(BY_CLAIM, |volume| claim_key(volume).map(|k| k.to_string()).into_iter().collect());
    let (filed, their_volumes) = (claim_queue.clone(), volume_queue.clone());
    claims.on_event(move |event: &Event<PersistentVolumeClaim>| {
        let claim = event.object();
        filed.add(Key::of(claim.as_ref()));
        // A claim that changes or goes is what its volume waits for.
        if let Some(volume) = volume_name(claim) {
            their_volumes.add(Key::new("", volume));
        }
    });
    let (filed, waiting, known) = (volume_queue.clone(), claim_queue.clone(), claims.clone());
    volumes.on_event(move |event: &Event<PersistentVolume>| {
        let volume = event.object();
        filed.add(Key::of(volume.as_ref()));
        match claim_key(volume) {
            Some(claim) => waiting.add(claim),
            // A volume that is free may be what any waiting claim waits for.
            None => {
                known.list().iter().filter(|c| volume_name(c).is_none()).for_each(|c| waiting.add(Key::of(c.as_ref())))
            }
        }
    });
    let (waiting, known) = (claim_queue.clone(), claims.clone());
    classes.on_event(move |_: &Event<StorageClass>| {
        known.list().iter().filter(|c| volume_name(c).is_none()).for_each(|c| waiting.add(Key::of(c.as_ref())));
    });
    synced!(claims, volumes, classes);
    let binder = Binder { ctx: ctx.clone(), claims, volumes, classes, claim_queue: claim_queue.clone() };
    // One worker each: two claims must not choose the same volume at the same time.
    let of_claims = Controller::new("pv-binder-claims", claim_queue, claim::Claims(binder.clone())).workers(1);
    let of_volumes = Controller::new("pv-binder-volumes", volume_queue, volume::Volumes(binder)).workers(1);
    tokio::join!(of_claims.run(ctx.shutdown()), of_volumes.run(ctx.shutdown()));
}

fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// The claim a volume is (to be) bound to.
fn claim_key(volume: &PersistentVolume) -> Option<Key> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(Key::new(reference.namespace.clone().unwrap_or_default(), reference.name.clone().unwrap_or_default()))
}

/// Whether a volume names a claim; by uid once it has one.
fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else { return false };
    reference.name == claim.metadata.name
        && reference.namespace == claim.metadata.namespace
        && reference.uid.as_ref().filter(|u| !u.is_empty()).is_none_or(|uid| Some(uid) == claim.metadata.uid.as_ref())
}

fn annotated(meta: &api::machinery::apis::meta::v1::ObjectMeta, key: &str) -> bool {
    meta.annotations.as_ref().is_some_and(|a| a.contains_key(key))
}

fn class_name(name: Option<&String>, annotations: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let beta = annotations.and_then(|a| a.get("volume.beta.kubernetes.io/storage-class"));
    beta.or(name).cloned().unwrap_or_default()
}

/// The class of a claim.
fn class_of_claim(claim: &PersistentVolumeClaim) -> String {
    class_name(claim.spec.as_ref().and_then(|s| s.storage_class_name.as_ref()), claim.metadata.annotations.as_ref())
}

/// The class of a volume.
fn class_of_volume(volume: &PersistentVolume) -> String {
    class_name(volume.spec.as_ref().and_then(|s| s.storage_class_name.as_ref()), volume.metadata.annotations.as_ref())
}

impl Binder {
    async fn put_volume(&self, volume: &PersistentVolume) -> Result<PersistentVolume, Error> {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        Ok(self.ctx.cluster_api::<PersistentVolume>().replace(name, &PostParams::default(), volume).await?)
    }

    /// Writes a volume's phase, unless it has it.
    async fn set_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        message: &str,
    ) -> Result<PersistentVolume, Error> {
        let status = volume.status.clone().unwrap_or_default();
        if status.phase.as_deref() == Some(phase) && status.message.as_deref().unwrap_or_default() == message {
            return Ok(volume.clone());
        }
        let mut wanted = volume.clone();
        let changed = status.phase.as_deref() != Some(phase);
        let status = wanted.status.get_or_insert_default();
        status.phase = Some(phase.to_owned());
        status.message = Some(message.to_owned()).filter(|m| !m.is_empty());
        status.reason = None;
        if changed {
            status.last_phase_transition_time = Some(crate::pods::now());
        }
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        Ok(self.ctx.cluster_api::<PersistentVolume>().replace_status(name, &PostParams::default(), &wanted).await?)
    }

    /// The other kind's newest state, or `None` where it is gone.
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.get("", name)
    }
}
