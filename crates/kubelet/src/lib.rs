//! The kubelet: it makes the pods that are bound to its node run, and tells the API what became of them.
//!
//! The flow: [`kubelet`] registers the node and follows its pods; each pod has one task, its [`worker`], with a
//! latest-wins [`mailbox`]. A worker reads the runtime's [`state`] of its pod, makes the [`status`] from it and
//! walks the [`hooks`] — deadline, preparation, resize, volumes, sandbox, clones, ephemeral and init containers, containers,
//! probes — until nothing is left to do; then it waits. Events of the runtime, changes in the API, changed config
//! maps and secrets ([`objects`]), probes and timers wake it. [`ending`] is the end of every pod. [`server`] is
//! the API on port 10250. Beside the pods run [`eviction`], [`image_gc`] and [`shutdown`]; [`static_pods`] come from
//! files; [`admission`] decides who may run, [`resource_managers`] who gets CPUs alone; what a pod was granted
//! ([`allocation`]) takes the place of what its spec asks for everywhere but in the decision about a resize.
//!
//! Invariants: a sync depends on the spec and the runtime's state alone, so a restarted kubelet goes on where it
//! was and never restarts what runs; nothing below [`cri`] is known here; a pod is deleted from the API only when
//! its processes, volumes and cgroup are gone; no loop wakes without an event, a deadline or a back-off.
//!
//! Deliberately absent: podCertificate projections, checkpoints, static pods from URLs.

pub mod admission;
pub mod allocation;
pub mod backoff;
mod beneath;
pub mod cgroups;
pub mod config;
pub mod configuration;
pub mod container_config;
pub mod context;
pub mod devices;
pub mod dns;
pub mod dra;
pub mod ending;
pub mod env;
pub mod events;
pub mod eviction;
pub mod format;
mod gc;
pub mod hooks;
pub mod hosts;
pub mod image_gc;
pub mod images;
pub mod kubelet;
pub mod lifecycle;
pub mod logs;
pub mod mailbox;
pub mod node;
pub mod objects;
pub mod plugins;
pub mod pod;
pub mod pod_resources;
pub mod preemption;
pub mod probes;
pub mod qos;
pub mod resource_managers;
pub mod sandbox;
pub mod security_context;
pub mod server;
pub mod shutdown;
pub mod start;
pub mod state;
pub mod static_pods;
pub mod status;
pub mod summary;
pub mod sysctl;
pub mod termination;
pub mod termination_message;
pub mod tokens;
pub mod userns;
pub mod volumes;
pub mod worker;

pub use config::{Config, PodCidrHandler, ServerOptions};
pub use configuration::KubeletConfiguration;
pub use kubelet::Kubelet;
pub use volumes::git_repo::GitClone;
