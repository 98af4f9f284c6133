//! The container that clones: its name, its configuration and what its end means.

use super::{Checkout, USER, program};
use crate::context::Context;
use crate::pod::PodExt;
use crate::state::label;
use crate::{hosts, security_context};
use cri::{
    ContainerConfig, ContainerMetadata, LinuxContainerResources, LinuxContainerSecurityContext, Map, Mount,
    NamespaceMode,
};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// How long a clone may take.
pub const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Its memory and processes, besides the limits of the pod.
const MEMORY: i64 = 512 << 20;
const PROCESSES: i64 = 64;

/// Places in the container, as the verb `git-clone` has them.
const VOLUME: &str = "/volume";
const CERTIFICATES: &str = "/certificates.pem";
const MESSAGE: &str = "/message";

/// Name of the container of a volume. No container of a pod can be called so.
pub fn name(volume: &str) -> String {
    format!("git-repo.{volume}")
}

/// Makes the places of a clone ready and says how its container is made.
pub fn prepare(
    ctx: &Context,
    checkout: &Checkout<'_>,
    pod_ips: &[IpAddr],
    attempt: u32,
) -> Result<ContainerConfig, String> {
    let git = ctx.config.git.as_ref().ok_or("git-repo volume plugin has been disabled")?;
    checkout.prepare().map_err(|e| e.to_string())?;
    let (mut mounts, mut command) = program::place(&git.program);
    mounts.push(writable(&checkout.dir, VOLUME));
    mounts.push(writable(&checkout.message_file(), MESSAGE));
    mounts.push(Mount { readonly: true, ..hosts::mount(ctx, checkout.pod, pod_ips)? });
    mounts.extend(git.certificates.iter().map(|path| program::read_only(path, CERTIFICATES.into())));
    let source = checkout.volume.git_repo.as_ref().ok_or("not a gitRepo volume")?;
    let (revision, directory) =
        (source.revision.clone().unwrap_or_default(), source.directory.clone().unwrap_or_default());
    command.extend(["git-clone".into(), source.repository.clone(), revision, directory]);
    let name = name(&checkout.volume.name);
    Ok(ContainerConfig {
        labels: labels(checkout, &name),
        metadata: ContainerMetadata { name, attempt },
        command,
        mounts,
        // As the first process of its PID namespace it would ignore anything milder.
        stop_signal: "SIGKILL".into(),
        resources: LinuxContainerResources {
            memory_limit_in_bytes: MEMORY,
            pids_limit: PROCESSES,
            oom_score_adj: 1000,
            ..LinuxContainerResources::default()
        },
        security_context: security(ctx, checkout)?,
        ..ContainerConfig::default()
    })
}

/// No user of the node, no rights, no other processes; the pod's network and user namespace.
fn security(ctx: &Context, checkout: &Checkout<'_>) -> Result<LinuxContainerSecurityContext, String> {
    let mut namespaces = security_context::namespaces(checkout.pod);
    namespaces.pid = NamespaceMode::Container;
    namespaces.userns = ctx.userns.get(&ctx.config, checkout.pod)?;
    Ok(LinuxContainerSecurityContext {
        drop_capabilities: vec!["ALL".into()],
        namespaces,
        run_as_user: Some(USER.into()),
        run_as_group: Some(USER.into()),
        supplemental_groups_policy: cri::SupplementalGroupsPolicy::Strict,
        readonly_rootfs: true,
        no_new_privs: true,
        seccomp: cri::SeccompProfile::RuntimeDefault,
        ..LinuxContainerSecurityContext::default()
    })
}

fn labels(checkout: &Checkout<'_>, name: &str) -> Map {
    let pod = checkout.pod;
    let of = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Map::from([
        of(label::POD_NAME, pod.name()),
        of(label::POD_NAMESPACE, pod.namespace()),
        of(label::POD_UID, pod.uid()),
        of(label::CONTAINER_NAME, name),
    ])
}

fn writable(host: &Path, container_path: &str) -> Mount {
    Mount { container_path: container_path.into(), host_path: host.display().to_string(), ..Mount::default() }
}

/// Why a clone that has ended failed, for the pod's event; `None`: it has not.
pub fn failure(checkout: &Checkout<'_>, status: &cri::ContainerStatus) -> Option<String> {
    let repository = checkout.volume.git_repo.as_ref().map(|g| g.repository.as_str()).unwrap_or_default();
    let why = match (status.exit_code, status.reason.as_str(), checkout.message()) {
        (0, ..) => return None,
        (_, "OOMKilled", _) => format!("it needs more memory than {} MiB or than the pod has", MEMORY >> 20),
        (_, _, message) if !message.is_empty() => message,
        (code, ..) if code > 128 => format!("ended by signal {}", code - 128),
        (code, ..) => format!("exit status {code}"),
    };
    // Credentials in a URL are refused, and not to be shown.
    let shown = if repository.contains('@') { "the repository" } else { repository };
    Some(format!("failed to clone {shown}: {why}"))
}
