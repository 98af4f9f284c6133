//! The sandbox of a pod: its configuration and making it.

use crate::context::Context;
use crate::events::{EventType, reason};
use crate::pod::PodExt;
use crate::state::label;
use crate::{dns, hosts, qos, security_context};
use api::k8s::core::v1::Pod;
use api::k8s::node::v1::RuntimeClass;
use cri::{NamespaceMode, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol};

/// Builds the configuration of the `attempt`th sandbox.
pub async fn config(ctx: &Context, pod: &Pod, attempt: u32) -> Result<PodSandboxConfig, String> {
    let mut namespaces = security_context::namespaces(pod);
    namespaces.userns = ctx.userns.get(&ctx.config, pod)?;
    let (hostname, domain) = hosts::hostname_and_domain(pod, &ctx.config.cluster_domain);
    let on_node = namespaces.network == NamespaceMode::Node;
    let hostname = if on_node { String::new() } else { hosts::kernel_hostname(pod, &hostname, &domain)? };
    let (dns_config, warnings) = dns::pod_dns(&ctx.config, pod);
    for warning in warnings {
        ctx.recorder.pod(pod, EventType::Warning, reason::DNS_CONFIG_FORMING, warning);
    }
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.insert(label::POD_NAME.into(), pod.name().into());
    labels.insert(label::POD_NAMESPACE.into(), pod.namespace().into());
    labels.insert(label::POD_UID.into(), pod.uid().into());
    let sysctls = pod.spec().security_context.as_ref().and_then(|s| s.sysctls.clone()).unwrap_or_default();
    let spec = pod.spec();
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let privileged = containers.any(|c| c.security_context.as_ref().and_then(|s| s.privileged).unwrap_or(false));
    Ok(PodSandboxConfig {
        metadata: PodSandboxMetadata {
            name: pod.name().into(),
            uid: pod.uid().into(),
            namespace: pod.namespace().into(),
            attempt,
        },
        hostname,
        domainname: String::new(),
        log_directory: ctx.config.pod_log_dir(pod.namespace(), pod.name(), pod.uid()).display().to_string(),
        dns_config: Some(dns_config),
        port_mappings: if on_node { Vec::new() } else { port_mappings(pod) },
        labels,
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        cgroup_parent: qos::pod_cgroup(pod),
        sysctls: sysctls.into_iter().map(|s| (crate::sysctl::normalize(&s.name), s.value)).collect(),
        namespaces,
        privileged,
        runtime_handler: runtime_handler(ctx, pod).await?,
    })
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let spec = pod.spec();
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    let mapping = |port: &api::k8s::core::v1::ContainerPort| {
        let number = |n: i32| u16::try_from(n).ok().filter(|n| *n > 0);
        Some(PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
            container_port: number(port.container_port)?,
            host_port: number(port.host_port?)?,
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
    };
    ports.filter_map(mapping).collect()
}

async fn runtime_handler(ctx: &Context, pod: &Pod) -> Result<String, String> {
    let Some(name) = pod.spec().runtime_class_name.as_deref().filter(|n| !n.is_empty()) else {
        return Ok(String::new());
    };
    let api: kube::Api<RuntimeClass> = kube::Api::all(ctx.config.client.clone());
    let class = api
        .get(name)
        .await
        .map_err(|e| format!("failed to get sandbox runtime: {}", crate::context::api_message(&e)))?;
    Ok(class.handler)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_host_ports_are_mapped() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [{"name": "a",
            "ports": [{"containerPort": 80}, {"containerPort": 53, "hostPort": 5353, "protocol": "UDP", "hostIP": "127.0.0.1"}]}]}}))
        .expect("pod");
        let want =
            PortMapping { protocol: Protocol::Udp, container_port: 53, host_port: 5353, host_ip: "127.0.0.1".into() };
        assert_eq!(port_mappings(&pod), [want]);
    }
}
