//! Detached mounts: made or cloned as handles, changed, and attached in one step.

use crate::error::{Context, Error, Result};
use crate::sys::{MountAttr, mount_setattr};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// `MOUNT_ATTR_RDONLY`
pub const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// `MOUNT_ATTR_NOSUID`
pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
/// `MOUNT_ATTR_NODEV`
pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
/// `MOUNT_ATTR_NOEXEC`
pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// Makes a new file system instance; an option without a value is a flag.
pub fn new(fstype: &str, options: &[(&str, Option<&str>)], attrs: u64) -> Result<OwnedFd> {
    let fs = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).context(|| format!("fsopen {fstype}"))?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&fs, *key, *value),
            None => fsconfig_set_flag(&fs, *key),
        }
        .context(|| format!("{fstype} option {key}"))?;
    }
    fsconfig_create(&fs).context(|| format!("create {fstype}"))?;
    let attrs = MountAttrFlags::from_bits_retain(attrs as u32);
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attrs).context(|| format!("fsmount {fstype}"))
}

/// An overlay that is ready to be attached, or to be mounted by name where the kernel is too old for that.
pub enum Overlay {
    /// A detached mount.
    Detached(OwnedFd),
    /// Options for mount(2): before 6.7 fsconfig takes no more than 256 bytes of layers.
    Options(String),
}

/// Longest option string of mount(2).
const MAX_OPTIONS: usize = 4095;

/// An overlay of read-only layers (top first) and a writable one.
pub fn overlay(lower: &[impl AsRef<Path>], upper: &Path, work: &Path) -> Result<Overlay> {
    if takes_single_layers(&rustix::system::uname().release().to_string_lossy()) {
        detached_overlay(lower, upper, work).map(Overlay::Detached)
    } else {
        overlay_options(lower, upper, work).map(Overlay::Options)
    }
}

/// Whether overlay knows `lowerdir+`. Asked of the version: trying it on an older kernel fills the kernel's log.
fn takes_single_layers(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 7)
}

fn detached_overlay(lower: &[impl AsRef<Path>], upper: &Path, work: &Path) -> Result<OwnedFd> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).context(|| "fsopen overlay")?;
    for layer in lower {
        fsconfig_set_string(&fs, "lowerdir+", layer.as_ref()).context(|| "overlay lowerdir")?;
    }
    fsconfig_set_string(&fs, "upperdir", upper).context(|| format!("overlay upperdir {}", upper.display()))?;
    fsconfig_set_string(&fs, "workdir", work).context(|| format!("overlay workdir {}", work.display()))?;
    fsconfig_create(&fs).context(|| "create overlay")?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).context(|| "fsmount overlay")
}

fn overlay_options(lower: &[impl AsRef<Path>], upper: &Path, work: &Path) -> Result<String> {
    let escape = |path: &Path| path.display().to_string().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,");
    let layers: Vec<String> = lower.iter().map(|layer| escape(layer.as_ref())).collect();
    let options = format!("lowerdir={},upperdir={},workdir={}", layers.join(":"), escape(upper), escape(work));
    if options.len() > MAX_OPTIONS {
        return Err(Error::Invalid(format!("{} image layers are too many for this kernel", lower.len())));
    }
    Ok(options)
}

impl Overlay {
    /// Puts it on a directory of ours and returns a handle of its root.
    pub(crate) fn attach(&self, target: &Path) -> Result<OwnedFd> {
        let shown = || format!("mount overlay on {}", target.display());
        match self {
            Self::Detached(mount) => attach_at(mount, target)?,
            Self::Options(options) => {
                let data = std::ffi::CString::new(options.as_str())
                    .map_err(|_| Error::Invalid("zero byte in a layer path".into()))?;
                rustix::mount::mount(
                    "overlay",
                    target,
                    "overlay",
                    rustix::mount::MountFlags::empty(),
                    Some(data.as_c_str()),
                )
                .context(shown)?;
            }
        }
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::open(target, flags, rustix::fs::Mode::empty()).context(shown)
    }

    pub(crate) fn fd(&self) -> Option<&OwnedFd> {
        match self {
            Self::Detached(fd) => Some(fd),
            Self::Options(_) => None,
        }
    }
}

/// Clones the mount tree at a path of ours into a detached one.
pub fn clone_path(path: &Path, recursive: bool) -> Result<OwnedFd> {
    open_tree(CWD, path, clone_flags(recursive)).context(|| format!("open_tree {}", path.display()))
}

/// Clones the mount that a handle stands on.
pub fn clone_fd(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    open_tree(fd, "", clone_flags(false) | OpenTreeFlags::AT_EMPTY_PATH).context(|| "open_tree")
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// Sets attributes of a mount.
pub fn set_attrs(fd: BorrowedFd<'_>, recursive: bool, set: u64) -> Result<()> {
    mount_setattr(fd, recursive, MountAttr { set, ..MountAttr::default() }).context(|| "mount_setattr")
}

/// Sets the propagation of a mount tree.
pub fn set_propagation(fd: BorrowedFd<'_>, propagation: u64) -> Result<()> {
    mount_setattr(fd, true, MountAttr { propagation, ..MountAttr::default() }).context(|| "mount_setattr propagation")
}

/// Attaches a detached mount on the directory or file behind a handle.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).context(|| "move_mount")
}

/// Attaches a detached mount on a path of ours.
pub fn attach_at(mount: &OwnedFd, target: &Path) -> Result<()> {
    move_mount(mount.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .context(|| format!("mount on {}", target.display()))
}

/// Detaches what is mounted on a path of ours; not being a mount (or not being) is fine.
pub fn detach(path: &Path) -> Result<()> {
    use rustix::io::Errno;
    match rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(error).context(|| format!("unmount {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_options() {
        for (release, expect) in [
            ("6.1.0-50-cloud-amd64", false),
            ("6.5.0", false),
            ("6.6.52", false),
            ("6.7.0", true),
            ("6.18.44-fc", true),
            ("5.15", false),
            ("7.0-rc1", true),
            ("", false),
        ] {
            assert_eq!(takes_single_layers(release), expect, "{release}");
        }
        let options = overlay_options(&["/a:b", "/c,d"], Path::new("/u"), Path::new("/w")).unwrap();
        assert_eq!(options, "lowerdir=/a\\:b:/c\\,d,upperdir=/u,workdir=/w");
        assert!(overlay_options(&vec!["/layer"; 600], Path::new("/u"), Path::new("/w")).is_err());
    }
}
