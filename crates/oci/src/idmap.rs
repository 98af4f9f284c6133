//! User namespaces: mappings, the namespaces a pod owns through one, and clones born in one.

use crate::cgroup::Join;
use crate::error::{Context, Error, Result};
use crate::sys::{self, Forked};
use rustix::process::{Pid, WaitOptions, waitpid};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

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
/// optionally in an existing PID namespace. `before` runs ahead of that.
pub(crate) fn clone_within(
    user: BorrowedFd<'_>,
    pid_namespace: Option<BorrowedFd<'_>>,
    flags: u64,
    join: &Join,
    before: impl FnOnce(),
) -> Result<Forked> {
    clone_between(join, flags, |_| {
        before();
        join.enter()?;
        // Whoever is in the user namespace already has rights over those who come.
        hide()?;
        sys::setns(user, libc::CLONE_NEWUSER).context(|| "join the user namespace")?;
        pid_namespace.map_or(Ok(()), |ns| sys::setns(ns, libc::CLONE_NEWPID)).context(|| "join the PID namespace")
    })
}

/// Keeps those out of /proc of the caller and its children who have no rights in the node's own user namespace.
pub(crate) fn hide() -> Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).context(|| "set dumpable")
}

/// Longest reason of a process in between.
const MAX_REASON: usize = 4000;

/// Clones a child by a process in between, which does `prepare` unseen by those in the child's PID namespace (and
/// may lose its rights on the node by that), then makes the child a sibling of itself. `prepare` is given the
/// descriptors that it must keep; what it has opened, the child has too.
pub(crate) fn clone_between(join: &Join, flags: u64, prepare: impl FnOnce(&[i32]) -> Result<()>) -> Result<Forked> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context(|| "pipe")?;
    match sys::clone3(0, join.clone_into()).context(|| "clone3")? {
        Forked::Child => {
            let keep = [read.as_raw_fd(), write.as_raw_fd()];
            let clone = || sys::clone3_sibling(flags).context(|| "clone3");
            // The pid, or zero and the reason.
            // A panic must not unwind into a copy of the shim's loop.
            let prepared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| prepare(&keep)));
            let prepared = prepared.unwrap_or_else(|_| Err(Error::Invalid("internal error of the runtime".into())));
            let said = match prepared.and_then(|()| clone()) {
                Ok(Forked::Child) => return Ok(Forked::Child),
                Ok(Forked::Parent(pid, _)) => pid.to_le_bytes().to_vec(),
                Err(error) => {
                    let reason = error.to_string().into_bytes();
                    [&[0; 4], &reason[..reason.len().min(MAX_REASON)]].concat()
                }
            };
            let _ = rustix::io::write(&write, &said);
            sys::exit_now(0)
        }
        Forked::Parent(between, pidfd) => {
            drop(write);
            if !speaks(&read)? {
                // Frozen or throttled with its cgroup. Not waited for: the shim reaps it when it can die.
                let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
                return Err(Error::Invalid("the process in between does not run: is the container frozen?".into()));
            }
            let said = hear(&read);
            reap(between);
            let child = said?;
            // Our child and not reaped: the number is still its own.
            let pidfd = rustix::process::pidfd_open(child, rustix::process::PidfdFlags::empty())
                .context(|| "pidfd_open")?;
            Ok(Forked::Parent(child.as_raw_nonzero().get(), pidfd))
        }
    }
}

/// How long a process in between may take. It lies in the container's cgroup, whose limits may let it wait, and the
/// shim, which serves this pod alone, serves nobody meanwhile. With 2 ms of CPU in each 100 a slow machine needs more
/// than 5 s.
const PATIENCE: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };

/// Whether the pipe has something to read, or has ended, in time.
fn speaks(read: &OwnedFd) -> Result<bool> {
    use rustix::event::{PollFd, PollFlags, poll};
    let wait = || poll(&mut [PollFd::new(read, PollFlags::IN)], Some(&PATIENCE));
    Ok(rustix::io::retry_on_intr(wait).context(|| "wait for the process in between")? > 0)
}

fn hear(read: &OwnedFd) -> Result<Pid> {
    let mut said = [0; 4 + MAX_REASON];
    // One write of less than a pipe's atomic size.
    let got = rustix::io::retry_on_intr(|| rustix::io::read(read, &mut said))
        .context(|| "read from the process in between")?;
    match said[..got].split_first_chunk() {
        Some((pid, [])) if i32::from_le_bytes(*pid) > 1 => {
            Pid::from_raw(i32::from_le_bytes(*pid)).ok_or_else(|| Error::Invalid("no pid".into()))
        }
        Some((_, reason)) => Err(Error::Invalid(String::from_utf8_lossy(reason).into_owned())),
        None => Err(Error::Invalid("the process in between died".into())),
    }
}

pub(crate) fn reap(pid: i32) {
    let Some(pid) = Pid::from_raw(pid) else { return };
    let _ = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
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
