//! Raw devices: staged and published as files, mapped into containers by their numbers.

use super::mount::{self, Policy, publish_context};
use super::source::{self, Source, failed, log, unique_name};
use crate::context::Context;
use crate::plugins::rpc;
use crate::pod::PodExt;
use crate::volumes::{MountedVolume, Request, mounts};
use protos::csi::node_service_capability::rpc::Type as Rpc;
use protos::csi::{NodePublishVolumeRequest, NodeStageVolumeRequest};
use std::path::PathBuf;

/// Where devices are staged and published.
pub fn device_dir(ctx: &Context) -> PathBuf {
    ctx.config.root_dir.join("plugins/kubernetes.io/csi/volumeDevices")
}

/// Where a device is staged: by the volume's name.
pub fn stage_path(ctx: &Context, spec_name: &str) -> PathBuf {
    device_dir(ctx).join("staging").join(spec_name)
}

/// Where a device is published to a pod.
pub fn publish_path(ctx: &Context, spec_name: &str, pod_uid: &str) -> PathBuf {
    device_dir(ctx).join("publish").join(spec_name).join(pod_uid)
}

/// Sets a raw device up; does nothing when that was done.
pub async fn set_up(request: &Request<'_>, source: &Source) -> Result<MountedVolume, String> {
    let ctx = request.ctx;
    let target = publish_path(ctx, &source.spec_name, request.pod.uid());
    let done = || MountedVolume { path: target.clone(), readonly: source.readonly, renew_at: None };
    if ctx.plugins.csi.is_published(&target).is_some() {
        return Ok(done());
    }
    let fail = |why: String| failed("MapVolume.SetUpDevice", &source.spec_name, why);
    let driver = ctx.plugins.csi.get(&source.driver);
    let driver = driver.map_err(|why| fail(log(format!("blockMapper.SetUpDevice failed to get CSI client: {why}"))))?;
    let attach = Policy::read(ctx, &source.driver).await.map_err(&fail)?.attach_required();
    let context = publish_context(request, source, attach).await?;
    let attached = attach.then(|| unique_name(&source.driver, &source.handle));
    ctx.plugins.csi.set_in_use(&target, attached.as_deref());
    let single = driver.can(Rpc::SingleNodeMultiWriter).await.map_err(&fail)?;
    let io = |e: std::io::Error| fail(e.to_string());
    // The pod's own record, for whoever undoes it.
    let dir = ctx.config.pod_dir(request.pod.uid()).join("volumeDevices/kubernetes.io~csi").join(&source.spec_name);
    mounts::make_dir(&dir, 0o750).map_err(io)?;
    mount::record(ctx, source).save(&dir).map_err(io)?;
    let stage = stage_path(ctx, &source.spec_name);
    let mut staging = String::new();
    if driver.can(Rpc::StageUnstageVolume).await.map_err(&fail)? {
        let _turn = ctx.plugins.csi.lock(&stage).await;
        mounts::make_dir(&stage, 0o750).map_err(io)?;
        staging = stage.display().to_string();
        let call = NodeStageVolumeRequest {
            volume_id: source.handle.clone(),
            publish_context: context.clone(),
            staging_target_path: staging.clone(),
            volume_capability: Some(source.capability(single, None)),
            secrets: source::secret(request, "NodeStageSecretRef", source.stage_secret.as_ref())
                .await
                .map_err(&fail)?,
            volume_context: source.attributes.clone(),
        };
        driver.node().node_stage_volume(rpc::timed(call)).await.map_err(|s| fail(rpc::text(&s)))?;
    }
    mounts::make_dir(target.parent().unwrap_or(&target), 0o750).map_err(io)?;
    let call = NodePublishVolumeRequest {
        volume_id: source.handle.clone(),
        publish_context: context,
        staging_target_path: staging,
        target_path: target.display().to_string(),
        volume_capability: Some(source.capability(single, None)),
        readonly: source.readonly,
        secrets: source::secret(request, "NodePublishSecretRef", source.publish_secret.as_ref())
            .await
            .map_err(&fail)?,
        volume_context: source.attributes.clone(),
    };
    driver.node().node_publish_volume(rpc::timed(call)).await.map_err(|s| fail(rpc::text(&s)))?;
    ctx.plugins.csi.set_published(&target, None, attached);
    Ok(done())
}
