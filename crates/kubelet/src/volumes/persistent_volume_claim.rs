//! `persistentVolumeClaim` and generic ephemeral volumes whose persistent volume is a path of this node.

use super::{MountedVolume, Request, VolumePlugin, host_path, ownership};
use crate::context::api_message;
use crate::format::quote;
use crate::pod::PodExt;
use api::k8s::core::v1::{PersistentVolume, PersistentVolumeClaim, Volume};
use async_trait::async_trait;
use std::path::{Path, PathBuf};

/// The plugin.
pub struct PersistentVolumeClaimVolume;

#[async_trait]
impl VolumePlugin for PersistentVolumeClaimVolume {
    fn name(&self) -> &'static str {
        "kubernetes.io~local-volume"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<MountedVolume, String> {
        let claim = claim(request).await?;
        let volume = persistent_volume(request, &claim).await?;
        let spec = volume.spec.as_ref().ok_or("PersistentVolume has no spec")?;
        let source_readonly =
            request.volume.persistent_volume_claim.as_ref().and_then(|c| c.read_only).unwrap_or(false);
        if spec.csi.is_some() {
            return super::csi::persistent(request, &claim, &volume).await;
        }
        let (path, kind) = match (&spec.host_path, &spec.local) {
            (Some(source), _) => (source.path.as_str(), source.type_.as_deref().unwrap_or_default()),
            (_, Some(source)) => (source.path.as_str(), "Directory"),
            _ => return Err("no volume plugin matched".into()),
        };
        host_path::check(Path::new(path), kind)?;
        if spec.local.is_some()
            && let Some(group) = request.fs_group()
        {
            let policy = request.pod.spec().security_context.as_ref().and_then(|s| s.fs_group_change_policy.as_deref());
            let (path, on_mismatch) = (PathBuf::from(path), policy == Some("OnRootMismatch"));
            // The administrator may have given a link.
            let set = move || ownership::set(&path.canonicalize()?, group, source_readonly, on_mismatch);
            tokio::task::spawn_blocking(set).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        }
        Ok(MountedVolume { path: path.into(), readonly: source_readonly, renew_at: None })
    }
}

async fn claim(request: &Request<'_>) -> Result<PersistentVolumeClaim, String> {
    let (pod, volume) = (request.pod, request.volume);
    let name = match &volume.persistent_volume_claim {
        Some(source) => source.claim_name.clone(),
        None => format!("{}-{}", pod.name(), volume.name),
    };
    let api: kube::Api<PersistentVolumeClaim> =
        kube::Api::namespaced(request.ctx.config.client.clone(), pod.namespace());
    let claim =
        api.get(&name).await.map_err(|e| format!("failed to fetch PVC from API server: {}", api_message(&e)))?;
    if claim.metadata.deletion_timestamp.is_some() && pod.phase() == "Pending" {
        return Err("PVC is being deleted".into());
    }
    let owned = claim.metadata.owner_references.iter().flatten().any(|o| o.uid == pod.uid());
    if volume.ephemeral.is_some() && !owned {
        let pod = format!("{}/{}", pod.namespace(), pod.name());
        return Err(format!(
            "PVC {}/{name} was not created for pod {pod} (pod is not owner)",
            claim.metadata.namespace.unwrap_or_default()
        ));
    }
    Ok(claim)
}

async fn persistent_volume(request: &Request<'_>, claim: &PersistentVolumeClaim) -> Result<PersistentVolume, String> {
    let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    if phase != "Bound" || name.is_empty() {
        return Err(format!("PVC is not bound, its phase is {}", quote(phase)));
    }
    let api: kube::Api<PersistentVolume> = kube::Api::all(request.ctx.config.client.clone());
    let volume = api
        .get(name)
        .await
        .map_err(|e| format!("failed to fetch PV {} from API server: {}", quote(name), api_message(&e)))?;
    let bound_to = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).and_then(|c| c.uid.clone());
    if bound_to == claim.metadata.uid {
        Ok(volume)
    } else {
        Err(format!("PV {} spec.claimRef.uid is not bound to the claim", quote(name)))
    }
}
