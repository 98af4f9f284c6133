//! Containers.

use super::{
    from_groups_policy, from_map, from_namespaces, from_seccomp, to_groups_policy, to_int, to_map, to_namespaces,
    to_seccomp,
};
use cri::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus, Device, LinuxContainerResources,
    LinuxContainerSecurityContext, Mount, MountPropagation,
};
use protos::cri as p;

/// Limits.
pub fn to_resources(from: &LinuxContainerResources) -> p::LinuxContainerResources {
    let hugepage =
        |(page_size, limit): &(String, u64)| p::HugepageLimit { page_size: page_size.clone(), limit: *limit };
    p::LinuxContainerResources {
        cpu_period: from.cpu_period,
        cpu_quota: from.cpu_quota,
        cpu_shares: from.cpu_shares,
        memory_limit_in_bytes: from.memory_limit_in_bytes,
        oom_score_adj: from.oom_score_adj,
        cpuset_cpus: from.cpuset_cpus.clone(),
        cpuset_mems: from.cpuset_mems.clone(),
        hugepage_limits: from.hugepage_limits.iter().map(hugepage).collect(),
        // CRI has no field for the number of processes: the pod's cgroup limits it.
        unified: to_map(&from.unified),
        memory_swap_limit_in_bytes: from.memory_swap_limit_in_bytes,
    }
}

/// Limits.
pub fn from_resources(from: Option<p::LinuxContainerResources>) -> LinuxContainerResources {
    let from = from.unwrap_or_default();
    LinuxContainerResources {
        cpu_period: from.cpu_period,
        cpu_quota: from.cpu_quota,
        cpu_shares: from.cpu_shares,
        memory_limit_in_bytes: from.memory_limit_in_bytes,
        oom_score_adj: from.oom_score_adj,
        cpuset_cpus: from.cpuset_cpus,
        cpuset_mems: from.cpuset_mems,
        memory_swap_limit_in_bytes: from.memory_swap_limit_in_bytes,
        pids_limit: 0,
        hugepage_limits: from.hugepage_limits.into_iter().map(|h| (h.page_size, h.limit)).collect(),
        unified: from_map(from.unified),
    }
}

fn to_mount(from: &Mount) -> p::Mount {
    let propagation = match from.propagation {
        MountPropagation::Private => p::MountPropagation::PropagationPrivate,
        MountPropagation::HostToContainer => p::MountPropagation::PropagationHostToContainer,
        MountPropagation::Bidirectional => p::MountPropagation::PropagationBidirectional,
    };
    p::Mount {
        container_path: from.container_path.clone(),
        host_path: from.host_path.clone(),
        readonly: from.readonly,
        propagation: propagation.into(),
        recursive_read_only: from.recursive_readonly,
        ..Default::default()
    }
}

fn from_mount(from: p::Mount) -> Mount {
    Mount {
        propagation: match from.propagation() {
            p::MountPropagation::PropagationPrivate => MountPropagation::Private,
            p::MountPropagation::PropagationHostToContainer => MountPropagation::HostToContainer,
            p::MountPropagation::PropagationBidirectional => MountPropagation::Bidirectional,
        },
        container_path: from.container_path,
        host_path: from.host_path,
        readonly: from.readonly,
        recursive_readonly: from.recursive_read_only,
    }
}

