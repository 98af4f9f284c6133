//! User namespaces: mappings, the namespaces a pod owns through one, and clones born in one.

use crate::cgroup::Join;
use crate::error::{Context, Result};
use crate::sys::{self, Forked};
use rustix::process::{Pid, WaitOptions, waitpid};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Ranges `(id in the container, id on the host, how many)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// Users.
    pub uids: Vec<(u32, u32, u32)>,
    /// Groups.
    pub gids: Vec<(u32, u32, u32)>,
}

impl IdMap {
    /// Writes the mappings of a process that has just entered a new user namespace.
    fn write(&self, pid: i32) -> Result<()> {
        for (file, ranges) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
            let path = format!("/proc/{pid}/{file}");
            std::fs::write(&path, lines(ranges)).context(|| format!("write {path}"))?;
        }
        Ok(())
    }

    /// The host's ids of the container's root.
    pub fn root(&self) -> (u32, u32) {
        let of = |ranges: &[(u32, u32, u32)]| ranges.iter().find(|r| r.0 == 0).map_or(0, |r| r.1);
        (of(&self.uids), of(&self.gids))
    }
}

/// Makes a user namespace, moves the caller into new namespaces (`flags`) that it owns, and returns it.
/// The caller keeps its own user namespace, and with it its rights.
pub fn own_namespaces(map: &IdMap, flags: i32) -> Result<OwnedFd> {
    match sys::clone3((libc::CLONE_NEWUSER | flags) as u64, None).context(|| "clone3 in a user namespace")? {
        Forked::Child => loop {
            // Holds the namespaces until the parent has them.
            rustix::event::pause();
        },
        Forked::Parent(pid, pidfd) => {
            let taken = map.write(pid).and_then(|()| {
                let user = std::fs::File::open(format!("/proc/{pid}/ns/user")).context(|| "open the user namespace")?;
                sys::setns(pidfd.as_fd(), flags).context(|| "join the pod's namespaces")?;
                Ok(user.into())
            });
            let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
            reap(pid);
            taken
        }
    }
}

/// Clones a process into new namespaces (`flags`), owned by a user namespace if one is given.
pub fn clone_owned(user: Option<BorrowedFd<'_>>, flags: u64) -> Result<Forked> {
    match user {
        Some(user) => clone_within(user, None, flags, &Join::default(), || ()),
        None => sys::clone3(flags, None).context(|| "clone3"),
    }
}

/// Clones a child that is born in a user namespace, in new namespaces (`flags`) owned by it, and
/// optionally in an existing PID namespace. It takes a process in between, which joins (and loses its
/// rights on the node by that) and makes the child a sibling of itself. `before` runs ahead of that.
pub(crate) fn clone_within(
    user: BorrowedFd<'_>,
    pid_namespace: Option<BorrowedFd<'_>>,
    flags: u64,
    join: &Join,
    before: impl FnOnce(),
) -> Result<Forked> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context(|| "pipe")?;
    match sys::clone3(0, join.clone_into()).context(|| "clone3")? {
        Forked::Child => {
            before();
            let enter = || -> io::Result<Forked> {
                join.enter().map_err(io::Error::other)?;
                sys::setns(user, libc::CLONE_NEWUSER)?;
                pid_namespace.map_or(Ok(()), |ns| sys::setns(ns, libc::CLONE_NEWPID))?;
                sys::clone3_sibling(flags)
            };
            let said = match enter() {
                Ok(Forked::Child) => return Ok(Forked::Child),
                Ok(Forked::Parent(pid, _)) => pid,
                Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
            };
            let _ = rustix::io::write(&write, &said.to_le_bytes());
            sys::exit_now(0)
        }
        Forked::Parent(between, _) => {
            drop(write);
            let mut said = [0; 4];
            let got = rustix::io::retry_on_intr(|| rustix::io::read(&read, &mut said));
            reap(between);
            match (got, i32::from_le_bytes(said)) {
                (Ok(4), pid @ 1..) => {
                    // Our child and not reaped: the number is still its own.
                    let pidfd = rustix::process::pidfd_open(pid_of(pid), rustix::process::PidfdFlags::empty())
                        .context(|| "pidfd_open")?;
                    Ok(Forked::Parent(pid, pidfd))
                }
                (Ok(4), errno) => Err(io::Error::from_raw_os_error(-errno)).context(|| "clone in the user namespace"),
                _ => Err(io::Error::from_raw_os_error(libc::EIO)).context(|| "clone in the user namespace"),
            }
        }
    }
}

fn pid_of(pid: i32) -> Pid {
    Pid::from_raw(pid).unwrap_or(Pid::INIT)
}

pub(crate) fn reap(pid: i32) {
    let _ = rustix::io::retry_on_intr(|| waitpid(Some(pid_of(pid)), WaitOptions::empty()));
}

fn lines(ranges: &[(u32, u32, u32)]) -> String {
    ranges.iter().map(|(inside, outside, length)| format!("{inside} {outside} {length}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_lines() {
        let map = IdMap { uids: vec![(0, 65536, 65536)], gids: vec![(0, 131072, 65536)] };
        assert_eq!(map.root(), (65536, 131072));
        assert_eq!(lines(&map.uids), "0 65536 65536\n");
    }
}
