//! What a container is made of, as plain data that travels from the agent to the shim.

use crate::caps::Capabilities;
use crate::cgroup::{DeviceRule, Resources};
use crate::idmap::IdMap;
use crate::seccomp::Profile;
use crate::user::UserSpec;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A container: its root, its namespaces, its limits and its first process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Layers and where they come together.
    pub rootfs: Rootfs,
    /// Mounts in the order in which they are made.
    pub mounts: Vec<BindMount>,
    /// Device nodes besides the standard ones.
    pub devices: Vec<DeviceNode>,
    /// Directory shared as `/dev/shm`.
    pub shm: PathBuf,
    /// Writable /sys and cgroups, the node's cgroup namespace.
    pub privileged: bool,
    /// Paths hidden.
    pub masked_paths: Vec<String>,
    /// Paths made read-only.
    pub readonly_paths: Vec<String>,
    /// PID namespace.
    pub pid: PidNamespace,
    /// Mappings of the user namespace; `None`: the node's.
    pub idmap: Option<IdMap>,
    /// Cgroup relative to the node's root.
    pub cgroup: String,
    /// Limits.
    pub resources: Resources,
    /// Devices it may use.
    pub device_rules: Vec<DeviceRule>,
    /// Its first process.
    pub process: ProcessSpec,
}

/// An overlay root file system.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Rootfs {
    /// Read-only layers, top first.
    pub lower: Vec<PathBuf>,
    /// Writable layer.
    pub upper: PathBuf,
    /// Overlay's work directory, on the file system of `upper`.
    pub work: PathBuf,
    /// An empty directory on the node to mount on; shared by all, as each has its own mount namespace.
    pub mountpoint: PathBuf,
    /// Read-only root.
    pub readonly: bool,
}

/// How mount events travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the node to the container.
    Slave,
    /// Both ways.
    Shared,
}

/// A host path shown in the container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BindMount {
    /// Path on the node.
    pub source: PathBuf,
    /// Path in the container.
    pub target: PathBuf,
    /// Read-only.
    pub readonly: bool,
    /// Read-only including all mounts below.
    pub recursive_readonly: bool,
    /// Propagation.
    pub propagation: Propagation,
    /// Shown with the container's ids (volumes of a pod with a user namespace).
    pub idmap: bool,
}

/// A device node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Path in the container, below `/dev` as a rule.
    pub path: PathBuf,
    /// Block rather than character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Whose processes a container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    /// Its own.
    #[default]
    Own,
    /// Those of the pod (or of a target container): the caller supplies the namespace.
    Shared,
    /// All of the node.
    Host,
}

/// A process of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// `NAME=value`, without duplicates. HOME is added from the user database when missing.
    pub env: Vec<String>,
    /// Working directory, made when missing.
    pub cwd: String,
    /// User.
    pub user: UserSpec,
    /// Gives it a terminal.
    pub tty: bool,
    /// Capabilities.
    pub capabilities: Capabilities,
    /// `no_new_privs`.
    pub no_new_privs: bool,
    /// Seccomp filter; `None`: unconfined.
    pub seccomp: Option<Profile>,
    /// AppArmor profile, loaded in the kernel; `None`: it keeps that of the runtime.
    #[serde(default)]
    pub apparmor: Option<String>,
    /// `oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// `(RLIMIT_*, soft, hard)`; those above ours are capped.
    pub rlimits: Vec<(u32, u64, u64)>,
}
