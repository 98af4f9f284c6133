//! `image` volumes: the files of an OCI image, read-only and not executable (KEP-4639).
//!
//! The image is pulled as a container's is, its layers are kept while the pod is there, and an overlay without an
//! upper directory shows them.

use super::{MountedVolume, Request, VolumePlugin, mounts};
use crate::context::Context;
use crate::images::reference;
use crate::pod::PodExt;
use api::k8s::core::v1::Volume;
use async_trait::async_trait;

/// The plugin.
pub struct ImageVolume;

const NAME: &str = "kubernetes.io~image";

#[async_trait]
impl VolumePlugin for ImageVolume {
    fn name(&self) -> &'static str {
        NAME
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.image.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<MountedVolume, String> {
        let source = request.volume.image.as_ref().ok_or("not an image volume")?;
        let mounted = MountedVolume { path: request.dir.clone(), readonly: true, renew_at: None };
        if request.dir.is_dir() && mounts::is_mount_point(&request.dir).map_err(|e| e.to_string())? {
            return Ok(mounted);
        }
        let image = source.reference.as_deref().unwrap_or_default();
        let policy = source.pull_policy.as_deref().unwrap_or_else(|| reference::default_policy(image));
        let secrets = crate::start::pull_secrets(request.ctx, request.pod).await;
        let found = request.ctx.images.ensure_volume(request.pod, image, policy, &secrets).await;
        let found = found.map_err(|e| format!("{}: {}", e.reason, e.message))?;
        let holder = holder(request.pod.uid(), &request.volume.name);
        let images = &request.ctx.config.images;
        let layers = images.hold_image(&request.ctx.config.node_name, &holder, &found.id).await;
        let layers = layers.map_err(|e| e.to_string())?.ok_or("the runtime does not support image volumes")?;
        let empty = request.ctx.config.pod_dir(request.pod.uid()).join("empty");
        mounts::make_dir(&empty, 0o755)
            .and_then(|()| mounts::make_dir(&request.dir, 0o755))
            .map_err(|e| e.to_string())?;
        cri::mount_layers(&layers, &empty, &request.dir)
            .map_err(|e| format!("failed to mount image {image}: {e}"))?;
        Ok(mounted)
    }
}

/// The name under which a pod's volume holds its image.
fn holder(pod_uid: &str, volume: &str) -> String {
    format!("volume-{pod_uid}-{volume}")
}

/// Lets go of the images that a pod's volumes held.
pub async fn release(ctx: &Context, pod_uid: &str) {
    let dir = ctx.config.pod_dir(pod_uid).join("volumes").join(NAME);
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let holder = holder(pod_uid, &entry.file_name().to_string_lossy());
        if let Err(error) = ctx.config.images.release_image(&ctx.config.node_name, &holder).await {
            tracing::warn!(holder, %error, "cannot let go of an image volume's image");
        }
    }
}
