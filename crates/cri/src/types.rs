//! Plain types of CRI v1, with its field names.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// String map of labels or annotations.
pub type Map = BTreeMap<String, String>;

/// Identity of a pod sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PodSandboxMetadata {
    /// Pod name.
    pub name: String,
    /// Pod UID.
    pub uid: String,
    /// Pod namespace.
    pub namespace: String,
    /// Which sandbox of the pod, from 0.
    pub attempt: u32,
}

/// Where a namespace comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum NamespaceMode {
    /// Shared by the containers of the pod.
    #[default]
    Pod,
    /// Of the container alone.
    Container,
    /// The node's own.
    Node,
}

/// A range of a user namespace mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IdMapping {
    /// First id on the host.
    pub host_id: u32,
    /// First id in the container.
    pub container_id: u32,
    /// How many.
    pub length: u32,
}

/// Namespaces of a sandbox or container.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NamespaceOption {
    /// Network namespace.
    pub network: NamespaceMode,
    /// PID namespace.
    pub pid: NamespaceMode,
    /// IPC namespace.
    pub ipc: NamespaceMode,
    /// Mappings of the pod's own user namespace; `None`: the node's.
    pub userns: Option<(Vec<IdMapping>, Vec<IdMapping>)>,
}

/// A seccomp profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SeccompProfile {
    /// The runtime's default profile.
    #[default]
    RuntimeDefault,
    /// No filter.
    Unconfined,
    /// A profile file on the node (absolute path).
    Localhost(String),
}

/// How supplementary groups are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SupplementalGroupsPolicy {
    /// Those of the pod and of the image's `/etc/group`.
    #[default]
    Merge,
    /// Those of the pod only.
    Strict,
}

/// Protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Protocol {
    /// TCP
    #[default]
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

/// A host port of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortMapping {
    /// Protocol.
    pub protocol: Protocol,
    /// Port in the pod.
    pub container_port: u16,
    /// Port on the node; never 0.
    pub host_port: u16,
    /// Address on the node, empty: all.
    pub host_ip: String,
}

/// The resolver configuration of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DnsConfig {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// `ndots:5` and the like.
    pub options: Vec<String>,
}

/// Configuration of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PodSandboxConfig {
    /// Identity.
    pub metadata: PodSandboxMetadata,
    /// Host name of the UTS namespace; empty: the node's (host network).
    pub hostname: String,
    /// NIS/DNS domain name left to the kernel default when empty.
    pub domainname: String,
    /// Directory of the pod's container logs on the node.
    pub log_directory: String,
    /// Resolver configuration; `None`: the node's.
    pub dns_config: Option<DnsConfig>,
    /// Host ports.
    pub port_mappings: Vec<PortMapping>,
    /// Labels.
    pub labels: Map,
    /// Annotations.
    pub annotations: Map,
    /// Cgroup of the pod, `/kubepods/burstable/pod<uid>`, relative to the node's cgroup root; made by the kubelet's cgroup manager through [`crate::RuntimeService::update_pod_cgroup`].
    pub cgroup_parent: String,
    /// Sysctls of the pod's namespaces.
    pub sysctls: Map,
    /// Namespaces.
    pub namespaces: NamespaceOption,
    /// Runs with the node's privileges where a container asks for it.
    pub privileged: bool,
    /// Runtime handler of the RuntimeClass, empty: default.
    pub runtime_handler: String,
}

/// State of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum PodSandboxState {
    /// Its shim and namespaces live.
    Ready,
    /// Stopped, or its shim died.
    NotReady,
}

/// A sandbox as listed and as asked for.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PodSandboxStatus {
    /// Sandbox id (64 hex digits).
    pub id: String,
    /// Identity.
    pub metadata: PodSandboxMetadata,
    /// State.
    pub state: PodSandboxState,
    /// Unix nanoseconds.
    pub created_at: i64,
    /// Addresses; empty with host networking.
    pub ips: Vec<IpAddr>,
    /// Namespaces.
    pub namespaces: NamespaceOption,
    /// Labels.
    pub labels: Map,
    /// Annotations.
    pub annotations: Map,
}

