//! `/stats/summary`, and what `/metrics/…` tell, from the same figures.

use super::{Server, exposition::Exposition};
use crate::pod::PodExt;
use crate::state::PodState;
use crate::summary::{Summary, build};
use serde_json::{Value, json};
use std::time::Duration;

/// The usage of the node, its pods and their containers; `only_cpu_and_memory` leaves the rest out.
pub async fn summary(server: &Server, only_cpu_and_memory: bool) -> Value {
    let summary = build::summary(&server.ctx, &server.pods.list(), build::RELAXED).await;
    let mut value = serde_json::to_value(&summary).unwrap_or_default();
    if only_cpu_and_memory {
        let strip = |value: &mut Value, names: &[&str]| {
            if let Some(map) = value.as_object_mut() {
                names.iter().for_each(|name| drop(map.remove(*name)));
            }
        };
        strip(&mut value["node"], &["network", "fs", "runtime", "rlimit", "swap"]);
        for pod in value["pods"].as_array_mut().into_iter().flatten() {
            strip(pod, &["network", "volume", "ephemeral-storage", "process_stats", "swap"]);
            for container in pod["containers"].as_array_mut().into_iter().flatten() {
                strip(container, &["rootfs", "logs", "swap"]);
            }
        }
    }
    value
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

fn millis(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_millisecond)
}

/// `/metrics/resource`: what metrics-server reads.
pub async fn resource_metrics(server: &Server) -> String {
    resources(&build::summary(&server.ctx, &server.pods.list(), Duration::MAX).await)
}

fn resources(summary: &Summary) -> String {
    let mut out = Exposition::default();
    let node = &summary.node;
    out.help(
        "node_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
    );
    out.at(&[], seconds(node.cpu.usage_core_nano_seconds), millis(&node.cpu.time));
    out.help("node_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the node in bytes");
    out.at(&[], node.memory.working_set_bytes as f64, millis(&node.memory.time));
    if let Some(swap) = &node.swap {
        out.help(
            "node_swap_usage_bytes",
            "gauge",
            "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems",
        );
        out.at(&[], swap.swap_usage_bytes as f64, millis(&swap.time));
    }
    let containers = || summary.pods.iter().flat_map(|p| p.containers.iter().map(move |c| (p, c)));
    let of = |p: &'_ crate::summary::PodStats, c: &'_ crate::summary::ContainerStats| {
        [("container", c.name.clone()), ("namespace", p.pod_ref.namespace.clone()), ("pod", p.pod_ref.name.clone())]
    };
    out.help(
        "container_start_time_seconds",
        "gauge",
        "[STABLE] Start time of the container since unix epoch in seconds",
    );
    containers().for_each(|(p, c)| out.now(&of(p, c), millis(&c.start_time) as f64 / 1e3));
    out.help(
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
    );
    containers().for_each(|(p, c)| out.at(&of(p, c), seconds(c.cpu.usage_core_nano_seconds), millis(&c.cpu.time)));
    out.help("container_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the container in bytes");
    containers().for_each(|(p, c)| out.at(&of(p, c), c.memory.working_set_bytes as f64, millis(&c.memory.time)));
    if containers().any(|(_, c)| c.swap.is_some()) {
        out.help(
            "container_swap_usage_bytes",
            "gauge",
            "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems",
        );
        let swaps = containers().filter_map(|(p, c)| Some((p, c, c.swap.as_ref()?)));
        swaps.for_each(|(p, c, s)| out.at(&of(p, c), s.swap_usage_bytes as f64, millis(&s.time)));
    }
    let pod =
        |p: &'_ crate::summary::PodStats| [("namespace", p.pod_ref.namespace.clone()), ("pod", p.pod_ref.name.clone())];
    out.help(
        "pod_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
    );
    summary.pods.iter().for_each(|p| out.at(&pod(p), seconds(p.cpu.usage_core_nano_seconds), millis(&p.cpu.time)));
    out.help("pod_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the pod in bytes");
    summary.pods.iter().for_each(|p| out.at(&pod(p), p.memory.working_set_bytes as f64, millis(&p.memory.time)));
    if summary.pods.iter().any(|p| p.swap.is_some()) {
        out.help(
            "pod_swap_usage_bytes",
            "gauge",
            "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems",
        );
        let swaps = summary.pods.iter().filter_map(|p| Some((p, p.swap.as_ref()?)));
        swaps.for_each(|(p, s)| out.at(&pod(p), s.swap_usage_bytes as f64, millis(&s.time)));
    }
    out.help("scrape_error", "gauge", "[ALPHA] 1 if there was an error while getting container metrics, 0 otherwise");
    out.now(&[], 0.0);
    out.help(
        "resource_scrape_error",
        "gauge",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
    );
    out.now(&[], 0.0);
    out.finish()
}

