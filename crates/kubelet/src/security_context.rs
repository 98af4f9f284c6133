//! The security settings of a container: its own, then the pod's, then the image's.

use crate::config::Config;
use crate::format;
use crate::pod::PodExt;
use api::k8s::core::v1::{Capabilities, Container, Pod, PodSecurityContext, SecurityContext};
use cri::{
    Image, LinuxContainerSecurityContext, NamespaceMode, NamespaceOption, SeccompProfile, SupplementalGroupsPolicy,
};

/// Namespaces of a pod's sandbox and containers.
pub fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = pod.spec();
    let node_or =
        |node: Option<bool>, other: NamespaceMode| if node.unwrap_or(false) { NamespaceMode::Node } else { other };
    let pid = if spec.share_process_namespace.unwrap_or(false) { NamespaceMode::Pod } else { NamespaceMode::Container };
    NamespaceOption {
        network: node_or(spec.host_network, NamespaceMode::Pod),
        pid: node_or(spec.host_pid, pid),
        ipc: node_or(spec.host_ipc, NamespaceMode::Pod),
        userns: None,
    }
}

/// The settings of a container; the error is the message of `CreateContainerConfigError`.
pub fn container(
    pod: &Pod,
    container: &Container,
    image: &Image,
    config: &Config,
) -> Result<LinuxContainerSecurityContext, String> {
    let of_pod = pod.spec().security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(of_pod.run_as_user);
    if own.run_as_non_root.or(of_pod.run_as_non_root).unwrap_or(false) {
        verify_non_root(pod, container, image, run_as_user)?;
    }
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let (add_capabilities, drop_capabilities) = capability_names(&capabilities);
    let privileged = own.privileged.unwrap_or(false);
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let image_user = if run_as_user.is_none() { image.username.clone() } else { String::new() };
    Ok(LinuxContainerSecurityContext {
        add_capabilities,
        drop_capabilities,
        privileged,
        namespaces: namespaces(pod),
        target_id: String::new(),
        run_as_user: run_as_user.or(image.uid),
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        run_as_username: image_user,
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: of_pod
            .fs_group
            .into_iter()
            .chain(of_pod.supplemental_groups.clone().unwrap_or_default())
            .collect(),
        supplemental_groups_policy: match of_pod.supplemental_groups_policy.as_deref() {
            Some("Strict") => SupplementalGroupsPolicy::Strict,
            _ => SupplementalGroupsPolicy::Merge,
        },
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: unmasked.then(Vec::new),
        readonly_paths: unmasked.then(Vec::new),
        seccomp: seccomp(&own, &of_pod, privileged, config)?,
        apparmor: apparmor(&own, &of_pod),
    })
}

/// Whether the kernel has AppArmor, switched on.
pub fn has_app_armor() -> bool {
    std::path::Path::new("/sys/kernel/security/apparmor").exists()
        && std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.starts_with('Y'))
}

fn capability_names(capabilities: &Capabilities) -> (Vec<String>, Vec<String>) {
    let names = |list: &Option<Vec<String>>| {
        let upper = list.iter().flatten().map(|c| c.to_uppercase());
        upper.map(|c| c.strip_prefix("CAP_").map(str::to_owned).unwrap_or(c)).collect()
    };
    (names(&capabilities.add), names(&capabilities.drop))
}

fn verify_non_root(pod: &Pod, container: &Container, image: &Image, user: Option<i64>) -> Result<(), String> {
    let whose = format!("(pod: {}, container: {})", format::quote(&format::pod(pod)), container.name);
    match (user, image.uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {whose}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!("container has runAsNonRoot and image will run as root {whose}")),
        (None, Some(_)) => Ok(()),
        (None, None) if !image.username.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {whose}",
            image.username
        )),
        // An image that names no user runs as root.
        (None, None) => Err(format!("container has runAsNonRoot and image will run as root {whose}")),
    }
}

fn seccomp(
    own: &SecurityContext,
    of_pod: &PodSecurityContext,
    privileged: bool,
    config: &Config,
) -> Result<SeccompProfile, String> {
    let profile = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    match profile.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())) {
        _ if privileged => Ok(SeccompProfile::Unconfined),
        None if config.settings.seccomp_default => Ok(SeccompProfile::RuntimeDefault),
        None | Some(("Unconfined", _)) => Ok(SeccompProfile::Unconfined),
        Some(("RuntimeDefault", _)) => Ok(SeccompProfile::RuntimeDefault),
        Some(("Localhost", Some(name))) if !name.is_empty() => {
            Ok(SeccompProfile::Localhost(config.root_dir.join("seccomp").join(name).display().to_string()))
        }
        Some(("Localhost", _)) => Err("localhostProfile must be set if seccompProfile type is Localhost.".into()),
        Some((other, _)) => Err(format!("unknown seccomp profile type {}", format::quote(other))),
    }
}

fn apparmor(own: &SecurityContext, of_pod: &PodSecurityContext) -> String {
    let profile = own.app_armor_profile.as_ref().or(of_pod.app_armor_profile.as_ref());
    match profile.map(|p| (p.type_.as_str(), p.localhost_profile.clone())) {
        Some(("Localhost", name)) => name.unwrap_or_default(),
        Some(("Unconfined", _)) => "unconfined".into(),
        Some(("RuntimeDefault", _)) => "runtime/default".into(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(security: Value, uid: Option<i64>, username: &str, expect: Result<Option<i64>, &str>) {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c", "securityContext": security}]}}))
        .expect("pod");
        let image = Image { uid, username: username.into(), ..Image::default() };
        let user = pod.spec().containers[0].security_context.as_ref().and_then(|s| s.run_as_user);
        let non_root = pod.spec().containers[0].security_context.as_ref().and_then(|s| s.run_as_non_root).unwrap_or(true);
        let verdict = if non_root { verify_non_root(&pod, &pod.spec().containers[0], &image, user) } else { Ok(()) };
        assert_eq!(verdict.map(|()| user.or(uid)), expect.map_err(str::to_owned));
    }

    #[test]
    fn non_root_is_verified() {
        check(json!({"runAsUser": 5}), Some(0), "", Ok(Some(5)));
        check(
            json!({"runAsUser": 0}),
            None,
            "",
            Err("container's runAsUser breaks non-root policy (pod: \"p_n(u)\", container: c)"),
        );
        check(
            json!({}),
            Some(0),
            "",
            Err("container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)"),
        );
        check(
            json!({}),
            None,
            "web",
            Err(
                "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root (pod: \"p_n(u)\", container: c)",
            ),
        );
        check(json!({"runAsNonRoot": false}), Some(0), "", Ok(Some(0)));
    }
}
