//! The parent's side: opening handles, cloning, and the talk with the child.

use crate::cgroup::Cgroup;
use crate::error::{Context, Result};
use crate::idmap::{self, IdMap};
use crate::init::{self, Child};
use crate::rootfs::Handles;
use crate::spec::{ContainerSpec, PidNamespace, ProcessSpec};
use crate::sys::{self, Forked};
use crate::user::Identity;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Longest message of a child; longer error texts are cut.
const MAX_REPORT: usize = 16 << 10;

/// The child's stdin, stdout and stderr.
pub struct Stdio(pub [OwnedFd; 3]);

impl Stdio {
    /// Puts them in place, owned by the process's user (a program may open /dev/stdout anew).
    pub(crate) fn install(&self, uid: u32) -> Result<()> {
        for (number, fd) in self.0.iter().enumerate() {
            // /dev/null stays root's: it is the node's.
            if rustix::fs::fstat(fd).is_ok_and(|s| s.st_rdev == 0) {
                let _ = rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None);
            }
            sys::dup_to(fd.as_fd(), number as i32).context(|| "dup stdio")?;
        }
        Ok(())
    }
}

/// A cloned process that waits for its start.
pub struct Prepared {
    /// Pid on the node.
    pub pid: i32,
    /// Handle of it.
    pub pidfd: OwnedFd,
    /// Tells [`Report`]s; closes at `execve`. Readable through [`Report::receive`].
    pub channel: OwnedFd,
}

/// What a child says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// Everything but the start is done. Carries the terminal's master where there is one.
    Ready(Identity),
    /// It gave up, for this reason.
    Failed(String),
}

impl Report {
    pub(crate) fn send(&self, channel: BorrowedFd<'_>, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(self)?;
        if bytes.len() > MAX_REPORT {
            bytes = serde_json::to_vec(&Self::Failed("an error too long to report".into()))?;
        }
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        sendmsg(channel, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives one report with its descriptor; `None` at the end: `execve` succeeded or the child died.
    pub fn receive(channel: BorrowedFd<'_>) -> io::Result<Option<(Self, Option<OwnedFd>)>> {
        let mut bytes = vec![0; MAX_REPORT];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let got = match recvmsg(channel, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            // A child that died with our start unread resets the channel.
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            got => got?,
        };
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if got.bytes == 0 {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&bytes[..got.bytes])?, fd)))
    }
}

/// Tells a ready child to go on to `execve`.
pub fn start(channel: BorrowedFd<'_>) -> Result<()> {
    rustix::net::send(channel, &[1], SendFlags::NOSIGNAL).context(|| "start").map(drop)
}

/// Existing namespaces that a container joins.
#[derive(Clone, Copy, Default)]
pub struct Joined<'a> {
    /// PID namespace, as its file or as a process in it.
    pub pid: Option<BorrowedFd<'a>>,
    /// User namespace; goes with `spec.idmap`.
    pub user: Option<BorrowedFd<'a>>,
}

/// Clones a container's first process in its cgroup.
pub fn create(spec: &ContainerSpec, stdio: Option<Stdio>, cgroup: &Cgroup, joined: Joined<'_>) -> Result<Prepared> {
    let handles = Handles::open(spec, cgroup.mounts(), joined.user)?;
    let join = cgroup.join()?;
    let (ours, theirs) = channel()?;
    own_stdio(stdio.as_ref(), spec.idmap.as_ref());
    let own_pid = if spec.pid == PidNamespace::Own { libc::CLONE_NEWPID } else { 0 };
    let flags = (libc::CLONE_NEWNS | own_pid) as u64;
    let child = Child { channel: &theirs, stdio: stdio.as_ref(), join: &join };
    let keep = handles.raw_fds();
    let mut entered = None;
    let forked = match (joined.user, joined.pid) {
        (Some(user), pid) => idmap::clone_within(user, pid, flags, &join, || init::adjust_oom_score(&spec.process))?,
        // Others are in that namespace already: what they see must not have a root of the node.
        (None, Some(pid)) => idmap::clone_between(&join, 0, |own| {
            child.isolate(&[own, &keep, &[pid.as_raw_fd()]].concat())?;
            sys::unshare(libc::CLONE_NEWNS).context(|| "unshare the mount namespace")?;
            entered = Some(init::enter(spec, &handles)?);
            sys::setns(pid, libc::CLONE_NEWPID).context(|| "join the PID namespace")
        })?,
        (None, None) => sys::clone3(flags, join.clone_into()).context(|| "clone3")?,
    };
    match (forked, entered) {
        (Forked::Child, Some(entered)) => child.run_isolated(|| init::container(spec, &handles, &entered, &child)),
        (Forked::Child, None) => {
            child.run(&keep, || init::container(spec, &handles, &init::enter(spec, &handles)?, &child))
        }
        (Forked::Parent(pid, pidfd), _) => Ok(Prepared { pid, pidfd, channel: ours }),
    }
}

/// In a user namespace the pipes must be its root's: a program may open /dev/stdout anew.
fn own_stdio(stdio: Option<&Stdio>, idmap: Option<&IdMap>) {
    let (Some(stdio), Some(idmap)) = (stdio, idmap) else { return };
    let (uid, gid) = idmap.root();
    for fd in stdio.0.iter().filter(|fd| rustix::fs::fstat(fd).is_ok_and(|s| s.st_rdev == 0)) {
        let _ = rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)));
    }
}

/// Clones a process into a running container.
pub fn exec(
    process: &ProcessSpec,
    target: BorrowedFd<'_>,
    idmap: Option<&IdMap>,
    stdio: Option<Stdio>,
    cgroup: &Cgroup,
) -> Result<Prepared> {
    let join = cgroup.join()?;
    let (ours, theirs) = channel()?;
    let shared =
        libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET | libc::CLONE_NEWCGROUP;
    let namespaces = if idmap.is_some() { shared | libc::CLONE_NEWUSER } else { shared };
    own_stdio(stdio.as_ref(), idmap);
    let child = Child { channel: &theirs, stdio: stdio.as_ref(), join: &join };
    // Those in the container see the child, not the process in between: by then it has left the node.
    let forked = idmap::clone_between(&join, 0, |own| {
        child.isolate(&[own, &[target.as_raw_fd()]].concat())?;
        init::join(process, target, namespaces)
    })?;
    match forked {
        Forked::Child => child.run_isolated(|| init::exec(process, &child)),
        Forked::Parent(pid, pidfd) => Ok(Prepared { pid, pidfd, channel: ours }),
    }
}

/// Kills a child that is not wanted any more.
pub fn discard(prepared: &Prepared) {
    // It may be gone already; the shim reaps it either way.
    let _ = sys::pidfd_signal(prepared.pidfd.as_fd(), libc::SIGKILL);
}

fn channel() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).context(|| "socketpair")
}
