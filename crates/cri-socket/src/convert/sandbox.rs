//! Sandboxes.

use super::{from_map, from_namespaces, to_map, to_namespaces};
use cri::{DnsConfig, PodSandboxConfig, PodSandboxMetadata, PodSandboxState, PodSandboxStatus, PortMapping, Protocol};
use protos::cri as p;

/// Identity.
pub fn to_sandbox_metadata(from: &PodSandboxMetadata) -> p::PodSandboxMetadata {
    p::PodSandboxMetadata {
        name: from.name.clone(),
        uid: from.uid.clone(),
        namespace: from.namespace.clone(),
        attempt: from.attempt,
    }
}

fn from_sandbox_metadata(from: Option<p::PodSandboxMetadata>) -> PodSandboxMetadata {
    let p::PodSandboxMetadata { name, uid, namespace, attempt } = from.unwrap_or_default();
    PodSandboxMetadata { name, uid, namespace, attempt }
}

fn to_port(from: &PortMapping) -> p::PortMapping {
    let protocol = match from.protocol {
        Protocol::Tcp => p::Protocol::Tcp,
        Protocol::Udp => p::Protocol::Udp,
        Protocol::Sctp => p::Protocol::Sctp,
    };
    p::PortMapping {
        protocol: protocol.into(),
        container_port: from.container_port.into(),
        host_port: from.host_port.into(),
        host_ip: from.host_ip.clone(),
    }
}

fn from_port(from: p::PortMapping) -> PortMapping {
    let port = |number: i32| u16::try_from(number).unwrap_or(0);
    PortMapping {
        protocol: match from.protocol() {
            p::Protocol::Tcp => Protocol::Tcp,
            p::Protocol::Udp => Protocol::Udp,
            p::Protocol::Sctp => Protocol::Sctp,
        },
        container_port: port(from.container_port),
        host_port: port(from.host_port),
        host_ip: from.host_ip,
    }
}

/// Configuration.
pub fn to_sandbox_config(from: &PodSandboxConfig) -> p::PodSandboxConfig {
    let dns = from.dns_config.clone();
    let security = p::LinuxSandboxSecurityContext {
        namespace_options: Some(to_namespaces(&from.namespaces, "")),
        privileged: from.privileged,
        seccomp: Some(super::profile(p::security_profile::ProfileType::RuntimeDefault, "")),
        ..Default::default()
    };
    p::PodSandboxConfig {
        metadata: Some(to_sandbox_metadata(&from.metadata)),
        hostname: from.hostname.clone(),
        log_directory: from.log_directory.clone(),
        dns_config: dns.map(|DnsConfig { servers, searches, options }| p::DnsConfig { servers, searches, options }),
        port_mappings: from.port_mappings.iter().map(to_port).collect(),
        labels: to_map(&from.labels),
        annotations: to_map(&from.annotations),
        linux: Some(p::LinuxPodSandboxConfig {
            cgroup_parent: from.cgroup_parent.clone(),
            security_context: Some(security),
            sysctls: to_map(&from.sysctls),
            overhead: None,
            resources: None,
        }),
    }
}

/// Configuration.
pub fn from_sandbox_config(from: p::PodSandboxConfig, runtime_handler: String) -> PodSandboxConfig {
    let linux = from.linux.unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let dns =
        from.dns_config.map(|p::DnsConfig { servers, searches, options }| DnsConfig { servers, searches, options });
    PodSandboxConfig {
        metadata: from_sandbox_metadata(from.metadata),
        hostname: from.hostname,
        domainname: String::new(),
        log_directory: from.log_directory,
        dns_config: dns,
        port_mappings: from.port_mappings.into_iter().map(from_port).filter(|m| m.host_port > 0).collect(),
        labels: from_map(from.labels),
        annotations: from_map(from.annotations),
        cgroup_parent: linux.cgroup_parent,
        sysctls: from_map(linux.sysctls),
        namespaces: from_namespaces(security.namespace_options),
        privileged: security.privileged,
        runtime_handler,
    }
}

fn to_sandbox_state(from: PodSandboxState) -> p::PodSandboxState {
    match from {
        PodSandboxState::Ready => p::PodSandboxState::SandboxReady,
        PodSandboxState::NotReady => p::PodSandboxState::SandboxNotready,
    }
}

/// A sandbox in a list.
pub fn to_sandbox(from: &PodSandboxStatus) -> p::PodSandbox {
    p::PodSandbox {
        id: from.id.clone(),
        metadata: Some(to_sandbox_metadata(&from.metadata)),
        state: to_sandbox_state(from.state).into(),
        created_at: from.created_at,
        labels: to_map(&from.labels),
        annotations: to_map(&from.annotations),
        runtime_handler: String::new(),
    }
}

/// A sandbox.
pub fn to_sandbox_status(from: &PodSandboxStatus) -> p::PodSandboxStatus {
    let mut ips = from.ips.iter().map(ToString::to_string);
    let network = p::PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| p::PodIp { ip }).collect(),
    };
    p::PodSandboxStatus {
        id: from.id.clone(),
        metadata: Some(to_sandbox_metadata(&from.metadata)),
        state: to_sandbox_state(from.state).into(),
        created_at: from.created_at,
        network: Some(network),
        linux: Some(p::LinuxPodSandboxStatus {
            namespaces: Some(p::Namespace { options: Some(to_namespaces(&from.namespaces, "")) }),
        }),
        labels: to_map(&from.labels),
        annotations: to_map(&from.annotations),
        runtime_handler: String::new(),
    }
}

/// A sandbox.
pub fn from_sandbox_status(from: p::PodSandboxStatus) -> PodSandboxStatus {
    let state = match from.state() {
        p::PodSandboxState::SandboxReady => PodSandboxState::Ready,
        p::PodSandboxState::SandboxNotready => PodSandboxState::NotReady,
    };
    let network = from.network.unwrap_or_default();
    let ips = [network.ip].into_iter().chain(network.additional_ips.into_iter().map(|a| a.ip));
    PodSandboxStatus {
        id: from.id,
        metadata: from_sandbox_metadata(from.metadata),
        state,
        created_at: from.created_at,
        ips: ips.filter_map(|ip| ip.parse().ok()).collect(),
        namespaces: from_namespaces(from.linux.unwrap_or_default().namespaces.unwrap_or_default().options),
        labels: from_map(from.labels),
        annotations: from_map(from.annotations),
    }
}
