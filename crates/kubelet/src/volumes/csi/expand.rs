//! Growing a volume on its node, after the controller has grown it where it is kept.
//!
//! A node may read claims but not watch them, so a pod with a CSI claim looks again at every minute, as upstream's
//! kubelet does with each sync of a pod.

use super::mount;
use super::source::{self, Source, failed};
use crate::context::api_message;
use crate::events::EventType;
use crate::plugins::rpc;
use crate::pod::PodExt;
use crate::volumes::{MountedVolume, Request};
use api::k8s::core::v1::{PersistentVolume, PersistentVolumeClaim};
use api::quantity::Quantity;
use kube::api::{Patch, PatchParams};
use protos::csi::node_service_capability::rpc::Type as Rpc;
use protos::csi::{CapacityRange, NodeExpandVolumeRequest};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_secs(60);

fn storage(
    map: Option<&std::collections::BTreeMap<String, api::machinery::api::resource::Quantity>>,
) -> Option<Quantity> {
    Quantity::parse(&map?.get("storage")?.0).ok()
}

/// Grows the volume where the claim's status lags behind the persistent volume.
pub async fn after_set_up(
    request: &Request<'_>,
    source: &Source,
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
    path: &Path,
) -> Result<MountedVolume, String> {
    let mounted =
        MountedVolume { path: path.to_owned(), readonly: source.readonly, renew_at: Some(Instant::now() + LOOK) };
    let wanted = storage(volume.spec.as_ref().and_then(|s| s.capacity.as_ref()));
    let has = storage(claim.status.as_ref().and_then(|s| s.capacity.as_ref()));
    let (Some(wanted), Some(has)) = (wanted, has) else { return Ok(mounted) };
    if wanted.value() <= has.value() || source.readonly {
        return Ok(mounted);
    }
    let fail = |why: String| failed("MountVolume.NodeExpandVolume", &source.spec_name, why);
    let driver = request.ctx.plugins.csi.get(&source.driver).map_err(&fail)?;
    if !driver.can(Rpc::ExpandVolume).await.map_err(&fail)? {
        return Ok(mounted);
    }
    let staged = driver.can(Rpc::StageUnstageVolume).await.map_err(&fail)?;
    let stage = mount::stage_dir(request.ctx, &source.driver, &source.handle).join("globalmount");
    let single = driver.can(Rpc::SingleNodeMultiWriter).await.map_err(&fail)?;
    let call = NodeExpandVolumeRequest {
        volume_id: source.handle.clone(),
        volume_path: path.display().to_string(),
        capacity_range: Some(CapacityRange { required_bytes: wanted.value(), limit_bytes: 0 }),
        staging_target_path: if staged { stage.display().to_string() } else { String::new() },
        volume_capability: Some(source.capability(single, None)),
        secrets: source::secret(request, "NodeExpandSecretRef", source.expand_secret.as_ref()).await.map_err(&fail)?,
    };
    let answer = driver.node().node_expand_volume(rpc::timed(call)).await;
    answer.map_err(|s| fail(rpc::text(&s)))?;
    finish(request, claim, &wanted.to_string()).await.map_err(&fail)?;
    let (pod, node) = (request.pod, &request.ctx.config.node_name);
    let text =
        format!("MountVolume.NodeExpandVolume succeeded for volume {} {node}", crate::format::quote(&source.spec_name));
    request.ctx.recorder.pod(pod, EventType::Normal, "FileSystemResizeSuccessful", text);
    Ok(mounted)
}

/// Tells the API that the claim has its size.
async fn finish(request: &Request<'_>, claim: &PersistentVolumeClaim, size: &str) -> Result<(), String> {
    let status = claim.status.clone().unwrap_or_default();
    let conditions: Vec<Value> = status
        .conditions
        .iter()
        .flatten()
        .filter(|c| !["FileSystemResizePending", "Resizing"].contains(&c.type_.as_str()))
        .filter_map(|c| serde_json::to_value(c).ok())
        .collect();
    let patch = json!({"status": {
        "capacity": {"storage": size}, "conditions": conditions, "allocatedResourceStatuses": {"storage": null},
    }});
    let api: kube::Api<PersistentVolumeClaim> =
        kube::Api::namespaced(request.ctx.config.client.clone(), request.pod.namespace());
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let patched = api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.map(drop).map_err(|e| api_message(&e))
}
