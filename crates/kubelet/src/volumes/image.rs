//! `image` volumes: the files of an OCI image, read-only and not executable (KEP-4639).
//!
//! They come when a container that mounts them starts, as its own image does. The layers are kept while the pod is there,
//! and an overlay without an upper directory shows them.

use super::{MountedVolume, MountedVolumes, mounts};
use crate::context::Context;
use crate::events::{EventType, reason};
use crate::images::{ImageError, reference};
use crate::pod::PodExt;
use crate::start::StartError;
use crate::worker::Worker;
use api::k8s::core::v1::{Container, ImageVolumeSource, Pod, Volume};
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

const NAME: &str = "kubernetes.io~image";

fn dir(ctx: &Context, pod: &Pod, volume: &str) -> PathBuf {
    ctx.config.pod_dir(pod.uid()).join("volumes").join(NAME).join(volume)
}

fn of(pod: &Pod) -> impl Iterator<Item = (&Volume, &ImageVolumeSource)> {
    pod.spec().volumes.iter().flatten().filter_map(|v| Some((v, v.image.as_ref()?)))
}

/// The image volumes of a pod that are here already.
pub fn mounted(ctx: &Context, pod: &Pod) -> MountedVolumes {
    let here = |path: &PathBuf| path.is_dir() && mounts::is_mount_point(path).unwrap_or(false);
    let paths = of(pod).map(|(volume, _)| (volume.name.clone(), dir(ctx, pod, &volume.name)));
    paths.filter(|(_, path)| here(path)).map(|(name, path)| (name, volume_at(path))).collect()
}

fn volume_at(path: PathBuf) -> MountedVolume {
    MountedVolume { path, readonly: true, renew_at: None }
}

/// Pulls and mounts the image volumes that a container has; each is tried even where one fails.
pub async fn set_up(worker: &mut Worker, container: &Container) -> Result<(), StartError> {
    let (ctx, pod) = (worker.ctx.clone(), worker.pod.clone());
    let (ending, mut last) = (worker.mailbox.ending.clone(), Ok(()));
    for mount in container.volume_mounts.iter().flatten() {
        let wanted = of(&pod).find(|(v, _)| v.name == mount.name && !worker.volumes.contains_key(&v.name));
        let Some((_, source)) = wanted else { continue };
        match pull_and_mount(&ctx, &pod, &mount.name, source, &ending).await {
            Ok(volume) => drop(worker.volumes.insert(mount.name.clone(), volume)),
            Err(error) if error.reason.is_empty() => return Err(error),
            Err(error) => {
                let message = format!("Error: {}", error.reason);
                ctx.recorder.container(&pod, container, EventType::Warning, reason::FAILED, message);
                last = Err(error);
            }
        }
    }
    last
}

async fn pull_and_mount(
    ctx: &Context,
    pod: &Pod,
    name: &str,
    source: &ImageVolumeSource,
    ending: &CancellationToken,
) -> Result<MountedVolume, StartError> {
    let image = source.reference.as_deref().unwrap_or_default();
    let policy = source.pull_policy.as_deref().unwrap_or_else(|| reference::default_policy(image));
    let secrets = crate::start::pull_secrets(ctx, pod).await;
    // Only the pull is given up when the pod is to end: what is held and mounted is let go of with the pod.
    let pulled = ending.run_until_cancelled(ctx.images.ensure_volume(pod, image, policy, &secrets)).await;
    let Some(found) = pulled else { return Err(StartError::given_up()) };
    let found = found.map_err(|ImageError { reason, message, retry_at }| StartError {
        reason: reason.into(),
        message,
        retry_at,
    })?;
    let path = dir(ctx, pod, name);
    mount(ctx, pod, name, &found.id, &path).await.map_err(|why| StartError {
        reason: "CreateContainerError".into(),
        message: format!("failed to mount image {image}: {why}"),
        retry_at: None,
    })?;
    Ok(volume_at(path))
}

async fn mount(ctx: &Context, pod: &Pod, name: &str, image_id: &str, path: &std::path::Path) -> Result<(), String> {
    let (images, empty) = (&ctx.config.images, ctx.config.pod_dir(pod.uid()).join("empty"));
    // Its directory tells at the end of the pod that the image is held.
    mounts::make_dir(&empty, 0o755).and_then(|()| mounts::make_dir(path, 0o755)).map_err(|e| e.to_string())?;
    let layers = images.hold_image(&ctx.config.node_name, &holder(pod.uid(), name), image_id).await;
    let layers = layers.map_err(|e| e.to_string())?.ok_or("the runtime does not support image volumes")?;
    cri::mount_layers(&layers, &empty, path).map_err(|e| e.to_string())
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
