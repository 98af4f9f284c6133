//! The pod's namespaces, which the shim itself lives in.

use super::{NETNS, SHM};
use crate::protocol::ShimConfig;
use oci::sys::{self, Forked};
use oci::{Context, mount};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// What the containers of a pod share besides what the shim lives in.
pub(super) struct Namespaces {
    /// The shared PID namespace.
    pub pid: Option<OwnedFd>,
    /// Handle of its process 1.
    pub first: Option<OwnedFd>,
    /// The pod's user namespace.
    pub user: Option<OwnedFd>,
}

/// Makes them; what stays behind in the file system (two mounts) is the agent's to remove.
pub(super) fn make(config: &ShimConfig) -> Result<Namespaces, String> {
    let user = join_new(config).map_err(|e| e.to_string())?;
    for (name, value) in &config.sysctls {
        set_sysctl(config, name, value)?;
    }
    let shared = config.share_pid.then(|| first_process(user.as_ref())).transpose().map_err(|e| e.to_string())?;
    let (pid, first) = shared.unzip();
    Ok(Namespaces { pid, first, user })
}

fn join_new(config: &ShimConfig) -> oci::Result<Option<OwnedFd>> {
    let mut flags = 0;
    for (own, flag) in [
        (config.own_network, libc::CLONE_NEWNET),
        (config.own_ipc, libc::CLONE_NEWIPC),
        (!config.hostname.is_empty(), libc::CLONE_NEWUTS),
    ] {
        flags |= if own { flag } else { 0 };
    }
    let user = match &config.idmap {
        Some(map) => Some(oci::own_namespaces(map, flags)?),
        None => sys::unshare(flags).context(|| "unshare").map(|()| None)?,
    };
    if config.own_network {
        std::fs::write(NETNS, "").context(|| "create netns")?;
        mount::attach_at(&mount::clone_path(Path::new("/proc/self/ns/net"), false)?, Path::new(NETNS))?;
        sys::loopback_up().context(|| "bring lo up")?;
    }
    if config.own_ipc {
        let (uid, gid) = config.idmap.as_ref().map_or((0, 0), oci::IdMap::root);
        let (uid, gid) = (uid.to_string(), gid.to_string());
        let options =
            [("mode", "1777"), ("size", "65536k"), ("uid", &uid), ("gid", &gid)].map(|(key, value)| (key, Some(value)));
        let shm = mount::new("tmpfs", &options, mount::NOSUID | mount::NODEV | mount::NOEXEC)?;
        std::fs::create_dir(SHM).context(|| "create shm")?;
        mount::attach_at(&shm, Path::new(SHM))?;
    }
    if !config.hostname.is_empty() {
        rustix::system::sethostname(config.hostname.as_bytes()).context(|| "set the host name")?;
    }
    Ok(user)
}

/// Only sysctls of namespaces that are the pod's own may be set: all others are the node's.
fn set_sysctl(config: &ShimConfig, name: &str, value: &str) -> Result<(), String> {
    let path = name.replace('.', "/");
    let ipc = ["kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/"].iter().any(|p| path.starts_with(p));
    let namespaced = (config.own_network && path.starts_with("net/")) || (config.own_ipc && ipc);
    if !namespaced || path.contains("..") {
        return Err(format!("sysctl \"{name}\" is not in a separate kernel namespace"));
    }
    std::fs::write(Path::new("/proc/sys").join(path), value)
        .map_err(|e| format!("set sysctl {name}={value}: {}", oci::os_text(&e)))
}

/// Process 1 of the pod's PID namespace: reaps what is left to it, and does nothing else.
fn first_process(user: Option<&OwnedFd>) -> oci::Result<(OwnedFd, OwnedFd)> {
    match oci::clone_owned(user.map(AsFd::as_fd), (libc::CLONE_NEWPID | libc::CLONE_NEWNS) as u64)? {
        Forked::Parent(pid, pidfd) => {
            // By its file: the process itself is closed to whoever has only rights in the user namespace.
            let namespace = std::fs::File::open(format!("/proc/{pid}/ns/pid")).context(|| "open the PID namespace")?;
            Ok((namespace.into(), pidfd))
        }
        Forked::Child => {
            // Nothing of the shim's is needed, and nothing may keep its pipes open.
            super::let_go_of_stdio();
            let _ = sys::close_except(&mut Vec::new());
            if oci::retire(user.is_some()).is_err() {
                // The namespace dies with it, and no container starts: better than one that is no prison.
                sys::exit_now(1);
            }
            // Changing ids has cleared the signal of the shim's death.
            let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
            reap_for_ever()
        }
    }
}

fn reap_for_ever() -> ! {
    use rustix::event::{PollFd, PollFlags, poll};
    let Ok(signals) = sys::signal_fd(&[libc::SIGCHLD]) else { sys::exit_now(1) };
    loop {
        let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], None);
        let _ = rustix::io::read(&signals, &mut [0u8; 128]);
        while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
    }
}
