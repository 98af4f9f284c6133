//! A claim: it finds its volume, keeps it, or has lost it.

use super::*;
use informer::{Reconcile, Requeue};
use std::collections::BTreeMap;

/// The queue of claims.
pub(super) struct Claims(pub Binder);

impl Reconcile for Claims {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(claim) = self.0.claims.get_key(key) else { return Ok(Requeue::Done) };
        if annotated(&claim.metadata, BIND_COMPLETED) { self.bound(&claim).await } else { self.unbound(&claim).await }
    }
}

/// What a claim waits for when there is no volume.
enum Waiting {
    Consumer,
    Provisioner(String),
    Nothing,
}

impl Claims {
    /// A claim whose binding was completed: its volume must be there and be its own.
    async fn bound(&self, claim: &PersistentVolumeClaim) -> Result<Requeue, Error> {
        let Some(name) = volume_name(claim) else {
            let why = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
            return self.lost(claim, "ClaimLost", why).await;
        };
        let Some(volume) = self.0.volume(name) else {
            let why = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
            return self.lost(claim, "ClaimLost", why).await;
        };
        let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        match reference {
            None => self.bind(claim, &volume).await,
            Some(r) if r.uid == claim.metadata.uid => self.bind(claim, &volume).await,
            Some(_) => {
                let why = "Two claims are bound to the same volume, this one is bound incorrectly";
                self.lost(claim, "ClaimMisbound", why).await
            }
        }
    }

    async fn lost(&self, claim: &PersistentVolumeClaim, reason: &str, why: &str) -> Result<Requeue, Error> {
        if self.set_phase(claim, "Lost", None).await? {
            self.0.ctx.warning(claim, reason, why);
        }
        Ok(Requeue::Done)
    }

    async fn unbound(&self, claim: &PersistentVolumeClaim) -> Result<Requeue, Error> {
        match volume_name(claim) {
            None => self.search(claim).await,
            Some(name) => self.named(claim, name).await,
        }
    }

    /// A claim that takes any volume that fits.
    async fn search(&self, claim: &PersistentVolumeClaim) -> Result<Requeue, Error> {
        let waiting = self.waiting(claim);
        let delayed = matches!(waiting, Waiting::Consumer);
        if claim.metadata.deletion_timestamp.is_none()
            && let Some(volume) = matching::find(&self.0.volumes.list(), claim, delayed)
        {
            return self.bind(claim, &volume).await;
        }
        match waiting {
            Waiting::Consumer => {
                let text = "waiting for first consumer to be created before binding";
                self.0.ctx.normal(claim, "WaitForFirstConsumer", text);
            }
            Waiting::Provisioner(name) => return self.provision(claim, &name).await,
            Waiting::Nothing => {
                let text = "no persistent volumes available for this claim and no storage class is set";
                self.0.ctx.normal(claim, "FailedBinding", text);
            }
        }
        self.set_phase(claim, "Pending", None).await?;
        Ok(Requeue::Done)
    }

    fn waiting(&self, claim: &PersistentVolumeClaim) -> Waiting {
        let name = class_of_claim(claim);
        if name.is_empty() {
            return Waiting::Nothing;
        }
        let Some(class) = self.0.classes.get("", &name) else { return Waiting::Provisioner(String::new()) };
        let delayed = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
        if delayed && !annotated(&claim.metadata, SELECTED_NODE) {
            return Waiting::Consumer;
        }
        Waiting::Provisioner(class.provisioner.clone())
    }

    /// Leaves the claim to an external provisioner.
    async fn provision(&self, claim: &PersistentVolumeClaim, provisioner: &str) -> Result<Requeue, Error> {
        let class = class_of_claim(claim);
        if provisioner.is_empty() {
            let text = format!("storageclass.storage.k8s.io {class:?} not found");
            self.0.ctx.warning(claim, "ProvisioningFailed", text);
        } else if provisioner == NO_PROVISIONER {
            let text = "no volume plugin matched name: kubernetes.io/no-provisioner";
            self.0.ctx.warning(claim, "ProvisioningFailed", text);
        } else {
            let known = |key| claim.metadata.annotations.as_ref().and_then(|a| a.get(key)).map(String::as_str);
            if known(PROVISIONER) != Some(provisioner) || known(PROVISIONER_BETA) != Some(provisioner) {
                let mut wanted = claim.clone();
                let annotations = wanted.metadata.annotations.get_or_insert_default();
                for key in [PROVISIONER, PROVISIONER_BETA] {
                    annotations.insert(key.to_owned(), provisioner.to_owned());
                }
                self.put(&wanted).await?;
            }
            let text = format!(
                "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
            );
            self.0.ctx.normal(claim, "ExternalProvisioning", text);
        }
        let newest = self.0.claims.get_key(&Key::of(claim));
        self.set_phase(newest.as_deref().unwrap_or(claim), "Pending", None).await?;
        Ok(Requeue::Done)
    }

