//! Kernel mechanisms of containers: namespaces, cgroups, mounts, seccomp, processes.
//!
//! Flow: the caller (a single-threaded shim) fills a [`ContainerSpec`], opens every host resource as
//! a handle ([`process::create`]), and clones. The child joins its cgroup, attaches the handles below
//! the new root, pivots, drops its rights and waits; one byte starts it, the closing of its channel
//! says that `execve` succeeded. [`process::exec`] is the same path with `setns` in place of a new root.
//!
//! Invariants:
//! - No path of a container is resolved while a path of the host is reachable: sources are detached
//!   mounts opened before, targets are resolved after `pivot_root` with `RESOLVE_IN_ROOT`.
//! - Every descriptor is close-on-exec; a container's process starts with 0, 1 and 2 only.
//! - Those who are in a PID namespace never see a process in it whose root is the host's: what joins them leaves the
//!   host first, by a process in between. With `SYS_PTRACE` they can still interfere with what it does inside.
//!   In a user namespace that several share it is born there first, and hidden from them by being undumpable; those in the
//!   node's own PID namespace see all of the node anyway.
//! - Nothing is mounted in the host's mount namespace; a root file system dies with its namespace.
//! - `create` and `exec` may only be called by a single-threaded process (they fork without exec).
//!
//! Absent: checkpoint/restore, hooks, Intel RDT, SELinux labels, rootless mode.

mod apparmor;
mod caps;
pub mod cgroup;
mod console;
mod dev;
mod error;
mod idmap;
mod init;
mod mapped;
pub mod mount;
mod path;
pub mod process;
mod rootfs;
pub mod seccomp;
mod spec;
pub mod sys;
mod user;

pub use caps::{Capabilities, DEFAULT_CAPABILITIES};
pub use dev::host_devices;
pub use error::{Context, Error, Result, os_text};
pub use idmap::{IdMap, clone_owned, own_namespaces};
pub use init::retire;
pub use path::Root;
pub use rootfs::{MASKED_PATHS, READONLY_PATHS};
pub use spec::*;
pub use user::{Identity, UserSpec};
