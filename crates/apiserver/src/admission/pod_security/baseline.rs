//! The checks of the baseline level.

use super::checks::Finding;
use super::view::{View, containers, name, plural, quoted, setters, text, texts};
use serde_json::Value;
use std::collections::BTreeSet;

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Sysctls of a pod's own, and the minor version that began to allow them.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn annotations<'a>(view: &View<'a>) -> impl Iterator<Item = (&'a String, &'a str)> {
    let map = view.object.pointer("/metadata/annotations").and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(k, v)| Some((k, v.as_str()?)))
}

/// `appArmorProfile`
pub fn app_armor_profile(view: &View<'_>) -> Option<Finding> {
    let forbidden = |context: &Value| {
        let profile = context.get("appArmorProfile").filter(|p| p.is_object())?;
        Some(text(profile, "type").to_owned()).filter(|t| !matches!(t.as_str(), "RuntimeDefault" | "Localhost"))
    };
    let pod = forbidden(view.pod(""));
    let bad = view.containers_where(|c| forbidden(c).is_some());
    let of_containers = view.containers.iter().filter_map(|c| forbidden(c.get("securityContext")?));
    let values: BTreeSet<String> = pod.iter().cloned().chain(of_containers).collect();
    let mut values: Vec<String> = values.into_iter().collect();
    let fine = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
    let annotated = annotations(view).filter(|(k, v)| k.starts_with(APP_ARMOR) && !fine(v));
    let mut annotated: Vec<_> = annotated.map(|(k, v)| format!("{k}={v:?}")).collect();
    annotated.sort();
    let mut who: Vec<String> = setters(pod.is_some(), &bad).into_iter().collect();
    if !annotated.is_empty() {
        who.push(plural("annotation", annotated.len()));
        values.extend(annotated);
    }
    if who.is_empty() {
        return None;
    }
    let detail = format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(&values));
    Finding::new(plural("forbidden AppArmor profile", values.len()), detail)
}

/// `capabilities_baseline`
pub fn capabilities(view: &View<'_>) -> Option<Finding> {
    let added = |context: &Value| -> Vec<String> {
        let added = context.get("capabilities").into_iter().flat_map(|c| texts(c, "add"));
        added.filter(|c| !CAPABILITIES.contains(c)).map(str::to_owned).collect()
    };
    let bad = view.containers_where(|c| !added(c).is_empty());
    let values: BTreeSet<_> = view.containers.iter().filter_map(|c| c.get("securityContext")).flat_map(added).collect();
    if bad.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not include {} in securityContext.capabilities.add", containers(&bad), quoted(&values));
    Finding::new("non-default capabilities", detail)
}

/// `hostNamespaces`
pub fn host_namespaces(view: &View<'_>) -> Option<Finding> {
    let set =
        ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|f| view.spec.get(f) == Some(&Value::Bool(true)));
    let set: Vec<_> = set.map(|f| format!("{f}=true")).collect();
    if set.is_empty() { None } else { Finding::new("host namespaces", set.join(", ")) }
}

/// `hostPathVolumes`
pub fn host_path_volumes(view: &View<'_>) -> Option<Finding> {
    let bad = view.list("volumes").iter().filter(|v| v.get("hostPath").is_some_and(Value::is_object));
    let bad: Vec<_> = bad.map(name).collect();
    if bad.is_empty() {
        return None;
    }
    Finding::new("hostPath volumes", format!("{} {}", plural("volume", bad.len()), quoted(&bad)))
}

/// `hostPorts`
pub fn host_ports(view: &View<'_>) -> Option<Finding> {
    let ports = |container: &Value| -> Vec<String> {
        let list = container.get("ports").and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|p| p.get("hostPort")?.as_i64()).filter(|p| *p != 0).map(|p| p.to_string()).collect()
    };
    let bad: Vec<_> = view.containers.iter().copied().filter(|c| !ports(c).is_empty()).map(name).collect();
    let values: BTreeSet<_> = view.containers.iter().copied().flat_map(ports).collect();
    if bad.is_empty() {
        return None;
    }
    let list = values.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    Finding::new(
        "hostPort",
        format!("{} {} {} {list}", containers(&bad), uses(bad.len()), plural("hostPort", values.len())),
    )
}

/// `uses` or `use`, for so many.
pub fn uses(count: usize) -> &'static str {
    if count == 1 { "uses" } else { "use" }
}

/// `hostProbesAndHostLifecycle`
pub fn host_probes(view: &View<'_>) -> Option<Finding> {
    const HANDLERS: [&str; 5] =
        ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    let hosts = |container: &Value| -> Vec<String> {
        let handlers = HANDLERS.iter().filter_map(|pointer| container.pointer(pointer));
        let actions = handlers.flat_map(|h| ["httpGet", "tcpSocket"].map(|action| h.get(action)));
        actions.flatten().map(|a| text(a, "host").to_owned()).filter(|h| !h.is_empty()).collect()
    };
    let bad: BTreeSet<_> = view.containers.iter().copied().filter(|c| !hosts(c).is_empty()).map(name).collect();
    let values: BTreeSet<_> = view.containers.iter().copied().flat_map(hosts).collect();
    if values.is_empty() {
        return None;
    }
    let bad: Vec<_> = bad.into_iter().collect();
    let what = plural("probe or lifecycle host", values.len());
    let detail = format!("{} {} {what} {}", containers(&bad), uses(bad.len()), quoted(&values));
    Finding::new("probe or lifecycle host", detail)
}