/// `/metrics/cadvisor`: counters of containers, pods and the machine in cAdvisor's names.
pub async fn cadvisor_metrics(server: &Server) -> String {
    let summary = build::summary(&server.ctx, &server.pods.list(), build::RELAXED).await;
    let mut out = Exposition::default();
    let node = &summary.node;
    let machine = &server.ctx.machine;
    out.help("machine_cpu_cores", "gauge", "Number of logical CPU cores.");
    out.now(&[], machine.cpus() as f64);
    out.help("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.");
    out.now(&[], machine.memory_bytes() as f64);
    let rows = cgroups(&summary);
    type Value = fn(&Row<'_>) -> f64;
    const TABLE: [(&str, &str, &str, Value); 8] = [
        ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", |r| {
            seconds(r.cpu.usage_core_nano_seconds)
        }),
        (
            "container_memory_usage_bytes",
            "gauge",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |r| r.memory.usage_bytes as f64,
        ),
        ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |r| {
            r.memory.working_set_bytes as f64
        }),
        ("container_memory_rss", "gauge", "Size of RSS in bytes.", |r| r.memory.rss_bytes as f64),
        ("container_memory_cache", "gauge", "Number of bytes of page cache memory.", |r| {
            r.memory.usage_bytes.saturating_sub(r.memory.rss_bytes) as f64
        }),
        ("container_memory_swap", "gauge", "Container swap usage in bytes.", |r| r.swap as f64),
        ("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.", |r| {
            millis(r.start) as f64 / 1e3
        }),
        ("container_last_seen", "gauge", "Last time a container was seen by the exporter", |r| {
            millis(&r.cpu.time) as f64 / 1e3
        }),
    ];
    for (name, kind, help, value) in TABLE {
        out.help(name, kind, help);
        for row in &rows {
            let mut labels = row.labels();
            if name.starts_with("container_cpu") {
                labels.insert(1, ("cpu", "total".into()));
            }
            out.at(&labels, value(row), millis(&row.cpu.time));
        }
    }
    out.help(
        "container_fs_usage_bytes",
        "gauge",
        "Number of bytes that are consumed by the container on this filesystem.",
    );
    for row in &rows {
        let Some(fs) = row.rootfs else { continue };
        out.at(&row.labels(), fs.used_bytes as f64, millis(&row.cpu.time));
    }
    pressure(&mut out, &rows);
    type Counter = fn(&crate::summary::InterfaceStats) -> u64;
    const NETWORK: [(&str, &str, Counter); 4] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |i| i.rx_bytes),
        ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", |i| {
            i.rx_errors
        }),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |i| i.tx_bytes),
        ("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", |i| {
            i.tx_errors
        }),
    ];
    for (name, help, value) in NETWORK {
        out.help(name, "counter", help);
        for pod in &summary.pods {
            let Some(network) = &pod.network else { continue };
            for interface in &network.interfaces {
                let labels = [
                    ("container", String::new()),
                    ("id", format!("/kubepods/pod{}", pod.pod_ref.uid)),
                    ("interface", interface.name.clone()),
                    ("namespace", pod.pod_ref.namespace.clone()),
                    ("pod", pod.pod_ref.name.clone()),
                ];
                out.at(&labels, value(interface) as f64, millis(&network.time));
            }
        }
    }
    let _ = node;
    out.finish()
}