fn to_security(from: &LinuxContainerSecurityContext) -> p::LinuxContainerSecurityContext {
    use p::security_profile::ProfileType;
    let apparmor = match from.apparmor.as_str() {
        "" => None,
        "unconfined" => Some(super::profile(ProfileType::Unconfined, "")),
        "runtime/default" => Some(super::profile(ProfileType::RuntimeDefault, "")),
        name => Some(super::profile(ProfileType::Localhost, name)),
    };
    p::LinuxContainerSecurityContext {
        capabilities: Some(p::Capability {
            add_capabilities: from.add_capabilities.clone(),
            drop_capabilities: from.drop_capabilities.clone(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged: from.privileged,
        namespace_options: Some(to_namespaces(&from.namespaces, &from.target_id)),
        selinux_options: None,
        run_as_user: from.run_as_user.map(to_int),
        run_as_username: from.run_as_username.clone(),
        readonly_rootfs: from.readonly_rootfs,
        supplemental_groups: from.supplemental_groups.clone(),
        no_new_privs: from.no_new_privs,
        run_as_group: from.run_as_group.map(to_int),
        // On the wire the kubelet's lists are whole; an empty one means that nothing is hidden.
        masked_paths: from.masked_paths.clone().unwrap_or_else(|| MASKED.map(str::to_owned).to_vec()),
        readonly_paths: from.readonly_paths.clone().unwrap_or_else(|| READONLY.map(str::to_owned).to_vec()),
        seccomp: Some(to_seccomp(&from.seccomp)),
        apparmor,
        supplemental_groups_policy: to_groups_policy(from.supplemental_groups_policy),
    }
}

const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn from_security(from: Option<p::LinuxContainerSecurityContext>) -> LinuxContainerSecurityContext {
    use p::security_profile::ProfileType;
    let from = from.unwrap_or_default();
    let capabilities = from.capabilities.clone().unwrap_or_default();
    let target = from.namespace_options.as_ref().map(|n| n.target_id.clone()).unwrap_or_default();
    let apparmor = from.apparmor.clone().map(|profile| match profile.profile_type() {
        ProfileType::RuntimeDefault => "runtime/default".to_owned(),
        ProfileType::Unconfined => "unconfined".to_owned(),
        ProfileType::Localhost => profile.localhost_ref,
    });
    LinuxContainerSecurityContext {
        supplemental_groups_policy: from_groups_policy(from.supplemental_groups_policy()),
        add_capabilities: capabilities.add_capabilities,
        drop_capabilities: capabilities.drop_capabilities,
        privileged: from.privileged,
        namespaces: from_namespaces(from.namespace_options),
        target_id: target,
        run_as_user: from.run_as_user.map(|v| v.value),
        run_as_group: from.run_as_group.map(|v| v.value),
        run_as_username: from.run_as_username,
        readonly_rootfs: from.readonly_rootfs,
        supplemental_groups: from.supplemental_groups,
        no_new_privs: from.no_new_privs,
        masked_paths: Some(from.masked_paths),
        readonly_paths: Some(from.readonly_paths),
        seccomp: from_seccomp(from.seccomp),
        apparmor: apparmor.unwrap_or_default(),
    }
}

fn to_signal(name: &str) -> i32 {
    let name = name.replace('+', "PLUS").replace('-', "MINUS");
    p::Signal::from_str_name(&name).unwrap_or(p::Signal::RuntimeDefault).into()
}

fn from_signal(signal: p::Signal) -> String {
    match signal {
        p::Signal::RuntimeDefault => String::new(),
        other => other.as_str_name().replace("PLUS", "+").replace("MINUS", "-"),
    }
}

/// Configuration.
pub fn to_container_config(from: &ContainerConfig) -> p::ContainerConfig {
    let device = |d: &Device| p::Device {
        container_path: d.container_path.clone(),
        host_path: d.host_path.clone(),
        permissions: d.permissions.clone(),
    };
    p::ContainerConfig {
        metadata: Some(to_metadata(&from.metadata)),
        image: Some(p::ImageSpec {
            image: from.image.clone(),
            user_specified_image: from.user_specified_image.clone(),
            ..Default::default()
        }),
        command: from.command.clone(),
        args: from.args.clone(),
        working_dir: from.working_dir.clone(),
        envs: from.envs.iter().map(|(k, v)| p::KeyValue { key: k.clone(), value: v.clone().into_bytes() }).collect(),
        mounts: from.mounts.iter().map(to_mount).collect(),
        devices: from.devices.iter().map(device).collect(),
        labels: to_map(&from.labels),
        annotations: to_map(&from.annotations),
        log_path: from.log_path.clone(),
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        tty: from.tty,
        linux: Some(p::LinuxContainerConfig {
            resources: Some(to_resources(&from.resources)),
            security_context: Some(to_security(&from.security_context)),
        }),
        cdi_devices: from.cdi_devices.iter().map(|name| p::CdiDevice { name: name.clone() }).collect(),
        stop_signal: to_signal(&from.stop_signal),
    }
}

/// Configuration; the error names what ours does not do.
pub fn from_container_config(from: p::ContainerConfig) -> cri::Result<ContainerConfig> {
    if let Some(mount) = from.mounts.iter().find(|m| m.image.is_some()) {
        let path = &mount.container_path;
        return Err(cri::Error::InvalidArgument(format!("mount {path}: image mounts are not served on this socket")));
    }
    let stop_signal = from_signal(from.stop_signal());
    let linux = from.linux.unwrap_or_default();
    let image = from.image.unwrap_or_default();
    let device =
        |d: p::Device| Device { container_path: d.container_path, host_path: d.host_path, permissions: d.permissions };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(ContainerConfig {
        metadata: from_metadata(from.metadata),
        user_specified_image: if image.user_specified_image.is_empty() {
            image.image.clone()
        } else {
            image.user_specified_image
        },
        image: image.image,
        command: from.command,
        args: from.args,
        working_dir: from.working_dir,
        envs: from.envs.into_iter().map(|kv| (kv.key, text(kv.value))).collect(),
        mounts: from.mounts.into_iter().map(from_mount).collect(),
        devices: from.devices.into_iter().map(device).collect(),
        cdi_devices: from.cdi_devices.into_iter().map(|d| d.name).collect(),
        labels: from_map(from.labels),
        annotations: from_map(from.annotations),
        log_path: from.log_path,
        log_limit: 0,
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        tty: from.tty,
        resources: from_resources(linux.resources),
        security_context: from_security(linux.security_context),
        stop_signal,
    })
}

fn to_metadata(from: &ContainerMetadata) -> p::ContainerMetadata {
    p::ContainerMetadata { name: from.name.clone(), attempt: from.attempt }
}

fn from_metadata(from: Option<p::ContainerMetadata>) -> ContainerMetadata {
    let p::ContainerMetadata { name, attempt } = from.unwrap_or_default();
    ContainerMetadata { name, attempt }
}

fn to_state(from: ContainerState) -> i32 {
    match from {
        ContainerState::Created => p::ContainerState::ContainerCreated,
        ContainerState::Running => p::ContainerState::ContainerRunning,
        ContainerState::Exited => p::ContainerState::ContainerExited,
        ContainerState::Unknown => p::ContainerState::ContainerUnknown,
    }
    .into()
}

fn from_state(from: p::ContainerState) -> ContainerState {
    match from {
        p::ContainerState::ContainerCreated => ContainerState::Created,
        p::ContainerState::ContainerRunning => ContainerState::Running,
        p::ContainerState::ContainerExited => ContainerState::Exited,
        p::ContainerState::ContainerUnknown => ContainerState::Unknown,
    }
}

fn to_spec(image: &str) -> p::ImageSpec {
    p::ImageSpec { image: image.to_owned(), user_specified_image: image.to_owned(), ..Default::default() }
}

/// A container in a list.
pub fn to_container(from: &ContainerStatus) -> p::Container {
    p::Container {
        id: from.id.clone(),
        pod_sandbox_id: from.sandbox_id.clone(),
        metadata: Some(to_metadata(&from.metadata)),
        image: Some(to_spec(&from.image)),
        image_ref: from.image_ref.clone(),
        state: to_state(from.state),
        created_at: from.created_at,
        labels: to_map(&from.labels),
        annotations: to_map(&from.annotations),
        image_id: from.image_id.clone(),
    }
}

/// A container.
pub fn to_container_status(from: &ContainerStatus) -> p::ContainerStatus {
    let user = from.user.clone().map(|(uid, gid, supplemental_groups)| p::ContainerUser {
        linux: Some(p::LinuxContainerUser { uid, gid, supplemental_groups }),
    });
    p::ContainerStatus {
        id: from.id.clone(),
        metadata: Some(to_metadata(&from.metadata)),
        state: to_state(from.state),
        created_at: from.created_at,
        started_at: from.started_at,
        finished_at: from.finished_at,
        exit_code: from.exit_code,
        image: Some(to_spec(&from.image)),
        image_ref: from.image_ref.clone(),
        reason: from.reason.clone(),
        message: from.message.clone(),
        labels: to_map(&from.labels),
        annotations: to_map(&from.annotations),
        mounts: from.mounts.iter().map(to_mount).collect(),
        log_path: from.log_path.clone(),
        resources: Some(p::ContainerResources { linux: Some(to_resources(&from.resources)) }),
        image_id: from.image_id.clone(),
        user,
        stop_signal: p::Signal::RuntimeDefault.into(),
    }
}

/// A container; which sandbox it is in stands in the list only.
pub fn from_container_status(from: p::ContainerStatus, sandbox_id: String) -> ContainerStatus {
    let state = from_state(from.state());
    let user = from.user.and_then(|u| u.linux).map(|u| (u.uid, u.gid, u.supplemental_groups));
    let image = from.image.unwrap_or_default();
    ContainerStatus {
        id: from.id,
        sandbox_id,
        metadata: from_metadata(from.metadata),
        state,
        created_at: from.created_at,
        started_at: from.started_at,
        finished_at: from.finished_at,
        exit_code: from.exit_code,
        image: if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image },
        image_id: if from.image_id.is_empty() { from.image_ref.clone() } else { from.image_id },
        image_ref: from.image_ref,
        reason: from.reason,
        message: from.message,
        labels: from_map(from.labels),
        annotations: from_map(from.annotations),
        mounts: from.mounts.into_iter().map(from_mount).collect(),
        log_path: from.log_path,
        resources: from_resources(from.resources.and_then(|r| r.linux)),
        user,
        pid: None,
    }
}