/// Identity of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ContainerMetadata {
    /// Name in the pod.
    pub name: String,
    /// Which instance, from 0 (the restart count).
    pub attempt: u32,
}

/// Mount propagation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum MountPropagation {
    /// None (rprivate).
    #[default]
    Private,
    /// Host to container (rslave).
    HostToContainer,
    /// Both ways (rshared).
    Bidirectional,
}

/// A mount of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mount {
    /// Path in the container.
    pub container_path: String,
    /// Path on the node.
    pub host_path: String,
    /// Read-only.
    pub readonly: bool,
    /// Read-only including all mounts below.
    pub recursive_readonly: bool,
    /// Propagation.
    pub propagation: MountPropagation,
}

/// A device node of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Device {
    /// Path in the container.
    pub container_path: String,
    /// Path on the node.
    pub host_path: String,
    /// `rwm` letters.
    pub permissions: String,
}

/// Limits of a container or pod cgroup. Zero or `None` leaves a value unset.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LinuxContainerResources {
    /// CFS period in µs.
    pub cpu_period: i64,
    /// CFS quota in µs per period; -1: none.
    pub cpu_quota: i64,
    /// Weight in v1's scale (2 to 262144).
    pub cpu_shares: i64,
    /// Bytes.
    pub memory_limit_in_bytes: i64,
    /// `oom_score_adj`.
    pub oom_score_adj: i64,
    /// CPU list.
    pub cpuset_cpus: String,
    /// Memory node list.
    pub cpuset_mems: String,
    /// Bytes of memory and swap together; -1: no limit, 0: unset.
    pub memory_swap_limit_in_bytes: i64,
    /// Largest number of processes; 0: unset.
    pub pids_limit: i64,
    /// `(page size such as "2MB", limit in bytes)`.
    pub hugepage_limits: Vec<(String, u64)>,
    /// cgroup v2 files and values (`memory.min`, `memory.high` ...).
    pub unified: Map,
}

/// Security settings of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LinuxContainerSecurityContext {
    /// Capabilities added, without `CAP_`; `ALL` for all.
    pub add_capabilities: Vec<String>,
    /// Capabilities dropped.
    pub drop_capabilities: Vec<String>,
    /// All devices, all capabilities, writable /sys, no seccomp.
    pub privileged: bool,
    /// Namespaces.
    pub namespaces: NamespaceOption,
    /// Container whose PID namespace is joined (ephemeral containers with a target).
    pub target_id: String,
    /// User; `None`: the image's.
    pub run_as_user: Option<i64>,
    /// Group; `None`: that of the user.
    pub run_as_group: Option<i64>,
    /// User name, where no id is given: the image's.
    pub run_as_username: String,
    /// Read-only root file system.
    pub readonly_rootfs: bool,
    /// More groups.
    pub supplemental_groups: Vec<i64>,
    /// How groups of the image count.
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    /// `no_new_privs`.
    pub no_new_privs: bool,
    /// Paths hidden; `None`: the default list, empty: nothing (procMount Unmasked).
    pub masked_paths: Option<Vec<String>>,
    /// Paths made read-only; as above.
    pub readonly_paths: Option<Vec<String>>,
    /// Seccomp.
    pub seccomp: SeccompProfile,
    /// AppArmor profile name, empty: none.
    pub apparmor: String,
}