    /// A claim that names its volume.
    async fn named(&self, claim: &PersistentVolumeClaim, name: &str) -> Result<Requeue, Error> {
        let Some(volume) = self.0.volume(name) else {
            self.set_phase(claim, "Pending", None).await?;
            return Ok(Requeue::Done);
        };
        let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        match reference {
            None => match matching::refused(&volume, claim) {
                Ok(()) => self.bind(claim, &volume).await,
                Err(why) => {
                    let text = format!("Cannot bind to requested volume {name:?}: {why}");
                    self.0.ctx.warning(claim, "VolumeMismatch", text);
                    self.set_phase(claim, "Pending", None).await?;
                    Ok(Requeue::Done)
                }
            },
            Some(_) if is_for(&volume, claim) => self.bind(claim, &volume).await,
            Some(_) => {
                let text = format!("volume {name:?} already bound to a different claim.");
                self.0.ctx.warning(claim, "FailedBinding", text);
                self.set_phase(claim, "Pending", None).await?;
                Ok(Requeue::Done)
            }
        }
    }

    /// Binds both, in the order that a crash between cannot hurt; what is done already is left alone.
    async fn bind(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<Requeue, Error> {
        let volume = self.bind_volume(claim, volume).await?;
        let volume = self.0.set_phase(&volume, "Bound", "").await?;
        let name = volume.metadata.name.clone().unwrap_or_default();
        let mut wanted = claim.clone();
        let annotations: &mut BTreeMap<String, String> = wanted.metadata.annotations.get_or_insert_default();
        annotations.insert(BIND_COMPLETED.into(), "yes".into());
        if volume_name(claim) != Some(&name) {
            annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
            wanted.spec.get_or_insert_default().volume_name = Some(name);
        }
        let claim = if wanted == *claim { wanted } else { self.put(&wanted).await? };
        self.set_phase(&claim, "Bound", Some(&volume)).await?;
        Ok(Requeue::Done)
    }

    async fn bind_volume(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<PersistentVolume, Error> {
        let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.clone());
        if reference.as_ref().is_some_and(|r| r.uid == claim.metadata.uid) {
            return Ok(volume.clone());
        }
        let mut wanted = volume.clone();
        if reference.is_none() {
            let annotations = wanted.metadata.annotations.get_or_insert_default();
            annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
        }
        wanted.spec.get_or_insert_default().claim_ref = Some(informer::reference(claim));
        self.0.put_volume(&wanted).await
    }

    async fn put(&self, claim: &PersistentVolumeClaim) -> Result<PersistentVolumeClaim, Error> {
        let (namespace, name) =
            (claim.metadata.namespace.clone().unwrap_or_default(), claim.metadata.name.clone().unwrap_or_default());
        Ok(self.0.ctx.api::<PersistentVolumeClaim>(&namespace).replace(&name, &PostParams::default(), claim).await?)
    }

    /// Writes a claim's phase and what it has of its volume. Whether that changed anything.
    async fn set_phase(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<bool, Error> {
        let mut wanted = claim.clone();
        let bound_before = claim.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Bound"));
        let status = wanted.status.get_or_insert_default();
        status.phase = Some(phase.to_owned());
        match volume.and_then(|v| v.spec.as_ref()) {
            None => (status.access_modes, status.capacity) = (None, None),
            Some(spec) => {
                status.access_modes.clone_from(&spec.access_modes);
                // Once bound, the size is the resizer's and the kubelet's to tell.
                if !bound_before || status.capacity.is_none() {
                    status.capacity.clone_from(&spec.capacity);
                }
                if !bound_before {
                    status.current_volume_attributes_class_name.clone_from(&spec.volume_attributes_class_name);
                }
            }
        }
        if wanted.status == claim.status {
            return Ok(false);
        }
        let (namespace, name) =
            (claim.metadata.namespace.clone().unwrap_or_default(), claim.metadata.name.clone().unwrap_or_default());
        self.0
            .ctx
            .api::<PersistentVolumeClaim>(&namespace)
            .replace_status(&name, &PostParams::default(), &wanted)
            .await?;
        Ok(true)
    }
}
