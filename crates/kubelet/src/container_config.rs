//! The configuration of a container: environment, mounts, command, limits, labels.

use crate::context::Context;
use crate::env::expansion::{expand, expand_strict};
use crate::env::field_ref::Facts;
use crate::env::{self, Environment};
use crate::pod::PodExt;
use crate::state::label;
use crate::volumes::{MountedVolumes, bounded, mounts, subpath};
use crate::{format, hosts, qos, security_context};
use api::k8s::core::v1::{Container, Pod, VolumeDevice, VolumeMount};
use cri::{ContainerConfig, ContainerMetadata, Image, Map, Mount, MountPropagation};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What a container is made for.
pub struct Request<'a> {
    /// The kubelet.
    pub ctx: &'a Context,
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// Its image.
    pub image: &'a Image,
    /// Which instance.
    pub attempt: u32,
    /// The pod's volumes.
    pub volumes: &'a MountedVolumes,
    /// What the downward API shows.
    pub facts: &'a Facts<'a>,
    /// Container whose processes it sees (ephemeral containers).
    pub target_id: Option<String>,
}

/// Hash by which a container whose image was changed is told from one that stayed.
pub fn hash(container: &Container) -> String {
    let text = format!("{}\0{}", container.name, container.image.as_deref().unwrap_or_default());
    // FNV-1a: stable across restarts of the kubelet, which is all that is asked of it.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:x}")
}

/// Builds the configuration; the error is the message of `CreateContainerConfigError`.
pub async fn build(request: &Request<'_>) -> Result<ContainerConfig, String> {
    let Request { ctx, pod, container, image, .. } = request;
    let grant = grant(request).await?;
    let mut envs = env::make(ctx, pod, container, request.facts, request.volumes).await?;
    // What the pod itself says wins.
    let added: Environment = grant.envs.into_iter().filter(|(name, _)| !envs.iter().any(|(n, _)| n == name)).collect();
    envs.extend(added);
    let lookup = |name: &str| envs.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let words = |list: &Option<Vec<String>>| list.iter().flatten().map(|w| expand(w, lookup)).collect::<Vec<_>>();
    let mut security_context = security_context::container(pod, container, image, &ctx.config)?;
    if let Some(target) = &request.target_id {
        security_context.target_id.clone_from(target);
    }
    let log_path = format!("{}/{}.log", container.name, request.attempt);
    let logs = ctx.config.pod_log_dir(pod.namespace(), pod.name(), pod.uid()).join(&container.name);
    mounts::make_dir(&logs, 0o755)
        .map_err(|e| format!("create container log directory for container {} failed: {e}", container.name))?;
    Ok(ContainerConfig {
        metadata: ContainerMetadata { name: container.name.clone(), attempt: request.attempt },
        image: image.id.clone(),
        user_specified_image: container.image.clone().unwrap_or_default(),
        command: words(&container.command),
        args: words(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts: all_mounts(request, &envs).await?.into_iter().chain(grant.mounts).collect(),
        envs,
        devices: block_devices(request)?.into_iter().chain(grant.devices).collect(),
        cdi_devices: grant.cdi_devices,
        labels: labels(pod, container),
        annotations: annotations(request).into_iter().chain(grant.annotations).collect(),
        log_path,
        log_limit: ctx.config.settings.log_max_size(),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        resources: resources(ctx, pod, container),
        security_context,
        stop_signal: container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()).unwrap_or_default(),
    })
}

/// Limits, with the CPUs and memory nodes that the container has alone or shares.
pub fn resources(ctx: &Context, pod: &Pod, container: &Container) -> cri::LinuxContainerResources {
    let mut out = qos::container_resources(pod, container, &ctx.node_limits());
    (out.cpuset_cpus, out.cpuset_mems) = ctx.managers.lists(pod.uid(), &container.name);
    if ctx.managers.exclusive(pod.uid(), &container.name).is_some() {
        // Whole CPUs need no quota, which would only throttle.
        out.cpu_quota = -1;
    }
    out
}

/// What device plugins and DRA drivers have given to the container.
async fn grant(request: &Request<'_>) -> Result<crate::devices::Grant, String> {
    let Request { ctx, pod, container, .. } = request;
    let mut grant = ctx.plugins.devices.grant(pod.uid(), &container.name).await?;
    let claims = ctx.plugins.dra.claims_of(pod, container);
    let more = ctx.plugins.dra.cdi_devices(&claims).into_iter().filter(|d| !grant.cdi_devices.contains(d));
    let more: Vec<String> = more.collect();
    grant.cdi_devices.extend(more);
    Ok(grant)
}

/// Raw volumes as devices.
fn block_devices(request: &Request<'_>) -> Result<Vec<cri::Device>, String> {
    let device = |device: &VolumeDevice| {
        let volume = request.volumes.get(&device.name).ok_or_else(|| {
            let (volume, container) = (format::quote(&device.name), format::quote(&request.container.name));
            format!("cannot find volume {volume} to pass into container {container}")
        })?;
        let permissions = if volume.readonly { "r" } else { "mrw" };
        Ok(cri::Device {
            container_path: device.device_path.clone(),
            host_path: volume.path.display().to_string(),
            permissions: permissions.into(),
        })
    };
    request.container.volume_devices.iter().flatten().map(device).collect()
}

fn labels(pod: &Pod, container: &Container) -> Map {
    let of = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Map::from([
        of(label::POD_NAME, pod.name()),
        of(label::POD_NAMESPACE, pod.namespace()),
        of(label::POD_UID, pod.uid()),
        of(label::CONTAINER_NAME, &container.name),
    ])
}

