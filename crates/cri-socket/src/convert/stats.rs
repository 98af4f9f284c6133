//! Counters.

use super::to_map;
use cri::{ContainerStatus, FilesystemUsage, Pressure, Pressures, Stalls, Stats};
use protos::cri as p;

fn number(value: u64) -> Option<p::UInt64Value> {
    Some(p::UInt64Value { value })
}

/// CPU time.
pub fn to_cpu(stats: &Stats) -> p::CpuUsage {
    p::CpuUsage {
        timestamp: stats.at,
        usage_core_nano_seconds: number(stats.cpu_usage_ns),
        psi: to_psi(stats.pressure.cpu),
        ..Default::default()
    }
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
        psi: to_psi(stats.pressure.memory),
        ..Default::default()
    }
}

/// Storage.
pub fn to_io(stats: &Stats) -> Option<p::IoUsage> {
    stats.pressure.io.map(|io| p::IoUsage { timestamp: stats.at, psi: to_psi(Some(io)) })
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
        io: to_io(stats),
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
        pressure: Pressures {
            cpu: cpu.psi.map(from_psi),
            memory: memory.psi.map(from_psi),
            io: from.io.and_then(|io| io.psi).map(from_psi),
        },
        swap_usage: value(from.swap.unwrap_or_default().swap_usage_bytes),
        ..Stats::default()
    }
}

fn to_psi(from: Option<Pressure>) -> Option<p::PsiStats> {
    let percent = |hundredths: u32| f64::from(hundredths) / 100.0;
    let data = |from: Stalls| p::PsiData {
        total: from.total,
        avg10: percent(from.avg10),
        avg60: percent(from.avg60),
        avg300: percent(from.avg300),
    };
    from.map(|from| p::PsiStats { full: Some(data(from.full)), some: Some(data(from.some)) })
}

fn from_psi(from: p::PsiStats) -> Pressure {
    let hundredths = |percent: f64| (percent * 100.0).round() as u32;
    let stalls = |from: p::PsiData| Stalls {
        total: from.total,
        avg10: hundredths(from.avg10),
        avg60: hundredths(from.avg60),
        avg300: hundredths(from.avg300),
    };
    Pressure { some: stalls(from.some.unwrap_or_default()), full: stalls(from.full.unwrap_or_default()) }
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
