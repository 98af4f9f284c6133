//! Terminals: a pty of the container's own devpts.

use crate::error::{Context, Error, Result};
use crate::{mount, sys};
use rustix::fs::{Mode, OFlags, fstat, fstatfs, major, minor, openat};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

/// Opens a new pty pair from the `ptmx` of a devpts directory, having checked that it is one.
pub(crate) fn open(devpts: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let master = openat(devpts, "ptmx", flags, Mode::empty()).context(|| "open /dev/pts/ptmx")?;
    let stat = fstat(&master).context(|| "stat /dev/pts/ptmx")?;
    let fs = fstatfs(&master).context(|| "statfs /dev/pts/ptmx")?;
    if fs.f_type as u64 != DEVPTS_SUPER_MAGIC || (major(stat.st_rdev), minor(stat.st_rdev)) != (5, 2) {
        return Err(Error::Invalid("/dev/pts/ptmx of the container is not a terminal multiplexer".into()));
    }
    unlockpt(&master).context(|| "unlock the terminal")?;
    // The peer is asked of the master itself: no path that the container could have replaced.
    let peer = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .context(|| "open the terminal's peer")?;
    Ok((master, peer))
}

/// Makes a terminal the controlling one and the stdio of this process, in a new session.
pub(crate) fn enter(peer: &OwnedFd, uid: u32) -> Result<()> {
    rustix::process::setsid().context(|| "setsid")?;
    rustix::process::ioctl_tiocsctty(peer).context(|| "set the controlling terminal")?;
    rustix::fs::fchown(peer, Some(rustix::fs::Uid::from_raw(uid)), None).context(|| "chown the terminal")?;
    (0..3).try_for_each(|fd| sys::dup_to(peer.as_fd(), fd)).context(|| "dup the terminal")
}

/// Shows a terminal as `/dev/console`: mounted on a node that is made in our own /dev through its handle.
pub(crate) fn show(dev: BorrowedFd<'_>, peer: &OwnedFd) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = openat(dev, "console", flags, Mode::from_raw_mode(0o600)).context(|| "create /dev/console")?;
    mount::attach(mount::clone_fd(peer.as_fd())?.as_fd(), node.as_fd())
}
