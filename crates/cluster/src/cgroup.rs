//! The node's cgroup on the host: one directory in every hierarchy, holding all of the node's processes.

use crate::{Doing, Result};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A mounted cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Mount point.
    pub path: PathBuf,
    /// v1 controllers and `name=` options; `None`: the unified hierarchy.
    pub v1: Option<Vec<String>>,
}

/// Every hierarchy mounted in this mount namespace.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let path = "/proc/self/mounts";
    let text = fs::read_to_string(path).doing(|| format!("read {path}"))?;
    Ok(text.lines().filter_map(parse_mount).collect())
}

fn parse_mount(line: &str) -> Option<Hierarchy> {
    let columns: Vec<&str> = line.split(' ').collect();
    let [_, path, kind, options, ..] = columns.as_slice() else { return None };
    match *kind {
        "cgroup2" => Some(Hierarchy { path: path.into(), v1: None }),
        "cgroup" => {
            let general = ["rw", "ro", "nosuid", "nodev", "noexec", "relatime", "noatime", "xattr", "seclabel"];
            let controllers = options.split(',').filter(|o| !general.contains(o) && !o.starts_with("release_agent")).map(str::to_owned);
            Some(Hierarchy { path: path.into(), v1: Some(controllers.collect()) })
        }
        _ => None,
    }
}

/// Makes cgroup `name` in every hierarchy and moves this process there.
pub fn join(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let dir = hierarchy.path.join(name);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error).doing(|| format!("make cgroup {}", dir.display())),
            _ => {}
        }
        if hierarchy.v1.as_ref().is_some_and(|v1| v1.iter().any(|c| c == "cpuset")) {
            inherit_cpuset(&hierarchy.path, &dir)?;
        }
        fs::write(dir.join("cgroup.procs"), "0").doing(|| format!("join cgroup {}", dir.display()))?;
    }
    Ok(())
}

/// A v1 cpuset takes no process until it has CPUs and memory nodes.
fn inherit_cpuset(parent: &Path, dir: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let value = fs::read_to_string(parent.join(file)).doing(|| format!("read {file}"))?;
        fs::write(dir.join(file), value.trim()).doing(|| format!("set {file} of {}", dir.display()))?;
    }
    Ok(())
}

/// Kills every process of cgroup `name` and below, but for those in `spare`, and waits until they are gone.
pub fn kill_all(name: &str, spare: &[i32]) -> Result<()> {
    let roots: Vec<PathBuf> = hierarchies()?.into_iter().map(|h| h.path.join(name)).collect();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut pids: Vec<i32> = roots.iter().flat_map(|root| processes(root)).filter(|pid| !spare.contains(pid)).collect();
        pids.sort_unstable();
        pids.dedup();
        if pids.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::from(io::ErrorKind::TimedOut)).doing(|| format!("kill processes {pids:?} of the node"));
        }
        // All are told first and then waited for by pidfd; what they forked meanwhile is the next round's.
        let handles: Vec<_> = pids.iter().filter_map(|pid| kill(*pid)).collect();
        handles.iter().for_each(wait_gone);
    }
}

fn kill(pid: i32) -> Option<rustix::fd::OwnedFd> {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    pidfd_send_signal(&handle, Signal::KILL).ok()?;
    Some(handle)
}

fn wait_gone(handle: &rustix::fd::OwnedFd) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    // A time-out or an error is seen by the caller's next look.
    let _ = poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&second));
}

fn processes(root: &Path) -> Vec<i32> {
    let mut out = Vec::new();
    walk(root, &mut |dir| {
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        out.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    });
    out
}

/// Removes cgroup `name` and all below it from every hierarchy; nothing when there is none.
pub fn remove(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let mut failed = None;
        walk(&hierarchy.path.join(name), &mut |dir| match fs::remove_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => failed = Some((dir.to_owned(), error)),
            _ => {}
        });
        if let Some((dir, error)) = failed {
            return Err(error).doing(|| format!("remove cgroup {}", dir.display()));
        }
    }
    Ok(())
}

/// Visits a directory tree, children first.
fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        walk(&entry.path(), visit);
    }
    visit(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_parse() {
        let v1 = parse_mount("cgroup /sys/fs/cgroup/cpu cgroup rw,nosuid,cpu,cpuacct 0 0");
        assert_eq!(v1.and_then(|h| h.v1), Some(vec!["cpu".to_owned(), "cpuacct".to_owned()]));
        assert_eq!(parse_mount("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0").map(|h| h.v1), Some(None));
        assert_eq!(parse_mount("proc /proc proc rw 0 0"), None);
    }
}
