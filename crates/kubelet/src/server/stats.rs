//! `/stats/summary` and the resource metrics.

use super::Server;
use crate::pod::PodExt;
use crate::state::PodState;
use cri::Stats;
use serde_json::{Value, json};
use std::fmt::Write;

fn time(nanoseconds: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).map(|t| t.to_string()).unwrap_or_default()
}

fn usage(stats: &Stats) -> Value {
    let at = time(stats.at);
    json!({
        "cpu": {"time": at, "usageCoreNanoSeconds": stats.cpu_usage_ns},
        "memory": {"time": at, "usageBytes": stats.memory_usage, "workingSetBytes": stats.memory_working_set,
            "rssBytes": stats.memory_rss, "pageFaults": stats.page_faults, "majorPageFaults": stats.major_page_faults},
    })
}

/// The usage of the node, its pods and their containers.
pub async fn summary(server: &Server) -> Value {
    let (ctx, runtime) = (&server.ctx, &server.ctx.config.runtime);
    let mut pods = Vec::new();
    for pod in server.pods.list() {
        let Ok(state) = PodState::list(&**runtime, pod.uid()).await else { continue };
        let mut containers = Vec::new();
        for container in state.running() {
            let Ok(stats) = runtime.container_stats(&container.id).await else { continue };
            let mut entry = usage(&stats);
            entry["name"] = container.metadata.name.as_str().into();
            entry["startTime"] = time(container.started_at).into();
            entry["rootfs"] =
                json!({"time": time(stats.at), "usedBytes": stats.rootfs_bytes, "inodesUsed": stats.rootfs_inodes});
            containers.push(entry);
        }
        let Ok(stats) = runtime.cgroup_stats(&crate::qos::pod_cgroup(&pod)).await else { continue };
        let mut entry = usage(&stats);
        entry["podRef"] = json!({"name": pod.name(), "namespace": pod.namespace(), "uid": pod.uid()});
        entry["startTime"] = json!(pod.status.as_ref().and_then(|s| s.start_time.clone()));
        entry["containers"] = containers.into();
        entry["process_stats"] = json!({"process_count": stats.pids});
        pods.push(entry);
    }
    let mut node = usage(&runtime.cgroup_stats("/").await.unwrap_or_default());
    node["nodeName"] = ctx.config.node_name.as_str().into();
    let capacity = ctx.machine.storage_bytes();
    let available = rustix::fs::statvfs(&ctx.config.root_dir).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
    node["fs"] = json!({"capacityBytes": capacity, "availableBytes": available, "usedBytes": capacity.saturating_sub(available)});
    node["runtime"] = json!({"imageFs": {"usedBytes": ctx.config.images.image_fs_bytes().await.unwrap_or(0)}});
    json!({"node": node, "pods": pods})
}

/// Prometheus text of what metrics-server reads.
pub async fn resource_metrics(server: &Server) -> String {
    let summary = summary(server).await;
    let mut out = String::new();
    let seconds = |v: &Value| v["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap_or(0) as f64 / 1e9;
    let bytes = |v: &Value| v["memory"]["workingSetBytes"].as_u64().unwrap_or(0);
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let millis =
        |v: &Value| text(&v["cpu"]["time"]).parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_millisecond);
    let mut cpu = format!(
        "# HELP node_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the node in core-seconds\n# TYPE node_cpu_usage_seconds_total counter\nnode_cpu_usage_seconds_total {} {}\n",
        seconds(&summary["node"]),
        millis(&summary["node"])
    );
    let mut memory = format!(
        "# HELP node_memory_working_set_bytes [STABLE] Current working set of the node in bytes\n# TYPE node_memory_working_set_bytes gauge\nnode_memory_working_set_bytes {} {}\n",
        bytes(&summary["node"]),
        millis(&summary["node"])
    );
    cpu.push_str("# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container in core-seconds\n# TYPE container_cpu_usage_seconds_total counter\n");
    memory.push_str("# HELP container_memory_working_set_bytes [STABLE] Current working set of the container in bytes\n# TYPE container_memory_working_set_bytes gauge\n");
    let mut pod_cpu = String::from(
        "# HELP pod_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the pod in core-seconds\n# TYPE pod_cpu_usage_seconds_total counter\n",
    );
    let mut pod_memory = String::from(
        "# HELP pod_memory_working_set_bytes [STABLE] Current working set of the pod in bytes\n# TYPE pod_memory_working_set_bytes gauge\n",
    );
    for pod in summary["pods"].as_array().into_iter().flatten() {
        let labels =
            format!("namespace=\"{}\",pod=\"{}\"", text(&pod["podRef"]["namespace"]), text(&pod["podRef"]["name"]));
        let _ = writeln!(pod_cpu, "pod_cpu_usage_seconds_total{{{labels}}} {} {}", seconds(pod), millis(pod));
        let _ = writeln!(pod_memory, "pod_memory_working_set_bytes{{{labels}}} {} {}", bytes(pod), millis(pod));
        for container in pod["containers"].as_array().into_iter().flatten() {
            let labels = format!("container=\"{}\",{labels}", text(&container["name"]));
            let _ = writeln!(
                cpu,
                "container_cpu_usage_seconds_total{{{labels}}} {} {}",
                seconds(container),
                millis(container)
            );
            let _ = writeln!(
                memory,
                "container_memory_working_set_bytes{{{labels}}} {} {}",
                bytes(container),
                millis(container)
            );
        }
    }
    out.extend([cpu, memory, pod_cpu, pod_memory]);
    out
}

/// The kubelet's own metrics.
pub fn metrics(server: &Server) -> String {
    let (pods, up) = (server.pods.list().len(), server.ctx.started.elapsed().as_secs());
    format!(
        "# HELP kubelet_running_pods [BETA] Number of pods that have a running pod sandbox\n# TYPE kubelet_running_pods gauge\nkubelet_running_pods {pods}\n# HELP process_uptime_seconds Seconds since the kubelet started\n# TYPE process_uptime_seconds gauge\nprocess_uptime_seconds {up}\n"
    )
}
