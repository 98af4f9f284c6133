//! Layers of an image shown one over the other, for volumes and mounts of images.

use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, mount, move_mount,
};
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

/// Mounts layers, the lowest first, at `target`: read-only, without devices, set-user-ID bits and execution. An overlay
/// without an upper directory has at least two lower ones: `empty` is one more, below all.
pub fn mount_layers(layers: &[PathBuf], empty: &Path, target: &Path) -> io::Result<()> {
    let lower: Vec<&Path> = layers.iter().rev().map(PathBuf::as_path).chain([empty]).collect();
    // Older kernels take any word for an option and fail only at the end.
    one_by_one(&lower, target).or_else(|_| as_options(&lower, target))
}

fn one_by_one(lower: &[&Path], target: &Path) -> io::Result<()> {
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in lower {
        fsconfig_set_string(overlay.as_fd(), "lowerdir+", *layer)?;
    }
    fsconfig_create(overlay.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let made = fsmount(overlay.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok(move_mount(made.as_fd(), c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// The same for kernels before 6.7, which take all layers in one string: 255 bytes through `fsconfig(2)`, a page through
/// `mount(2)`. By descriptors each layer is 18 bytes of it, wherever it lies.
fn as_options(lower: &[&Path], target: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open: Vec<OwnedFd> =
        lower.iter().map(|layer| rustix::fs::open(*layer, flags, Mode::empty())).collect::<Result<_, _>>()?;
    let names: Vec<String> = open.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
    let options = CString::new(format!("lowerdir={}", names.join(":"))).map_err(io::Error::other)?;
    let attributes = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("overlay", target, "overlay", attributes, Some(options.as_c_str()))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mount::{UnmountFlags, unmount};

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
        let lower: Vec<&Path> = layers.iter().rev().map(PathBuf::as_path).chain([empty.as_path()]).collect();
        let check = |shown: io::Result<()>| {
            shown.expect("shown");
            let seen = (0..40).all(|n| target.join(format!("f{n}")).exists());
            let top = std::fs::read_to_string(target.join("top"));
            unmount(&target, UnmountFlags::DETACH).expect("unmounted");
            assert!(seen);
            assert_eq!(top.expect("read"), "39");
        };
        check(one_by_one(&lower, &target));
        check(as_options(&lower, &target));
        check(mount_layers(&layers, &empty, &target));
    }
}
