//! Which sysctls a pod may set: upstream's safe ones, and those the operator allows.

use crate::pod::PodExt;
use api::k8s::core::v1::Pod;

const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The kernel's own spelling: `net/ipv4/conf/eth0.1/x` and `net.ipv4.conf.eth0/1.x` are one.
pub fn normalize(name: &str) -> String {
    let Some(first) = name.find(['.', '/']) else { return name.to_owned() };
    if name.as_bytes()[first] == b'.' {
        return name.to_owned();
    }
    let swap = |c: char| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    name.chars().map(swap).collect()
}

/// The namespace a sysctl belongs to, where the kernel has one for it.
fn namespace(name: &str) -> Option<&'static str> {
    const EXACT: [(&str, &str); 1] = [("kernel.sem", "IPC")];
    const PREFIXES: [(&str, &str); 4] =
        [("kernel.shm", "IPC"), ("kernel.msg", "IPC"), ("fs.mqueue.", "IPC"), ("net.", "Net")];
    let exact = EXACT.iter().find(|(n, _)| *n == name);
    exact.or_else(|| PREFIXES.iter().find(|(p, _)| name.starts_with(p))).map(|(_, ns)| *ns)
}

/// Whether a pod may set its sysctls; the error is the message of `SysctlForbidden`.
pub fn admit(pod: &Pod, unsafe_allowed: &[String]) -> Result<(), String> {
    let sysctls = pod.spec().security_context.as_ref().and_then(|s| s.sysctls.as_deref()).unwrap_or_default();
    for sysctl in sysctls {
        check(pod, &normalize(&sysctl.name), unsafe_allowed).map_err(|why| format!("forbidden sysctl: {why}"))?;
    }
    Ok(())
}

fn check(pod: &Pod, name: &str, unsafe_allowed: &[String]) -> Result<(), String> {
    let shown = crate::format::quote(name);
    let allowed = |pattern: &String| match normalize(pattern).strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => normalize(pattern) == name,
    };
    if !SAFE.contains(&name) && !unsafe_allowed.iter().any(allowed) {
        return Err(format!("{shown} not allowlisted"));
    }
    let spec = pod.spec();
    match namespace(name) {
        Some("IPC") if spec.host_ipc == Some(true) => Err(format!("{shown} not allowed with host IPC enabled")),
        Some("Net") if spec.host_network == Some(true) => Err(format!("{shown} not allowed with host Net enabled")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn safe_and_allowed_ones_pass() {
        let verdict = |name: &str, host_network: bool| {
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [],
                "hostNetwork": host_network, "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}}))
            .expect("pod");
            admit(&pod, &["kernel.msg*".into(), "net.core.somaxconn".into()])
        };
        for good in ["kernel.shm_rmid_forced", "kernel/shm_rmid_forced", "kernel.msgmax", "net.core.somaxconn"] {
            assert_eq!(verdict(good, false), Ok(()), "{good}");
        }
        assert_eq!(verdict("kernel.sem", false), Err("forbidden sysctl: \"kernel.sem\" not allowlisted".into()));
        assert_eq!(
            verdict("net.core.somaxconn", true),
            Err("forbidden sysctl: \"net.core.somaxconn\" not allowed with host Net enabled".into())
        );
        assert_eq!(normalize("net/ipv4/conf/eth0.1/x"), "net.ipv4.conf.eth0/1.x");
    }
}
