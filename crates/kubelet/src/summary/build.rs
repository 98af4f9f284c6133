//! Puts the summary together.

use super::usage::{self, Usage};
use super::{
    ContainerStats, CpuStats, FsStats, IoStats, MemoryStats, NetworkStats, NodeStats, PodReference, PodStats,
    ProcessStats, PsiStats, PvcReference, RlimitStats, RuntimeStats, Summary, SwapStats, VolumeStats,
};
use crate::context::Context;
use crate::pod::PodExt;
use crate::qos;
use crate::state::PodState;
use api::k8s::core::v1::{Pod, Volume};
use cri::Stats;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Age that sizes of directories may have in a summary that is asked for from outside.
pub const RELAXED: Duration = Duration::from_secs(60);

/// Unix nanoseconds as the API's time.
pub fn time(nanoseconds: i64) -> String {
    let whole = jiff::Timestamp::from_second(nanoseconds.div_euclid(1_000_000_000));
    whole.map(|t| t.to_string()).unwrap_or_default()
}

/// Now as the API's time.
pub fn now() -> String {
    jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).map(|t| t.to_string()).unwrap_or_default()
}

/// The whole summary; sizes of directories are at most `age` old.
pub async fn summary(ctx: &Context, pods: &[Arc<Pod>], age: Duration) -> Summary {
    let mut out = Vec::new();
    for pod in pods {
        out.extend(pod_stats(ctx, pod, age).await);
    }
    Summary { node: node(ctx).await, pods: out }
}

fn cpu(ctx: &Context, key: &str, stats: &Stats) -> CpuStats {
    CpuStats {
        time: time(stats.at),
        usage_nano_cores: ctx.rates.observe(key, stats.at, stats.cpu_usage_ns),
        usage_core_nano_seconds: stats.cpu_usage_ns,
        psi: stats.pressure.cpu.map(PsiStats::from),
    }
}

fn memory(stats: &Stats, limit: Option<u64>) -> MemoryStats {
    MemoryStats {
        time: time(stats.at),
        available_bytes: limit.map(|l| l.saturating_sub(stats.memory_working_set)),
        usage_bytes: stats.memory_usage,
        working_set_bytes: stats.memory_working_set,
        rss_bytes: stats.memory_rss,
        page_faults: stats.page_faults,
        major_page_faults: stats.major_page_faults,
        psi: stats.pressure.memory.map(PsiStats::from),
    }
}

fn io(stats: &Stats) -> Option<IoStats> {
    stats.pressure.io.map(|pressure| IoStats { time: time(stats.at), psi: pressure.into() })
}

fn swap(ctx: &Context, stats: &Stats) -> Option<SwapStats> {
    let total = ctx.machine.swap_bytes();
    (total > 0).then(|| SwapStats {
        time: time(stats.at),
        swap_available_bytes: Some(total.saturating_sub(stats.swap_usage)),
        swap_usage_bytes: stats.swap_usage,
    })
}

/// The node itself, without its pods: what eviction looks at first.
pub async fn node(ctx: &Context) -> NodeStats {
    let runtime = &ctx.config.runtime;
    let now = now();
    let whole = runtime.cgroup_stats("/").await.unwrap_or_default();
    let mut node_memory = memory(&whole, u64::try_from(ctx.machine.memory_bytes()).ok());
    // A node of a local cluster has a cgroup of its own: what others use of the machine is not available either.
    if let Some(available) = meminfo("MemAvailable:") {
        node_memory.available_bytes = node_memory.available_bytes.map(|own| own.min(available));
    }
    let mut system_containers = Vec::new();
    for (name, path) in [("pods", "/kubepods")] {
        if let Ok(stats) = runtime.cgroup_stats(path).await {
            let limit = ctx.allocatable_of_pods().get("memory").and_then(|q| u64::try_from(q.value()).ok());
            system_containers.push(ContainerStats {
                name: name.into(),
                start_time: ctx.started_at(),
                cpu: cpu(ctx, path, &stats),
                memory: memory(&stats, limit),
                io: io(&stats),
                swap: swap(ctx, &stats),
                ..ContainerStats::default()
            });
        }
    }
    let interfaces = crate::node::machine::interfaces();
    NodeStats {
        node_name: ctx.config.node_name.clone(),
        system_containers,
        start_time: ctx.started_at(),
        cpu: cpu(ctx, "/", &whole),
        memory: node_memory,
        io: io(&whole),
        network: NetworkStats::new(now.clone(), &interfaces),
        fs: node_fs(ctx, &now),
        runtime: runtime_stats(ctx, &now).await,
        rlimit: rlimit(&now),
        swap: swap(ctx, &whole),
    }
}

