//! Mounts of images (`Mount.image`): their layers shown read-only below the sandbox's directory, bound by the container.
//!
//! The kubelet has pulled the image; its layers are held, and the overlay stands, until the sandbox is removed.

use super::Options;
use cri::{Error, Result};
use protos::cri as p;
use rustix::fd::AsFd;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use std::io;
use std::path::{Path, PathBuf};

fn dir(options: &Options, sandbox: &str) -> PathBuf {
    options.image_mounts.join(sandbox)
}

fn holder(sandbox: &str, name: &str) -> String {
    format!("volume-{sandbox}-{name}")
}

/// Turns mounts of images into mounts of directories of the node.
pub async fn prepare(options: &Options, sandbox: &str, config: &mut p::ContainerConfig) -> Result<()> {
    for mount in config.mounts.iter_mut().filter(|m| m.image.is_some()) {
        let image = mount.image.take().unwrap_or_default().image;
        let name = format!("{:016x}", rand::random::<u64>());
        let layers = options.images.hold_image(&options.owner, &holder(sandbox, &name), &image).await?;
        let layers = layers.ok_or_else(|| Error::InvalidArgument("images cannot be mounted here".into()))?;
        let (target, below) = (dir(options, sandbox).join(&name), mount.image_sub_path.clone());
        let shown = tokio::task::spawn_blocking(move || show(&layers, &target, &below)).await.map_err(io::Error::other);
        let path = shown.and_then(|r| r).map_err(|e| Error::Internal(format!("failed to mount image {image}: {e}")))?;
        mount.host_path = path.display().to_string();
        mount.readonly = true;
    }
    Ok(())
}

/// Lets go of a removed sandbox's; idempotent.
pub async fn release(options: &Options, sandbox: &str) -> Result<()> {
    let dir = dir(options, sandbox);
    for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
        for mounted in ["part", "whole"] {
            // Fails where nothing is mounted.
            let _ = unmount(entry.path().join(mounted), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        options.images.release_image(&options.owner, &holder(sandbox, &name)).await?;
    }
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Internal(error.to_string())),
        _ => Ok(()),
    }
}

/// Shows layers, the lowest first, at `<target>/whole`; a part of them, resolved within, at `<target>/part`.
fn show(layers: &[PathBuf], target: &Path, below: &str) -> io::Result<PathBuf> {
    let (whole, part, empty) = (target.join("whole"), target.join("part"), target.join("empty"));
    for made in [&whole, &empty] {
        std::fs::create_dir_all(made)?;
    }
    cri::mount_layers(layers, &empty, &whole)?;
    if below.is_empty() {
        return Ok(whole);
    }
    let root = openat(CWD, &whole, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let within = openat2(&root, below, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?;
    std::fs::create_dir_all(&part)?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(within.as_fd(), c"", clone)?;
    move_mount(tree.as_fd(), c"", CWD, &part, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_layers_are_shown() {
        // Only root mounts.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("tempdir");
        // Together longer than what the kernel takes as one value.
        let names = ["a", "b", "c", "d"].map(|name| dir.path().join(name.repeat(100)));
        for (number, layer) in names.iter().enumerate() {
            std::fs::create_dir(layer).expect("layer");
            std::fs::write(layer.join("file"), number.to_string()).expect("file");
        }
        let shown = show(&names, &dir.path().join("shown"), "").expect("a mount");
        assert_eq!(std::fs::read_to_string(shown.join("file")).expect("the highest layer's"), "3");
        unmount(&shown, UnmountFlags::DETACH).expect("unmount");
    }
}