/// `privileged`
pub fn privileged(view: &View<'_>) -> Option<Finding> {
    let bad = view.containers_where(|c| c.get("privileged") == Some(&Value::Bool(true)));
    if bad.is_empty() {
        return None;
    }
    Finding::new("privileged", format!("{} must not set securityContext.privileged=true", containers(&bad)))
}

/// `procMount`
pub fn proc_mount(view: &View<'_>) -> Option<Finding> {
    if view.has_user_namespace() { None } else { any_proc_mount(view) }
}

/// A `procMount` other than the default one.
pub fn any_proc_mount(view: &View<'_>) -> Option<Finding> {
    let value = |c: &Value| c.get("procMount").and_then(Value::as_str).filter(|p| *p != "Default").map(str::to_owned);
    let bad = view.containers_where(|c| value(c).is_some());
    let values: BTreeSet<_> = view.containers.iter().filter_map(|c| value(c.get("securityContext")?)).collect();
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must not set securityContext.procMount to {}", containers(&bad), quoted(&values));
    Finding::new("procMount", detail)
}

/// `seLinuxOptions`
pub fn se_linux_options(view: &View<'_>) -> Option<Finding> {
    let known = |t: &str| {
        matches!(t, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (t == "container_engine_t" && view.minor >= 31)
    };
    let options = |c: &Value| c.get("seLinuxOptions").cloned().unwrap_or_default();
    let bad = |c: &Value| {
        let options = options(c);
        !known(text(&options, "type")) || !text(&options, "user").is_empty() || !text(&options, "role").is_empty()
    };
    let who = setters(bad(view.pod("")), &view.containers_where(bad))?;
    let contexts = view.containers.iter().filter_map(|c| c.get("securityContext"));
    let all: Vec<Value> = std::iter::once(view.pod("")).chain(contexts).map(options).collect();
    let types: BTreeSet<_> = all.iter().map(|o| text(o, "type")).filter(|t| !known(t)).collect();
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", types.len()), quoted(&types)));
    }
    for field in ["user", "role"] {
        if all.iter().any(|o| !text(o, field).is_empty()) {
            what.push(format!("{field} may not be set"));
        }
    }
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "));
    Finding::new("seLinuxOptions", detail)
}

/// `seccompProfile_baseline`
pub fn seccomp_profile(view: &View<'_>) -> Option<Finding> {
    if view.minor < 19 { seccomp_annotations(view) } else { unconfined(view) }
}

fn seccomp_annotations(view: &View<'_>) -> Option<Finding> {
    let fine = |v: &str| matches!(v, "runtime/default" | "docker/default") || v.starts_with("localhost/");
    let names: BTreeSet<_> = view.containers.iter().map(|c| format!("{SECCOMP_CONTAINER}{}", name(c))).collect();
    let bad = annotations(view).filter(|(k, v)| (*k == SECCOMP_POD || names.contains(*k)) && !fine(v));
    let bad: BTreeSet<_> = bad.map(|(k, v)| format!("{k}={v:?}")).collect();
    if bad.is_empty() {
        return None;
    }
    let list = bad.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    Finding::new("seccompProfile", format!("forbidden {} {list}", plural("annotation", bad.len())))
}

/// A seccomp profile that is set to neither the runtime's nor a local one.
pub fn unconfined(view: &View<'_>) -> Option<Finding> {
    let value = |c: &Value| {
        let profile = c.get("seccompProfile").filter(|p| p.is_object())?;
        Some(text(profile, "type").to_owned()).filter(|t| !matches!(t.as_str(), "RuntimeDefault" | "Localhost"))
    };
    let pod = value(view.pod(""));
    let who = setters(pod.is_some(), &view.containers_where(|c| value(c).is_some()))?;
    let of_containers = view.containers.iter().filter_map(|c| value(c.get("securityContext")?));
    let values: BTreeSet<_> = pod.into_iter().chain(of_containers).collect();
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&values));
    Finding::new("seccompProfile", detail)
}

/// `sysctls`
pub fn sysctls(view: &View<'_>) -> Option<Finding> {
    let set = view.pod("/sysctls").as_array().into_iter().flatten().map(|s| text(s, "name"));
    let allowed = |name: &str| SYSCTLS.iter().any(|(n, since)| *n == name && view.minor >= *since);
    let bad: Vec<_> = set.filter(|name| !allowed(name)).collect();
    if bad.is_empty() { None } else { Finding::new("forbidden sysctls", bad.join(", ")) }
}

/// `windowsHostProcess`
pub fn windows_host_process(view: &View<'_>) -> Option<Finding> {
    let set = |c: &Value| c.pointer("/windowsOptions/hostProcess") == Some(&Value::Bool(true));
    let who = setters(set(view.pod("")), &view.containers_where(set))?;
    Finding::new("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}