fn node_fs(ctx: &Context, now: &str) -> Option<FsStats> {
    usage::file_system(usage::existing(&ctx.config.root_dir), now)
}

/// The file system of writable layers, where the runtime tells.
async fn container_fs(ctx: &Context, now: &str) -> Option<FsStats> {
    let used = ctx.config.runtime.container_fs().await.ok().flatten()?;
    let whole = usage::file_system(Path::new(&used.mountpoint), now)?;
    Some(FsStats { used_bytes: used.used_bytes, inodes_used: used.inodes_used, ..whole })
}

async fn runtime_stats(ctx: &Context, now: &str) -> RuntimeStats {
    let of = |used: Option<cri::FilesystemUsage>| {
        let used = used?;
        let whole = usage::file_system(Path::new(&used.mountpoint), now)?;
        Some(FsStats { used_bytes: used.used_bytes, inodes_used: used.inodes_used, ..whole })
    };
    let image_fs = of(ctx.config.images.image_fs().await.ok().flatten()).or_else(|| node_fs(ctx, now));
    let container_fs = container_fs(ctx, now).await.or_else(|| image_fs.clone());
    RuntimeStats { image_fs, container_fs }
}

fn rlimit(now: &str) -> Option<RlimitStats> {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    let curproc = load.split(' ').nth(3)?.split('/').nth(1)?.parse().ok()?;
    let pid_max = number("/proc/sys/kernel/pid_max")?;
    let maxpid = number("/proc/sys/kernel/threads-max").map_or(pid_max, |threads| threads.min(pid_max));
    Some(RlimitStats { time: now.to_owned(), maxpid, curproc })
}

