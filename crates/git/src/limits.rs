//! What one clone may use. The pod's cgroup, the runtime's seccomp filter and the kubelet's clock bound the rest.

use crate::{Error, Result};
use rustix::process::{Resource, Rlimit, setrlimit};

/// How large a repository may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes taken from servers.
    pub received: u64,
    /// Most bytes of a working tree.
    pub checked_out: u64,
    /// Most files of a working tree.
    pub files: usize,
}

/// What the verb allows.
pub const LIMITS: Limits = Limits { received: 1 << 30, checked_out: 2 << 30, files: 500_000 };

/// Seconds of CPU time.
const CPU: u64 = 300;
/// Open files.
const FILES: u64 = 256;

/// Gives up what the process will not need; not to be undone by an unprivileged process.
pub fn apply() -> Result<()> {
    let limits = [
        (Resource::Core, 0),
        (Resource::Cpu, CPU),
        (Resource::Nofile, FILES),
        (Resource::Fsize, LIMITS.checked_out),
    ];
    for (resource, most) in limits {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(|e| Error::Invalid(format!("limit {resource:?}: {e}")))?;
    }
    // Files and directories as git makes them: for all to read.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}
