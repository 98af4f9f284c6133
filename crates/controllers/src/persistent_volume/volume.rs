//! A volume: available, bound, released.

use super::*;
use informer::{Reconcile, Requeue};

/// The queue of volumes.
pub(super) struct Volumes(pub Binder);

impl Reconcile for Volumes {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(volume) = self.0.volumes.get_key(key) else { return Ok(Requeue::Done) };
        let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        let Some(reference) = reference else {
            self.0.set_phase(&volume, "Available", "").await?;
            return Ok(Requeue::Done);
        };
        let Some(uid) = reference.uid.as_deref().filter(|u| !u.is_empty()) else {
            // Made for a claim that may not be there yet.
            self.0.set_phase(&volume, "Available", "").await?;
            return Ok(Requeue::Done);
        };
        let claim = claim_key(&volume).and_then(|k| self.0.claims.get_key(&k));
        let claim = claim.filter(|c| c.metadata.uid.as_deref() == Some(uid));
        match claim {
            None => self.released(&volume).await,
            Some(claim) => self.claimed(&volume, &claim).await,
        }
    }
}

impl Volumes {
    async fn claimed(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<Requeue, Error> {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        match volume_name(claim) {
            None if !matching::modes_agree(volume, claim) => {
                let claim_name = format!(
                    "{}/{}",
                    claim.metadata.namespace.as_deref().unwrap_or_default(),
                    claim.metadata.name.as_deref().unwrap_or_default()
                );
                let text = format!(
                    "Cannot bind PersistentVolume to requested PersistentVolumeClaim {claim_name:?} due to incompatible volumeMode."
                );
                self.0.ctx.warning(volume, "VolumeMismatch", text);
                let text = format!(
                    "Cannot bind PersistentVolume {name:?} to requested PersistentVolumeClaim due to incompatible volumeMode."
                );
                self.0.ctx.warning(claim, "VolumeMismatch", text);
            }
            // The claim binds both.
            None => self.0.claim_queue.add(Key::of(claim)),
            Some(bound) if bound == name => drop(self.0.set_phase(volume, "Bound", "").await?),
            Some(_) => return self.unbind(volume).await,
        }
        Ok(Requeue::Done)
    }

    /// Its claim has another volume: what was provisioned for it is of no use, anything else is free again.
    async fn unbind(&self, volume: &PersistentVolume) -> Result<Requeue, Error> {
        if annotated(&volume.metadata, PROVISIONED_BY) && policy(volume) == "Delete" {
            return self.released(volume).await;
        }
        let mut wanted = volume.clone();
        let spec = wanted.spec.get_or_insert_default();
        if annotated(&volume.metadata, BOUND_BY_CONTROLLER) {
            spec.claim_ref = None;
            wanted.metadata.annotations.get_or_insert_default().remove(BOUND_BY_CONTROLLER);
        } else if let Some(reference) = &mut spec.claim_ref {
            (reference.uid, reference.resource_version) = (None, None);
        }
        let written = self.0.put_volume(&wanted).await?;
        self.0.set_phase(&written, "Available", "").await?;
        Ok(Requeue::Done)
    }

    /// Its claim is gone: the policy decides.
    async fn released(&self, volume: &PersistentVolume) -> Result<Requeue, Error> {
        let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let volume = if ["Released", "Failed"].contains(&phase) {
            volume.clone()
        } else {
            self.0.set_phase(volume, "Released", "").await?
        };
        let failed = volume.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Failed"));
        match policy(&volume) {
            // Who provisioned it deletes it.
            "Delete" if annotated(&volume.metadata, PROVISIONED_BY) => {}
            "Delete" if volume.spec.as_ref().is_some_and(|s| s.csi.is_some()) => {}
            "Delete" if !failed => {
                let name = volume.metadata.name.as_deref().unwrap_or_default();
                let why = format!(
                    "error getting deleter volume plugin for volume {name:?}: no deletable volume plugin matched"
                );
                self.0.set_phase(&volume, "Failed", &why).await?;
                self.0.ctx.warning(&volume, "VolumeFailedDelete", why);
            }
            "Recycle" if !failed => {
                let why = "No recycler plugin found for the volume!";
                self.0.set_phase(&volume, "Failed", why).await?;
                self.0.ctx.warning(&volume, "VolumeFailedRecycle", why);
            }
            _ => {}
        }
        Ok(Requeue::Done)
    }
}

fn policy(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain")
}
