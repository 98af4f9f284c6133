//! What the runtime counts.

use crate::Pressures;

/// Counters of one cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Unix nanoseconds of the reading.
    pub at: i64,
    /// CPU time used, ns.
    pub cpu_usage_ns: u64,
    /// Memory in use without reclaimable file cache, bytes.
    pub memory_working_set: u64,
    /// All memory charged, bytes.
    pub memory_usage: u64,
    /// Anonymous memory, bytes.
    pub memory_rss: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Major page faults.
    pub major_page_faults: u64,
    /// Processes.
    pub pids: u64,
    /// Bytes written into the writable layer.
    pub rootfs_bytes: u64,
    /// Inodes of the writable layer.
    pub rootfs_inodes: u64,
    /// Swap in use, bytes.
    pub swap_usage: u64,
    /// What its tasks wait for.
    pub pressure: Pressures,
}

/// Counters of one network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceStats {
    /// Name, `eth0`.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received in error.
    pub rx_errors: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets not sent for an error.
    pub tx_errors: u64,
}

/// What is used of a file system that images or writable layers are on (CRI's `FilesystemUsage`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesystemUsage {
    /// A path on the file system.
    pub mountpoint: String,
    /// Bytes that images (or writable layers) use.
    pub used_bytes: u64,
    /// Inodes that they use, 0: unknown.
    pub inodes_used: u64,
}