/// One line of `/proc/meminfo` in bytes.
pub fn meminfo(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.trim().split(' ').next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// One pod; `None` where the runtime knows nothing of it.
pub async fn pod_stats(ctx: &Context, pod: &Pod, age: Duration) -> Option<PodStats> {
    let runtime = &ctx.config.runtime;
    let state = PodState::list(&**runtime, pod.uid()).await.ok()?;
    let whole = runtime.cgroup_stats(&qos::pod_cgroup(pod)).await.ok()?;
    let now = now();
    let disk = node_fs(ctx, &now).unwrap_or_default();
    let layers = container_fs(ctx, &now).await.unwrap_or_else(|| disk.clone());
    let (mut containers, mut ephemeral) = (Vec::new(), Usage::default());
    for status in state.running() {
        let Ok(stats) = runtime.container_stats(&status.id).await else { continue };
        let logs = match Path::new(&status.log_path).parent() {
            Some(dir) => ctx.usage.get(dir, age).await,
            None => Usage::default(),
        };
        let rootfs = Usage { bytes: stats.rootfs_bytes, inodes: stats.rootfs_inodes };
        ephemeral += logs;
        ephemeral += rootfs;
        let limit = pod.container(&status.metadata.name).and_then(|(_, c)| qos::memory_limit(&c));
        containers.push(ContainerStats {
            name: status.metadata.name.clone(),
            start_time: time(status.started_at),
            cpu: cpu(ctx, &status.id, &stats),
            memory: memory(&stats, limit),
            io: io(&stats),
            rootfs: Some(usage::part(&layers, rootfs)),
            logs: Some(usage::part(&disk, logs)),
            swap: swap(ctx, &stats),
            id: status.id.clone(),
            image: status.image_ref.clone(),
        });
    }
    let volume = volumes(ctx, pod, &now, age).await;
    for local in volume.iter().filter(|v| v.local) {
        ephemeral += Usage { bytes: local.fs.used_bytes, inodes: local.fs.inodes_used };
    }
    let network = match state.sandbox().filter(|_| !pod.host_network()) {
        Some(sandbox) => runtime.pod_network_stats(&sandbox.id).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let limit = qos::pod_limits(pod).get("memory").and_then(|q| u64::try_from(q.value()).ok());
    Some(PodStats {
        pod_ref: PodReference { name: pod.name().into(), namespace: pod.namespace().into(), uid: pod.uid().into() },
        start_time: pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or_else(
            || state.newest_sandbox().map(|s| time(s.created_at)).unwrap_or_default(),
            |t| t.0.to_string(),
        ),
        containers,
        cpu: cpu(ctx, pod.uid(), &whole),
        memory: memory(&whole, limit),
        io: io(&whole),
        network: NetworkStats::new(now, &network),
        volume,
        ephemeral_storage: usage::part(&disk, ephemeral),
        process_stats: ProcessStats { process_count: whole.pids },
        swap: swap(ctx, &whole),
    })
}

/// Whether a volume uses the node's disk and ends with its pod.
pub fn is_local(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.git_repo.is_some()
        || volume.empty_dir.as_ref().is_some_and(|e| e.medium.as_deref() != Some("Memory"))
}

/// Whether the node finds out a volume's usage. A dead server of a network file system would never answer.
fn is_asked(volume: &Volume) -> bool {
    volume.host_path.is_none() && volume.csi.is_none() && volume.nfs.is_none()
}

async fn volumes(ctx: &Context, pod: &Pod, now: &str, age: Duration) -> Vec<VolumeStats> {
    let mut out = Vec::new();
    for volume in pod.spec().volumes.iter().flatten().filter(|v| is_asked(v)) {
        let Some(path) = crate::volumes::path(ctx, pod, volume) else { continue };
        let Some(whole) = usage::file_system(&path, now) else { continue };
        let mounted = crate::volumes::mounts::is_mount_point(&path).unwrap_or(false);
        // A file system of its own says what is used; a directory has to be walked.
        let fs = if mounted { whole } else { usage::part(&whole, ctx.usage.get(&path, age).await) };
        let pvc_ref = volume
            .persistent_volume_claim
            .as_ref()
            .map(|c| c.claim_name.clone())
            .or_else(|| volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name(), volume.name)));
        out.push(VolumeStats {
            fs,
            name: volume.name.clone(),
            pvc_ref: pvc_ref.map(|name| PvcReference { name, namespace: pod.namespace().into() }),
            local: is_local(volume),
        });
    }
    out.extend(csi_volumes(ctx, pod, now).await);
    out
}

/// Volumes of CSI drivers, which tell their usage themselves.
async fn csi_volumes(ctx: &Context, pod: &Pod, now: &str) -> Vec<VolumeStats> {
    let listed = crate::volumes::csi::stats::of_pod(ctx, pod).await;
    let one = |stats: crate::volumes::csi::stats::VolumeUsage| VolumeStats {
        fs: FsStats {
            time: now.to_owned(),
            capacity_bytes: stats.bytes.0,
            used_bytes: stats.bytes.1,
            available_bytes: stats.bytes.2,
            inodes: stats.inodes.0,
            inodes_used: stats.inodes.1,
            inodes_free: stats.inodes.2,
            ..FsStats::default()
        },
        name: stats.volume,
        pvc_ref: stats.claim.map(|name| PvcReference { name, namespace: pod.namespace().into() }),
        local: false,
    };
    listed.into_iter().map(one).collect()
}
