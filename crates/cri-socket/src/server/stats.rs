//! Counters of containers and sandboxes.

use super::{Options, now};
use crate::convert::{to_cpu, to_map, to_memory, to_sandbox_metadata, to_stats};
use cri::{ContainerState, ContainerStatus, InterfaceStats, PodSandboxStatus, Stats};
use protos::cri as p;

/// Counters of one container.
pub async fn container(options: &Options, container: &ContainerStatus) -> cri::Result<p::ContainerStats> {
    let stats = options.runtime.container_stats(&container.id).await?;
    Ok(to_stats(container, &stats, &options.layers.display().to_string()))
}

/// Counters of those that run.
pub async fn containers(options: &Options, list: &[ContainerStatus]) -> Vec<p::ContainerStats> {
    let running = list.iter().filter(|c| c.state == ContainerState::Running);
    let all = futures::future::join_all(running.map(|c| container(options, c))).await;
    all.into_iter().flatten().collect()
}

/// Counters of a sandbox: its containers' together, and its network's.
pub async fn sandbox(options: &Options, sandbox: &PodSandboxStatus, list: &[ContainerStatus]) -> p::PodSandboxStats {
    let mut total = Stats { at: now(), ..Stats::default() };
    for container in list.iter().filter(|c| c.state == ContainerState::Running) {
        if let Ok(one) = options.runtime.container_stats(&container.id).await {
            total.cpu_usage_ns += one.cpu_usage_ns;
            total.memory_working_set += one.memory_working_set;
            total.memory_usage += one.memory_usage;
            total.memory_rss += one.memory_rss;
            total.page_faults += one.page_faults;
            total.major_page_faults += one.major_page_faults;
            total.pids += one.pids;
        }
    }
    let interfaces = options.runtime.pod_network_stats(&sandbox.id).await.unwrap_or_default();
    let mut interfaces: Vec<_> = interfaces.iter().map(interface).collect();
    let default = interfaces.iter().position(|i| i.name == "eth0").map(|i| interfaces.remove(i));
    let processes = p::UInt64Value { value: total.pids };
    p::PodSandboxStats {
        attributes: Some(p::PodSandboxAttributes {
            id: sandbox.id.clone(),
            metadata: Some(to_sandbox_metadata(&sandbox.metadata)),
            labels: to_map(&sandbox.labels),
            annotations: to_map(&sandbox.annotations),
        }),
        linux: Some(p::LinuxPodSandboxStats {
            cpu: Some(to_cpu(&total)),
            memory: Some(to_memory(&total)),
            network: Some(p::NetworkUsage { timestamp: total.at, default_interface: default, interfaces }),
            process: Some(p::ProcessUsage { timestamp: total.at, process_count: Some(processes) }),
            containers: containers(options, list).await,
            io: None,
        }),
    }
}

fn interface(from: &InterfaceStats) -> p::NetworkInterfaceUsage {
    let number = |value: u64| Some(p::UInt64Value { value });
    p::NetworkInterfaceUsage {
        name: from.name.clone(),
        rx_bytes: number(from.rx_bytes),
        rx_errors: number(from.rx_errors),
        tx_bytes: number(from.tx_bytes),
        tx_errors: number(from.tx_errors),
    }
}
