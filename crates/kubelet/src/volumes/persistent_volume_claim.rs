//! `persistentVolumeClaim` and generic ephemeral volumes: a path of this node, or what the plugin of the persistent volume
//! makes of it.

use super::{MountedVolume, Request, VolumePlugin, host_path, ownership};
use crate::context::api_message;
use crate::pod::PodExt;
use api::k8s::core::v1::{PersistentVolume, PersistentVolumeClaim, Volume};
use async_trait::async_trait;
use std::path::PathBuf;

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
        let name = claim_name(request);
        let processing = |why| format!("{UNPROCESSED} {}/{name}: {why}", request.pod.namespace());
        let claim = claim(request, &name).await.map_err(processing)?;
        is_for_pod(request, &claim)?;
        let volume = persistent_volume(request, &claim).await.map_err(processing)?;
        let spec = volume.spec.as_ref().ok_or("PersistentVolume has no spec")?;
        let source_readonly =
            request.volume.persistent_volume_claim.as_ref().and_then(|c| c.read_only).unwrap_or(false);
        if spec.csi.is_some() {
            return super::csi::persistent(request, &claim, &volume).await;
        }
        if let Some(source) = &spec.nfs {
            return super::nfs::persistent(request, &volume, source, source_readonly).await;
        }
        let (path, kind) = match (&spec.host_path, &spec.local) {
            (Some(source), _) => (source.path.as_str(), source.type_.as_deref().unwrap_or_default()),
            (_, Some(source)) => (source.path.as_str(), "Directory"),
            _ => return Err("no volume plugin matched".into()),
        };
        host_path::check(path, kind).await?;
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

/// How the error of a claim that cannot be used yet begins: such a volume was never attempted.
pub const UNPROCESSED: &str = "error processing PVC";

fn claim_name(request: &Request<'_>) -> String {
    match &request.volume.persistent_volume_claim {
        Some(source) => source.claim_name.clone(),
        None => format!("{}-{}", request.pod.name(), request.volume.name),
    }
}

async fn claim(request: &Request<'_>, name: &str) -> Result<PersistentVolumeClaim, String> {
    let api: kube::Api<PersistentVolumeClaim> =
        kube::Api::namespaced(request.ctx.config.client.clone(), request.pod.namespace());
    let claim = api.get(name).await.map_err(|e| format!("failed to fetch PVC from API server: {}", api_message(&e)))?;
    let meta = &claim.metadata;
    let protected = meta.finalizers.iter().flatten().any(|f| f == "kubernetes.io/pvc-protection");
    if meta.deletion_timestamp.is_some() && !protected {
        return Err("PVC is being deleted".into());
    }
    if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") {
        return Err("PVC is not bound".into());
    }
    if volume_name(&claim).is_empty() {
        return Err("PVC has empty pvc.Spec.VolumeName".into());
    }
    Ok(claim)
}

fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default()
}

/// The claim of a generic ephemeral volume belongs to its pod.
fn is_for_pod(request: &Request<'_>, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let (pod, meta) = (request.pod, &claim.metadata);
    let owned = meta.owner_references.iter().flatten().any(|o| o.uid == pod.uid());
    if request.volume.ephemeral.is_none() || owned {
        return Ok(());
    }
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let pod = format!("{}/{}", pod.namespace(), pod.name());
    Err(format!("PVC {namespace}/{name} was not created for pod {pod} (pod is not owner)"))
}

async fn persistent_volume(request: &Request<'_>, claim: &PersistentVolumeClaim) -> Result<PersistentVolume, String> {
    let name = volume_name(claim);
    let api: kube::Api<PersistentVolume> = kube::Api::all(request.ctx.config.client.clone());
    let volume =
        api.get(name).await.map_err(|e| format!("failed to fetch PV {name} from API server: {}", api_message(&e)))?;
    let Some(reference) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else {
        return Err(format!(
            "found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
        ));
    };
    if reference.uid == claim.metadata.uid {
        return Ok(volume);
    }
    let uid = |uid: &Option<String>| uid.clone().unwrap_or_default();
    let (theirs, ours) = (uid(&reference.uid), uid(&claim.metadata.uid));
    Err(format!("found PV object {name} but its pv.Spec.ClaimRef.UID {theirs} does not point to claim.UID {ours}"))
}
