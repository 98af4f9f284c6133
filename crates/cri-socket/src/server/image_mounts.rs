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

    /// Needs root.
    #[test]
    fn images_and_parts_of_them_are_shown() {
        let dir = tempfile::tempdir().expect("tempdir");
        let layers = ["low", "high"].map(|name| dir.path().join(name));
        for layer in &layers {
            std::fs::create_dir_all(layer.join("sub")).expect("layer");
            std::fs::write(layer.join("sub/file"), layer.file_name().expect("name").as_encoded_bytes()).expect("file");
        }
        std::os::unix::fs::symlink("/sub", layers[0].join("link")).expect("link");
        let check = |below: &str, file: &str| {
            let target = dir.path().join(format!("shown-{}", below.len()));
            let shown = show(&layers, &target, below).expect("a mount");
            let text = std::fs::read_to_string(shown.join(file));
            for mounted in [shown, target.join("whole")] {
                // The whole is both where no part is asked for.
                let _ = unmount(&mounted, UnmountFlags::DETACH);
            }
            assert_eq!(text.expect("the highest layer's"), "high", "{below}");
        };
        check("", "sub/file");
        check("sub", "file");
        // A link leads within the image.
        check("link", "file");
        let target = dir.path().join("refused");
        assert!(show(&layers, &target, "../../etc").is_err(), "nothing of the node");
        unmount(target.join("whole"), UnmountFlags::DETACH).expect("unmount");
    }
}
