//! Our container runtime: sandboxes, containers, shims, streams.
//!
//! Flow: [`Runtime`] (the kubelet's [`cri::RuntimeService`]) keeps records and talks to one shim per pod
//! ([`shim::main`], the same binary, forked from the zygote). The shim owns everything that must outlive an agent:
//! the pod's namespaces, its processes, their logs, terminals and exit codes. A monitor per sandbox
//! follows the shim's changes and turns them into CRI events.
//!
//! State: `state_dir/sandboxes/<id>` holds `sandbox.json` and `containers/<id>/{container,state}.json`;
//! `root_dir/<container id>` the writable layer. A directory without its record is the rest of a
//! creation that failed, and is removed at the next start.
//!
//! Invariants: the shim's word on a container wins over the agent's; nothing is polled; a failed call
//! leaves no mount, cgroup, namespace, process or file.
//!
//! Absent: checkpointing, SELinux, Windows, runtime handlers other than the default.

mod apparmor;
mod cdi;
mod client;
mod container;
mod monitor;
mod network;
mod pod_cgroups;
mod protocol;
mod records;
mod sandbox;
mod service;
pub mod shim;
mod signal;
mod spec;
mod state;
mod stats;
mod streams;
mod zygote;

pub use oci::sys::{give_back_memory, share_arenas};
pub use network::{ImageSource, NodeImages, PodNetwork};
pub use pod_cgroups::NodeCgroups;

use cri::{ContainerEvent, ContainerEventKind, Error, Result};
use oci::cgroup::Cgroups;
use state::State;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::broadcast;

/// What a runtime is made with.
#[derive(Clone)]
pub struct Config {
    /// Records, sockets and mounts, on a file system that a reboot empties (`/run/…`).
    pub state_dir: PathBuf,
    /// Writable layers of containers, on a disk.
    pub root_dir: PathBuf,
    /// The node's cgroup relative to the mounted hierarchies, `/` as a rule.
    pub cgroup_root: String,
    /// The binary that runs `shim zygote` (`/proc/self/exe`).
    pub shim_exe: PathBuf,
    /// Images.
    pub images: Arc<dyn ImageSource>,
    /// Network of pods.
    pub network: Arc<dyn PodNetwork>,
}

/// The runtime of a node.
pub struct Runtime {
    config: Config,
    cgroups: Cgroups,
    /// The sealed copy of the binary that shims run from.
    shim_exe: PathBuf,
    zygote: zygote::Zygote,
    state: State,
    events: broadcast::Sender<ContainerEvent>,
}

impl Runtime {
    /// Opens the runtime and finds all sandboxes of earlier agents again, with what happened meanwhile.
    pub async fn open(config: Config) -> Result<Arc<Self>> {
        let cgroups = Cgroups::detect(&config.cgroup_root).map_err(internal)?;
        for dir in
            [&config.state_dir, &config.root_dir, &config.state_dir.join("sandboxes"), &config.state_dir.join("rootfs")]
        {
            records::make_dir(dir).map_err(|e| Error::Internal(format!("make {}: {e}", dir.display())))?;
        }
        let shim_exe = seal(&config.shim_exe, &config.state_dir).map_err(internal)?;
        let (events, _) = broadcast::channel(1024);
        let zygote = zygote::Zygote::new(shim_exe.clone());
        let runtime = Arc::new(Self { config, cgroups, shim_exe, zygote, state: State::default(), events });
        runtime.recover().await?;
        Ok(runtime)
    }

    /// Removes what [`Runtime::open`] made of its own, once the last sandbox is removed.
    pub fn close(&self) -> Result<()> {
        if self.state.has_sandboxes() {
            return Err(Error::FailedPrecondition("sandboxes are left".into()));
        }
        oci::mount::detach(&self.shim_exe).map_err(internal)?;
        records::remove_dir(&self.config.state_dir).map_err(internal)
    }

    fn emit(&self, kind: ContainerEventKind, id: &str, pod_uid: &str) {
        // Nobody listening is fine.
        let _ = self.events.send(ContainerEvent { kind, id: id.into(), pod_uid: pod_uid.into(), at: records::now() });
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.state.stop_monitors();
    }
}

fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}

/// Shows the binary read-only at a place of the node's mount namespace and returns it. A process in a
/// container that gets hold of `/proc/<shim>/exe` meets a read-only mount that is not in its namespace,
/// so it can neither write nor remount it.
fn seal(exe: &Path, state_dir: &Path) -> oci::Result<PathBuf> {
    use oci::Context;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
    let (device, inode) = identity(exe).context(|| exe.display().to_string())?;
    // Per inode: shims of an older binary go on with theirs.
    let sealed = state_dir.join(format!("shim-{device:x}-{inode:x}"));
    if identity(&sealed).is_ok_and(|found| found == (device, inode)) {
        return Ok(sealed);
    }
    std::fs::write(&sealed, "").context(|| sealed.display().to_string())?;
    let clone = oci::mount::clone_path(exe, false)?;
    oci::mount::set_propagation(clone.as_fd(), libc::MS_PRIVATE)?;
    oci::mount::set_attrs(clone.as_fd(), false, oci::mount::RDONLY | oci::mount::NOSUID | oci::mount::NODEV)?;
    oci::mount::attach_at(&clone, &sealed)?;
    Ok(sealed)
}
