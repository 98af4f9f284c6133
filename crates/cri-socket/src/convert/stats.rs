//! Counters.

use super::to_map;
use cri::{ContainerStatus, FilesystemUsage, Stats};
use protos::cri as p;

fn number(value: u64) -> Option<p::UInt64Value> {
    Some(p::UInt64Value { value })
}

/// CPU time.
pub fn to_cpu(stats: &Stats) -> p::CpuUsage {
    p::CpuUsage { timestamp: stats.at, usage_core_nano_seconds: number(stats.cpu_usage_ns), ..Default::default() }
}

/// Memory.
pub fn to_memory(stats: &Stats) -> p::MemoryUsage {
    p::MemoryUsage {
        timestamp: stats.at,
        working_set_bytes: number(stats.memory_working_set),
        usage_bytes: number(stats.memory_usage),
        rss_bytes: number(stats.memory_rss),
        page_faults: number(stats.page_faults),
        major_page_faults: number(stats.major_page_faults),
        ..Default::default()
    }
}

/// Counters of a container.
pub fn to_stats(container: &ContainerStatus, stats: &Stats, mountpoint: &str) -> p::ContainerStats {
    let metadata = p::ContainerMetadata { name: container.metadata.name.clone(), attempt: container.metadata.attempt };
    p::ContainerStats {
        attributes: Some(p::ContainerAttributes {
            id: container.id.clone(),
            metadata: Some(metadata),
            labels: to_map(&container.labels),
            annotations: to_map(&container.annotations),
        }),
        cpu: Some(to_cpu(stats)),
        memory: Some(to_memory(stats)),
        writable_layer: Some(p::FilesystemUsage {
            timestamp: stats.at,
            fs_id: Some(p::FilesystemIdentifier { mountpoint: mountpoint.to_owned() }),
            used_bytes: number(stats.rootfs_bytes),
            inodes_used: number(stats.rootfs_inodes),
        }),
        swap: Some(p::SwapUsage {
            timestamp: stats.at,
            swap_usage_bytes: number(stats.swap_usage),
            ..Default::default()
        }),
        io: None,
    }
}

/// Counters of a container.
pub fn from_stats(from: p::ContainerStats) -> Stats {
    let value = |number: Option<p::UInt64Value>| number.map_or(0, |n| n.value);
    let (cpu, memory) = (from.cpu.unwrap_or_default(), from.memory.unwrap_or_default());
    let layer = from.writable_layer.unwrap_or_default();
    Stats {
        at: cpu.timestamp,
        cpu_usage_ns: value(cpu.usage_core_nano_seconds),
        memory_working_set: value(memory.working_set_bytes),
        memory_usage: value(memory.usage_bytes),
        memory_rss: value(memory.rss_bytes),
        page_faults: value(memory.page_faults),
        major_page_faults: value(memory.major_page_faults),
        rootfs_bytes: value(layer.used_bytes),
        rootfs_inodes: value(layer.inodes_used),
        swap_usage: value(from.swap.unwrap_or_default().swap_usage_bytes),
        ..Stats::default()
    }
}

/// A file system of images or layers.
pub fn to_filesystem(from: &FilesystemUsage, at: i64) -> p::FilesystemUsage {
    p::FilesystemUsage {
        timestamp: at,
        fs_id: Some(p::FilesystemIdentifier { mountpoint: from.mountpoint.clone() }),
        used_bytes: number(from.used_bytes),
        inodes_used: number(from.inodes_used),
    }
}

/// A file system of images or layers.
pub fn from_filesystem(from: p::FilesystemUsage) -> FilesystemUsage {
    FilesystemUsage {
        mountpoint: from.fs_id.unwrap_or_default().mountpoint,
        used_bytes: from.used_bytes.map_or(0, |n| n.value),
        inodes_used: from.inodes_used.map_or(0, |n| n.value),
    }
}