/// Configuration of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ContainerConfig {
    /// Identity.
    pub metadata: ContainerMetadata,
    /// Image id as resolved by [`crate::ImageService::image_status`]; empty: no image, where the runtime can.
    pub image: String,
    /// Image as the user wrote it.
    pub user_specified_image: String,
    /// Replaces the image's entrypoint when not empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    pub args: Vec<String>,
    /// Working directory, empty: the image's.
    pub working_dir: String,
    /// Environment, in order; later wins over the image's.
    pub envs: Vec<(String, String)>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Qualified names of CDI devices, `vendor.com/class=name`, which the runtime looks up.
    pub cdi_devices: Vec<String>,
    /// Labels.
    pub labels: Map,
    /// Annotations.
    pub annotations: Map,
    /// Log file relative to the sandbox's log directory.
    pub log_path: String,
    /// Bytes after which the runtime says [`ContainerEventKind::LogFull`] and, twice as many later, lets the container
    /// wait for [`crate::RuntimeService::reopen_container_log`]; 0: never. Not part of CRI's wire.
    #[serde(default)]
    pub log_limit: u64,
    /// Keeps a stdin open for attach.
    pub stdin: bool,
    /// Closes stdin after the first attach.
    pub stdin_once: bool,
    /// Gives the process a terminal.
    pub tty: bool,
    /// Limits.
    pub resources: LinuxContainerResources,
    /// Security settings.
    pub security_context: LinuxContainerSecurityContext,
    /// Signal that stops it, empty: the image's or SIGTERM.
    pub stop_signal: String,
}

/// State of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its first process runs.
    Running,
    /// Its first process has ended.
    Exited,
    /// Its shim died without leaving an exit code.
    Unknown,
}

/// A container as listed and as asked for.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ContainerStatus {
    /// Container id (64 hex digits).
    pub id: String,
    /// Sandbox it belongs to.
    pub sandbox_id: String,
    /// Identity.
    pub metadata: ContainerMetadata,
    /// State.
    pub state: ContainerState,
    /// Unix nanoseconds.
    pub created_at: i64,
    /// Unix nanoseconds, 0 before it started.
    pub started_at: i64,
    /// Unix nanoseconds, 0 before it ended.
    pub finished_at: i64,
    /// Exit code; 128 + n when signal n ended it.
    pub exit_code: i32,
    /// Image as the user wrote it.
    pub image: String,
    /// Image id or repository digest, as `imageID` of the pod's status shows.
    pub image_ref: String,
    /// Id of the image on this node, as the list of images has it.
    pub image_id: String,
    /// `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun` ...
    pub reason: String,
    /// Text for people.
    pub message: String,
    /// Labels.
    pub labels: Map,
    /// Annotations.
    pub annotations: Map,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Absolute log path.
    pub log_path: String,
    /// Limits in force.
    pub resources: LinuxContainerResources,
    /// First process: uid, gid, groups; known once created.
    pub user: Option<(i64, i64, Vec<i64>)>,
    /// First process on the node, while it runs.
    pub pid: Option<i32>,
}

/// What happened to a container or sandbox.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerEventKind {
    /// Made.
    Created,
    /// Started.
    Started,
    /// Ended (a container), or stopped (a sandbox).
    Stopped,
    /// Removed.
    Deleted,
    /// The log of a container is full. Not part of CRI's wire.
    LogFull,
}

/// An event of the runtime (CRI's GetContainerEvents).
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerEvent {
    /// What happened.
    pub kind: ContainerEventKind,
    /// Container, or sandbox for a sandbox's event.
    pub id: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Unix nanoseconds.
    pub at: i64,
}

/// What this runtime can do of what not all can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeFeatures {
    /// User namespaces of pods.
    pub user_namespaces: bool,
    /// Recursive read-only mounts.
    pub recursive_read_only_mounts: bool,
    /// `supplementalGroupsPolicy`.
    pub supplemental_groups_policy: bool,
    /// Containers whose `image` is empty: they get an empty root file system.
    pub containers_without_image: bool,
    /// Logs may be links to files elsewhere, as cri-dockerd's are.
    pub linked_logs: bool,
    /// cgroup version, 1 or 2.
    pub cgroup_version: u8,
}

impl Default for RuntimeFeatures {
    fn default() -> Self {
        Self {
            user_namespaces: false,
            recursive_read_only_mounts: true,
            supplemental_groups_policy: true,
            containers_without_image: false,
            linked_logs: true,
            cgroup_version: if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { 2 } else { 1 },
        }
    }
}

/// One condition of the runtime, `RuntimeReady` or `NetworkReady`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeCondition {
    /// Name.
    pub name: &'static str,
    /// Whether it holds.
    pub status: bool,
    /// CamelCase reason where it does not.
    pub reason: String,
    /// Text for people.
    pub message: String,
}
