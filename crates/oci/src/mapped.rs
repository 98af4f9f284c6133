//! Mounts seen through a user namespace: files of root on disk are those of the container's root.

use crate::error::{Context, Error, Result};
use crate::mount::{self, Overlay};
use crate::process::Report;
use crate::spec::Rootfs;
use crate::sys::{self, Forked, MountAttr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Maps a detached mount.
pub(crate) fn set(mount: BorrowedFd<'_>, user: BorrowedFd<'_>, source: &Path) -> Result<()> {
    let attr = MountAttr { set: libc::MOUNT_ATTR_IDMAP, userns_fd: user.as_raw_fd() as u64, ..MountAttr::default() };
    sys::mount_setattr(mount, false, attr).context(|| {
        format!(
            "failed to set MOUNT_ATTR_IDMAP on {} (maybe the filesystem doesn't support idmap mounts on this kernel?)",
            source.display()
        )
    })
}

/// An overlay whose layers are mapped. Its writable layer is not: it holds the ids of the host, and its
/// directory must belong to the container's root.
///
/// Overlay takes only attached mounts as layers, and nothing may be mounted in the node's namespace: so
/// a helper puts it together in a mount namespace of its own, and hands a clone over.
pub(crate) fn overlay(rootfs: &Rootfs, user: BorrowedFd<'_>) -> Result<Overlay> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).context(|| "socketpair")?;
    match sys::clone3(libc::CLONE_NEWNS as u64, None).context(|| "clone3")? {
        Forked::Child => {
            let report = match assemble(rootfs, user) {
                Ok(mount) => Report::Ready(Default::default()).send(theirs.as_fd(), Some(mount.as_fd())),
                Err(error) => Report::Failed(error.to_string()).send(theirs.as_fd(), None),
            };
            sys::exit_now(i32::from(report.is_err()))
        }
        Forked::Parent(pid, _) => {
            drop(theirs);
            let report = Report::receive(ours.as_fd()).context(|| "receive the root file system");
            crate::idmap::reap(pid);
            match report? {
                Some((Report::Ready(_), Some(mount))) => Ok(Overlay::Detached(mount)),
                Some((Report::Failed(why), _)) => Err(Error::Invalid(why)),
                _ => Err(Error::Invalid("the helper of the root file system died".into())),
            }
        }
    }
}

fn assemble(rootfs: &Rootfs, user: BorrowedFd<'_>) -> Result<OwnedFd> {
    use rustix::mount::{MountPropagationFlags, mount_change};
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).context(|| "make / private")?;
    let place = &rootfs.mountpoint;
    mount::attach_at(&mount::new("tmpfs", &[], 0)?, place)?;
    let mut lower = Vec::new();
    for (index, layer) in rootfs.lower.iter().enumerate() {
        let target = place.join(index.to_string());
        std::fs::create_dir(&target).context(|| target.display().to_string())?;
        let clone = mount::clone_path(layer, false)?;
        set(clone.as_fd(), user, layer)?;
        mount::attach_at(&clone, &target)?;
        lower.push(target);
    }
    let merged = place.join("merged");
    std::fs::create_dir(&merged).context(|| merged.display().to_string())?;
    mount::overlay(&lower, &rootfs.upper, &rootfs.work)?.attach(&merged)?;
    mount::clone_path(&merged, false)
}