/// How long tasks waited, where the kernel says so.
fn pressure(out: &mut Exposition, rows: &[Row<'_>]) {
    type Total = fn(&Row<'_>) -> Option<u64>;
    const TABLE: [(&str, &str, Total); 6] = [
        (
            "container_pressure_cpu_stalled_seconds_total",
            "Total time duration no tasks in the container could make progress due to CPU congestion.",
            |r| Some(r.cpu.psi?.full.total),
        ),
        (
            "container_pressure_cpu_waiting_seconds_total",
            "Total time duration tasks in the container have waited due to CPU congestion.",
            |r| Some(r.cpu.psi?.some.total),
        ),
        (
            "container_pressure_memory_stalled_seconds_total",
            "Total time duration no tasks in the container could make progress due to memory congestion.",
            |r| Some(r.memory.psi?.full.total),
        ),
        (
            "container_pressure_memory_waiting_seconds_total",
            "Total time duration tasks in the container have waited due to memory congestion.",
            |r| Some(r.memory.psi?.some.total),
        ),
        (
            "container_pressure_io_stalled_seconds_total",
            "Total time duration no tasks in the container could make progress due to IO congestion.",
            |r| Some(r.io?.psi.full.total),
        ),
        (
            "container_pressure_io_waiting_seconds_total",
            "Total time duration tasks in the container have waited due to IO congestion.",
            |r| Some(r.io?.psi.some.total),
        ),
    ];
    for (name, help, total) in TABLE {
        let mut known = rows.iter().filter_map(|row| Some((row, total(row)?))).peekable();
        if known.peek().is_some() {
            out.help(name, "counter", help);
        }
        known.for_each(|(row, total)| out.at(&row.labels(), total as f64 / 1e6, millis(&row.cpu.time)));
    }
}

/// One cgroup of cAdvisor's metrics: the node's, a pod's or a container's.
struct Row<'a> {
    id: String,
    container: &'a str,
    image: &'a str,
    name: &'a str,
    pod: Option<&'a crate::summary::PodReference>,
    start: &'a str,
    cpu: &'a crate::summary::CpuStats,
    memory: &'a crate::summary::MemoryStats,
    rootfs: Option<&'a crate::summary::FsStats>,
    io: Option<&'a crate::summary::IoStats>,
    swap: u64,
}

impl Row<'_> {
    fn labels(&self) -> Vec<(&'static str, String)> {
        let text = |of: fn(&crate::summary::PodReference) -> &String| self.pod.map(of).cloned().unwrap_or_default();
        vec![
            ("container", self.container.to_owned()),
            ("id", self.id.clone()),
            ("image", self.image.to_owned()),
            ("name", self.name.to_owned()),
            ("namespace", text(|p| &p.namespace)),
            ("pod", text(|p| &p.name)),
        ]
    }
}

fn cgroups(summary: &Summary) -> Vec<Row<'_>> {
    let node = &summary.node;
    let swap = |s: &Option<crate::summary::SwapStats>| s.as_ref().map_or(0, |s| s.swap_usage_bytes);
    let row = |id: String| Row {
        id,
        container: "",
        image: "",
        name: "",
        pod: None,
        start: &node.start_time,
        cpu: &node.cpu,
        memory: &node.memory,
        io: node.io.as_ref(),
        rootfs: None,
        swap: swap(&node.swap),
    };
    let mut rows = vec![row("/".into())];
    for pod in &summary.pods {
        let id = format!("/kubepods/pod{}", pod.pod_ref.uid);
        rows.push(Row {
            pod: Some(&pod.pod_ref),
            start: &pod.start_time,
            cpu: &pod.cpu,
            memory: &pod.memory,
            io: pod.io.as_ref(),
            swap: swap(&pod.swap),
            ..row(id.clone())
        });
        for container in &pod.containers {
            rows.push(Row {
                container: &container.name,
                image: &container.image,
                name: &container.id,
                pod: Some(&pod.pod_ref),
                start: &container.start_time,
                cpu: &container.cpu,
                memory: &container.memory,
                io: container.io.as_ref(),
                rootfs: container.rootfs.as_ref(),
                swap: swap(&container.swap),
                ..row(format!("{id}/{}", container.id))
            });
        }
    }
    rows
}

