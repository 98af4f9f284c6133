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
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    move_mount,
};
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

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
        show(&layers, &empty, &request.dir).map_err(|e| format!("failed to mount image {image}: {e}"))?;
        Ok(mounted)
    }
}

/// The same for kernels before 6.7, which take all layers in one string: 255 bytes through `fsconfig(2)`, a page through
/// `mount(2)`. By descriptors each layer is 18 bytes of it, wherever it lies.
fn show_as_options(layers: &[PathBuf], empty: &Path, target: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let all = layers.iter().rev().map(PathBuf::as_path).chain([empty]);
    let open: Vec<OwnedFd> =
        all.map(|layer| rustix::fs::open(layer, flags, Mode::empty())).collect::<Result<_, _>>()?;
    let names: Vec<String> = open.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
    let options = CString::new(format!("lowerdir={}", names.join(":"))).map_err(io::Error::other)?;
    let attributes = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount("overlay", target, "overlay", attributes, Some(options.as_c_str()))?)
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

/// Mounts layers, the lowest first, one over the other. `empty` makes it two where there is one.
fn show(layers: &[PathBuf], empty: &Path, target: &Path) -> io::Result<()> {
    // Older kernels take any word for an option and fail only at the end.
    show_one_by_one(layers, empty, target).or_else(|_| show_as_options(layers, empty, target))
}

fn show_one_by_one(layers: &[PathBuf], empty: &Path, target: &Path) -> io::Result<()> {
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in layers.iter().rev().map(PathBuf::as_path).chain([empty]) {
        fsconfig_set_string(overlay.as_fd(), "lowerdir+", layer)?;
    }
    fsconfig_create(overlay.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(overlay.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok(move_mount(mount.as_fd(), c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More layers with longer paths than 255 bytes hold. Needs root.
    #[test]
    fn many_layers_are_shown_in_both_ways() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (empty, target) = (dir.path().join("empty"), dir.path().join("target"));
        std::fs::create_dir(&empty).and_then(|()| std::fs::create_dir(&target)).expect("mkdir");
        let layers: Vec<PathBuf> = (0..40).map(|n| dir.path().join(format!("{}-{n}", "long".repeat(20)))).collect();
        for (n, layer) in layers.iter().enumerate() {
            std::fs::create_dir(layer).expect("mkdir");
            std::fs::write(layer.join(format!("f{n}")), "").expect("write");
            std::fs::write(layer.join("top"), n.to_string()).expect("write");
        }
        for way in [show_one_by_one, show_as_options, show] {
            way(&layers, &empty, &target).expect("shown");
            let seen = (0..40).all(|n| target.join(format!("f{n}")).exists());
            let top = std::fs::read_to_string(target.join("top"));
            mounts::unmount_below(&target).expect("unmounted");
            assert!(seen);
            assert_eq!(top.expect("read"), "39");
        }
    }
}
