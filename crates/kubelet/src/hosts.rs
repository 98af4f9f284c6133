//! Host name of a pod, and its `/etc/hosts`.

use crate::context::Context;
use crate::pod::PodExt;
use api::k8s::core::v1::{HostAlias, Pod};
use std::fmt::Write;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HEADER_HOST_NETWORK: &str = "# Kubernetes-managed hosts file (host network).\n";
const MAX_HOSTNAME: usize = 63;

/// The host name and the domain (`<subdomain>.<namespace>.svc.<cluster domain>`, or empty).
pub fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pod.spec();
    if let Some(name) = spec.hostname_override.as_deref().filter(|n| !n.is_empty()) {
        return (name.to_owned(), String::new());
    }
    let wanted = spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or_else(|| pod.name());
    let cut = wanted.get(..MAX_HOSTNAME).unwrap_or(wanted);
    let hostname = cut.trim_end_matches(['-', '.']).to_owned();
    let domain = match spec.subdomain.as_deref() {
        Some(subdomain) if !subdomain.is_empty() => format!("{subdomain}.{}.svc.{cluster_domain}", pod.namespace()),
        _ => String::new(),
    };
    (hostname, domain)
}

/// Writes the pod's hosts file and shows it to a container.
pub fn mount(ctx: &Context, pod: &Pod, pod_ips: &[IpAddr]) -> Result<cri::Mount, String> {
    let path = ctx.config.pod_dir(pod.uid()).join("etc-hosts");
    let (hostname, domain) = hostname_and_domain(pod, &ctx.config.cluster_domain);
    let node_file =
        if pod.host_network() { std::fs::read_to_string("/etc/hosts").unwrap_or_default() } else { String::new() };
    let text = content(pod, pod_ips, &hostname, &domain, &node_file);
    let written = std::fs::write(&path, text);
    written
        .and_then(|()| std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)))
        .map_err(|e| e.to_string())?;
    Ok(cri::Mount {
        container_path: "/etc/hosts".into(),
        host_path: path.display().to_string(),
        ..cri::Mount::default()
    })
}

/// The name the kernel gets: the host name, or the whole name with `setHostnameAsFQDN`. Errors when that is too long.
pub fn kernel_hostname(pod: &Pod, hostname: &str, domain: &str) -> Result<String, String> {
    if !pod.spec().set_hostname_as_fqdn.unwrap_or(false) || domain.is_empty() {
        return Ok(hostname.to_owned());
    }
    let name = format!("{hostname}.{domain}");
    if name.len() > 64 {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long (64 characters is the max, {} characters requested)",
            name.len()
        ));
    }
    Ok(name)
}

/// Content of the managed file.
pub fn content(pod: &Pod, ips: &[IpAddr], hostname: &str, domain: &str, node_file: &str) -> String {
    let mut out = String::new();
    if pod.host_network() {
        out.push_str(HEADER_HOST_NETWORK);
        out.push_str(node_file);
    } else {
        out.push_str(HEADER);
        out.push_str("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        out.push_str(
            "fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        for ip in ips {
            let _ = match domain {
                "" => writeln!(out, "{ip}\t{hostname}"),
                _ => writeln!(out, "{ip}\t{hostname}.{domain}\t{hostname}"),
            };
        }
    }
    aliases(&mut out, pod.spec().host_aliases.as_deref().unwrap_or_default());
    out
}

fn aliases(out: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    out.push_str("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let _ = writeln!(out, "{}\t{}", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn managed_file_lists_pod_and_aliases() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [], "subdomain": "s", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}}))
        .expect("pod");
        let (hostname, domain) = hostname_and_domain(&pod, "cluster.local");
        assert_eq!((hostname.as_str(), domain.as_str()), ("p", "s.n.svc.cluster.local"));
        let text = content(&pod, &["10.0.0.1".parse().expect("ip")], &hostname, &domain, "");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(
            text.ends_with("10.0.0.1\tp.s.n.svc.cluster.local\tp\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n")
        );
    }

    #[test]
    fn long_names_are_cut() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "x".repeat(62) + "-yy"}, "spec": {"containers": []}}))
                .expect("pod");
        assert_eq!(hostname_and_domain(&pod, "c").0, "x".repeat(62));
    }
}