/// `/metrics/probes`
pub fn probe_metrics(server: &Server) -> String {
    let mut out = Exposition::default();
    out.help(
        "prober_probe_total",
        "counter",
        "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.",
    );
    let pods = server.pods.list();
    for ((uid, container, kind, result), count) in server.ctx.probes.counts() {
        let Some(pod) = pods.iter().find(|p| p.uid() == uid) else { continue };
        let labels = [
            ("container", container),
            ("namespace", pod.namespace().to_owned()),
            ("pod", pod.name().to_owned()),
            ("pod_uid", uid),
            ("probe_type", kind.word().to_owned()),
            ("result", result.to_owned()),
        ];
        out.now(&labels, count as f64);
    }
    out.finish()
}

/// `/metrics`: the kubelet's own.
pub async fn metrics(server: &Server) -> String {
    let mut out = Exposition::default();
    let (mut running_pods, mut states) = (0_u32, [("created", 0_u32), ("exited", 0), ("running", 0), ("unknown", 0)]);
    let runtime = &server.ctx.config.runtime;
    for sandbox in runtime.list_pod_sandboxes().await.unwrap_or_default() {
        running_pods += u32::from(sandbox.state == cri::PodSandboxState::Ready);
    }
    for container in runtime.list_containers().await.unwrap_or_default() {
        let at = match container.state {
            cri::ContainerState::Created => 0,
            cri::ContainerState::Exited => 1,
            cri::ContainerState::Running => 2,
            cri::ContainerState::Unknown => 3,
        };
        states[at].1 += 1;
    }
    out.help("kubelet_node_name", "gauge", "[BETA] The node's name. The count is always 1.");
    out.now(&[("node", server.ctx.config.node_name.clone())], 1.0);
    out.help("kubelet_running_containers", "gauge", "[BETA] Number of containers currently running");
    for (state, count) in states {
        out.now(&[("container_state", state.to_owned())], f64::from(count));
    }
    out.help("kubelet_running_pods", "gauge", "[BETA] Number of pods that have a running pod sandbox");
    out.now(&[], f64::from(running_pods));
    out.help("kubelet_evictions", "counter", "[BETA] Cumulative number of pod evictions by eviction signal");
    for (signal, count) in server.ctx.eviction.counts() {
        out.now(&[("eviction_signal", signal.to_owned())], count as f64);
    }
    out.help("process_uptime_seconds", "gauge", "Seconds since the kubelet started");
    out.now(&[], server.ctx.started.elapsed().as_secs() as f64);
    out.finish()
}

/// `/runningpods/`: what the runtime runs, as pods without status.
pub async fn running_pods(server: &Server) -> Value {
    let runtime = &server.ctx.config.runtime;
    let mut items = Vec::new();
    for sandbox in runtime.list_pod_sandboxes().await.unwrap_or_default() {
        let meta = &sandbox.metadata;
        let Ok(state) = PodState::list(&**runtime, &meta.uid).await else { continue };
        let container =
            |c: &cri::ContainerStatus| json!({"name": c.metadata.name, "image": c.image_ref, "resources": {}});
        let containers: Vec<Value> = state.running().map(container).collect();
        if sandbox.state == cri::PodSandboxState::Ready || !containers.is_empty() {
            items.push(json!({"metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
                "spec": {"containers": containers}, "status": {}}));
        }
    }
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::{ContainerStats, PodReference, PodStats};

    #[test]
    fn resource_metrics_are_prometheus_text() {
        let mut summary = Summary::default();
        summary.node.cpu.usage_core_nano_seconds = 1_500_000_000;
        summary.node.cpu.time = "1970-01-01T00:00:01Z".into();
        let pod_ref = PodReference { name: "p".into(), namespace: "n".into(), uid: "u".into() };
        let containers = vec![ContainerStats { name: "c".into(), ..ContainerStats::default() }];
        summary.pods.push(PodStats { pod_ref, containers, ..PodStats::default() });
        let text = resources(&summary);
        assert!(text.contains("node_cpu_usage_seconds_total 1.5 1000\n"), "{text}");
        assert!(
            text.contains("container_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 0 0\n"),
            "{text}"
        );
        assert_eq!(
            cgroups(&summary).iter().map(|r| r.id.as_str()).collect::<Vec<_>>(),
            ["/", "/kubepods/podu", "/kubepods/podu/"]
        );
    }
}