fn annotations(request: &Request<'_>) -> Map {
    let container = request.container;
    let mut out = Map::from([
        (label::HASH.to_owned(), hash(container)),
        (label::RESTART_COUNT.to_owned(), request.attempt.to_string()),
        (label::MESSAGE_PATH.to_owned(), container.termination_message_path.clone().unwrap_or_default()),
        (label::MESSAGE_POLICY.to_owned(), container.termination_message_policy.clone().unwrap_or_default()),
    ]);
    if let Some(grace) = request.pod.spec().termination_grace_period_seconds {
        out.insert(label::GRACE_PERIOD.into(), grace.to_string());
    }
    out
}

async fn all_mounts(request: &Request<'_>, envs: &Environment) -> Result<Vec<Mount>, String> {
    let mut out = Vec::new();
    let list = request.container.volume_mounts.as_deref().unwrap_or_default();
    for (index, mount) in list.iter().enumerate() {
        out.push(volume_mount(request, envs, index, mount).await?);
    }
    let taken = |out: &[Mount], path: &str| out.iter().any(|m| m.container_path == path);
    if !taken(&out, "/etc/hosts") {
        out.push(hosts::mount(request.ctx, request.pod, request.facts.pod_ips)?);
    }
    let message_path = request.container.termination_message_path.as_deref().unwrap_or_default();
    if !message_path.is_empty() && !taken(&out, message_path) {
        out.push(message_mount(request, message_path)?);
    }
    Ok(out)
}

async fn volume_mount(
    request: &Request<'_>,
    envs: &Environment,
    index: usize,
    mount: &VolumeMount,
) -> Result<Mount, String> {
    let name = &request.container.name;
    let volume = request.volumes.get(&mount.name).ok_or_else(|| {
        format!("cannot find volume {} to mount into container {}", format::quote(&mount.name), format::quote(name))
    })?;
    let host_path = match sub_path(mount, envs)? {
        None => volume.path.clone(),
        Some(relative) => {
            let target = pod_dir(request).join("volume-subpaths").join(&mount.name).join(name).join(index.to_string());
            let (from, to) = (volume.path.clone(), target.clone());
            bounded::aside(move || subpath::bind(&from, &relative, &to)).await.map_err(|error| {
                // The error may tell of the node's file system: it is for the log only.
                tracing::warn!(pod = format::pod(request.pod), %error, "cannot prepare subPath");
                format!(
                    "failed to prepare subPath for volumeMount {} of container {}",
                    format::quote(&mount.name),
                    format::quote(name)
                )
            })?;
            target
        }
    };
    let readonly = mount.read_only.unwrap_or(false) || volume.readonly;
    let recursive = matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
    let container_path =
        if mount.mount_path.starts_with('/') { mount.mount_path.clone() } else { format!("/{}", mount.mount_path) };
    Ok(Mount {
        container_path,
        host_path: host_path.display().to_string(),
        readonly,
        recursive_readonly: readonly && recursive,
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => MountPropagation::HostToContainer,
            Some("Bidirectional") => MountPropagation::Bidirectional,
            _ => MountPropagation::Private,
        },
    })
}

fn sub_path(mount: &VolumeMount, envs: &Environment) -> Result<Option<String>, String> {
    let expression = mount.sub_path_expr.as_deref().filter(|e| !e.is_empty());
    let path = match expression {
        None => mount.sub_path.clone().unwrap_or_default(),
        Some(expression) => {
            expand_strict(expression, |name| envs.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())).map_err(
                |missing| format!("missing value for {}", missing.into_iter().collect::<Vec<_>>().join(", ")),
            )?
        }
    };
    if path.is_empty() {
        return Ok(None);
    }
    if path.starts_with('/') {
        return Err(format!("error SubPath `{path}` must not be an absolute path"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!("unable to provision SubPath `{path}`: must not contain '..'"));
    }
    Ok(Some(path))
}

fn pod_dir(request: &Request<'_>) -> PathBuf {
    request.ctx.config.pod_dir(request.pod.uid())
}

fn mode(path: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

/// An empty file of this instance at the termination message path, writable by any user.
fn message_mount(request: &Request<'_>, message_path: &str) -> Result<Mount, String> {
    let dir = pod_dir(request).join("containers").join(&request.container.name);
    mounts::make_dir(&dir, 0o750).map_err(|e| e.to_string())?;
    let path = dir.join(format!("{:08x}", rand::random::<u32>()));
    std::fs::write(&path, "").and_then(|()| mode(&path, 0o666)).map_err(|e| e.to_string())?;
    let container_path =
        if message_path.starts_with('/') { message_path.to_owned() } else { format!("/{message_path}") };
    Ok(Mount { container_path, host_path: path.display().to_string(), ..Mount::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_paths_expand_and_stay_inside() {
        let envs = vec![("POD".to_owned(), "p".to_owned())];
        let check = |path: Option<&str>, expression: Option<&str>, expect: Result<Option<&str>, &str>| {
            let mount = VolumeMount {
                sub_path: path.map(Into::into),
                sub_path_expr: expression.map(Into::into),
                ..VolumeMount::default()
            };
            assert_eq!(sub_path(&mount, &envs), expect.map(|o| o.map(str::to_owned)).map_err(str::to_owned));
        };
        check(None, None, Ok(None));
        check(Some("a/b"), None, Ok(Some("a/b")));
        check(None, Some("x/$(POD)"), Ok(Some("x/p")));
        check(None, Some("$(NO)"), Err("missing value for NO"));
        check(Some("/a"), None, Err("error SubPath `/a` must not be an absolute path"));
        check(Some("a/../.."), None, Err("unable to provision SubPath `a/../..`: must not contain '..'"));
    }
}
