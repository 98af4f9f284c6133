//! Warnings about a pod's spec.

use super::defaults::CONTAINER_LISTS;
use crate::core::quantities::quantity;
use crate::field::{Fields, Path};
use crate::names;
use serde_json::Value;

const DEPRECATED_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
];
const DEPRECATED_VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Warnings about a spec in a pod or a template.
pub fn pod_spec(spec: &Value, meta: &Value, path: &Path<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let selector = path.field("nodeSelector");
    for (key, _) in spec.entries("nodeSelector") {
        if let Some((_, text)) = DEPRECATED_LABELS.iter().find(|(k, _)| k == key) {
            out.push(format!("{}: {text}", selector.key(key)));
        }
    }
    topology(&mut out, spec, path);
    for (key, _) in
        meta.entries("annotations").filter(|(k, _)| k.starts_with("seccomp.security.alpha.kubernetes.io/pod"))
    {
        out.push(format!(
            "metadata.annotations[{key}]: non-functional in v1.27+; use the \"seccompProfile\" field instead"
        ));
    }
    volumes(&mut out, spec, path);
    for volume in spec.list("volumes") {
        let empty = |source: &Value| source.as_object().is_none_or(|map| map.values().all(Value::is_null));
        for _ in volume.at("projected").list("sources").iter().filter(|source| empty(source)) {
            out.push(format!("volume {:?} (Projected) has no sources provided", volume.text("name")));
        }
    }
    duplicates(&mut out, spec.list("hostAliases"), "ip", &path.field("hostAliases"));
    duplicates(&mut out, spec.list("imagePullSecrets"), "name", &path.field("imagePullSecrets"));
    for (i, secret) in spec.list("imagePullSecrets").iter().enumerate() {
        if secret.text("name").is_empty() {
            let list = path.field("imagePullSecrets");
            out.push(format!("{}: invalid empty name {:?}", list.index(i), ""));
        }
    }
    for list in CONTAINER_LISTS {
        let list_path = path.field(list);
        for (i, c) in spec.list(list).iter().enumerate() {
            container(&mut out, c, &list_path.index(i));
        }
    }
    fractional(&mut out, spec.at("overhead"), &path.field("overhead"));
    if spec.int("terminationGracePeriodSeconds").is_some_and(|s| s < 0) {
        let path = path.field("terminationGracePeriodSeconds");
        out.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    affinity(&mut out, spec.at("affinity"), &path.field("affinity"));
    let addresses = path.field("dnsConfig.nameservers");
    for (i, address) in spec.at("dnsConfig").texts("nameservers").into_iter().enumerate() {
        out.extend(names::ip_warning(address).map(|text| format!("{}: {text}", addresses.index(i))));
    }
    let aliases = path.field("hostAliases");
    for (i, alias) in spec.list("hostAliases").iter().enumerate() {
        let item = aliases.index(i);
        out.extend(names::ip_warning(alias.text("ip")).map(|text| format!("{}: {text}", item.field("ip"))));
    }
    out
}

/// Terms that select no pod.
fn affinity(out: &mut Vec<String>, affinity: &Value, path: &Path<'_>) {
    let lists = [("requiredDuringSchedulingIgnoredDuringExecution", ""), ("preferredDuringSchedulingIgnoredDuringExecution", "podAffinityTerm")];
    for kind in ["podAffinity", "podAntiAffinity"] {
        let path = path.field(kind);
        for (list, inner) in lists {
            let path = path.field(list);
            for (i, item) in affinity.at(kind).list(list).iter().enumerate() {
                let term = if inner.is_empty() { item } else { item.at(inner) };
                if !term.has("labelSelector") {
                    let item = path.index(i);
                    let term = item.field(inner);
                    out.push(format!("{}: a null labelSelector results in matching no pod", term.field("labelSelector")));
                }
            }
        }
    }
}

fn topology(out: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    let list = path.field("topologySpreadConstraints");
    for (i, constraint) in spec.list("topologySpreadConstraints").iter().enumerate() {
        let path = list.index(i);
        let key = constraint.text("topologyKey");
        if let Some((_, text)) = DEPRECATED_LABELS.iter().find(|(k, _)| *k == key) {
            out.push(format!("{}: {key} is {text}", path.field("topologyKey")));
        }
        if constraint.at("labelSelector").is_null() {
            let path = path.field("labelSelector");
            out.push(format!("{path}: a null labelSelector results in matching no pod"));
        }
    }
}

fn volumes(out: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    let list = path.field("volumes");
    for (i, volume) in spec.list("volumes").iter().enumerate() {
        let item = list.index(i);
        let has = |kind: &str| volume.has(if kind == "storageOS" { "storageos" } else { kind });
        for (kind, text) in DEPRECATED_VOLUMES.iter().filter(|(k, _)| has(k)) {
            out.push(format!("{}: {text}", item.field(kind)));
        }
        for kind in ["secret", "configMap"] {
            duplicates(out, volume.at(kind).list("items"), "key", &item.field(kind).field("items"));
        }
    }
}

fn container(out: &mut Vec<String>, c: &Value, path: &Path<'_>) {
    for list in ["limits", "requests"] {
        fractional(out, c.at("resources").at(list), &path.field("resources").field(list));
    }
    let env = path.field("env");
    let list = c.list("env");
    for (i, var) in list.iter().enumerate() {
        let name = var.text("name");
        if list[..i].iter().any(|v| v.text("name") == name) {
            let text = format!("hides previous definition of {name:?}, which may be dropped when using apply");
            out.push(format!("{}: {text}", env.index(i)));
        }
    }
    ports(out, c, path);
}

fn ports(out: &mut Vec<String>, c: &Value, path: &Path<'_>) {
    let (list, list_path) = (c.list("ports"), path.field("ports"));
    for (i, port) in list.iter().enumerate() {
        if !port.text("hostIP").is_empty() && port.int("hostPort").unwrap_or(0) == 0 {
            let shown = format!(
                "{{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{}}}",
                port.text("name"),
                port.int("containerPort").unwrap_or(0),
                port.text("protocol"),
                port.text("hostIP"),
            );
            out.push(format!("{}: hostIP set without hostPort: {shown}", list_path.index(i)));
        }
        let key = |p: &Value| {
            (p.int("containerPort"), p.text("protocol").to_owned(), p.int("hostPort"), p.text("hostIP").to_owned())
        };
        if let Some(j) = list[..i].iter().position(|p| key(p) == key(port)) {
            let text = format!("duplicate port definition with {}", list_path.index(j));
            out.push(format!("{}: {text}", list_path.index(i)));
        }
    }
}

fn fractional(out: &mut Vec<String>, list: &Value, path: &Path<'_>) {
    for name in ["memory", "ephemeral-storage"] {
        let Some(text) = list.at(name).as_str() else { continue };
        if !quantity(list.at(name)).is_whole() {
            out.push(format!("{}: fractional byte value {text:?} is invalid, must be an integer", path.key(name)));
        }
    }
}

fn duplicates(out: &mut Vec<String>, list: &[Value], field: &str, path: &Path<'_>) {
    for (i, item) in list.iter().enumerate() {
        let key = item.text(field);
        if !key.is_empty() && list[..i].iter().any(|x| x.text(field) == key) {
            out.push(
                format!("{}: duplicate {field} {key:?}", path.index(i))
                    .replace("duplicate name", "duplicate entry with name"),
            );
        }
    }
}
