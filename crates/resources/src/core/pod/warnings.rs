//! Warnings about a pod's spec.

use super::defaults::CONTAINER_LISTS;
use crate::core::quantities::quantity;
use crate::field::{Fields, Path, repeated};
use crate::names;
use crate::rules::{each, each_of, each_text};
use api::Object;
use serde_json::Value;
use std::collections::HashMap;

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

/// Whose host names the names of workloads become part of.
pub const OF_PODS: &str = "Pod names and hostnames";
const ALPHA_SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";

/// The warning about a new object's name that becomes part of host names (`of`: whose).
pub fn host_name(obj: &Object, old: Option<&Object>, of: &str) -> Option<String> {
    let wrong = names::label(api::meta::name(obj));
    (old.is_none() && !wrong.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {of}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            wrong.join(" ")
        )
    })
}

/// Warnings about a spec in a pod or a template.
pub fn pod_spec(spec: &Value, meta: &Value, path: &Path<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for part in [node_selector, topology] {
        part(&mut out, spec, path);
    }
    let outdated = meta.entries("annotations").filter(|(key, _)| key.starts_with(ALPHA_SECCOMP));
    let text = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    out.extend(outdated.map(|(key, _)| format!("metadata.annotations[{key}]: {text}")));
    for part in [volumes, projections, references, containers, overhead, grace_period, affinity, addresses] {
        part(&mut out, spec, path);
    }
    out
}

fn node_selector(out: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    let path = path.field("nodeSelector");
    for (key, _) in spec.entries("nodeSelector") {
        out.extend(deprecated(DEPRECATED_LABELS, key).map(|text| format!("{}: {text}", path.key(key))));
    }
}

fn deprecated(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

fn projections(out: &mut Vec<String>, spec: &Value, _path: &Path<'_>) {
    let empty = |source: &&Value| source.as_object().is_none_or(|map| map.values().all(Value::is_null));
    for volume in spec.list("volumes") {
        let none = format!("volume {:?} (Projected) has no sources provided", volume.text("name"));
        out.extend(volume.at("projected").list("sources").iter().filter(empty).map(|_| none.clone()));
    }
}

fn references(out: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    duplicates(out, spec.list("hostAliases"), "ip", &path.field("hostAliases"));
    pull_secrets(out, spec.list("imagePullSecrets"), &path.field("imagePullSecrets"));
}

fn containers(out: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    each_of(spec, &CONTAINER_LISTS, path, |c, path| container(out, c, path));
}

fn overhead(out: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    fractional(out, spec.at("overhead"), &path.field("overhead"));
}

fn grace_period(out: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    if spec.int("terminationGracePeriodSeconds").is_some_and(|s| s < 0) {
        let path = path.field("terminationGracePeriodSeconds");
        out.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
}

fn addresses(out: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    let mut odd = |text: &str, path: &Path<'_>| out.extend(names::ip_warning(text).map(|why| format!("{path}: {why}")));
    each_text(spec.at("dnsConfig"), "nameservers", &path.field("dnsConfig"), &mut odd);
    each(spec, "hostAliases", path, |alias, path| odd(alias.text("ip"), &path.field("ip")));
}

/// Terms that select no pod.
fn affinity(out: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    let lists = [
        ("requiredDuringSchedulingIgnoredDuringExecution", ""),
        ("preferredDuringSchedulingIgnoredDuringExecution", "podAffinityTerm"),
    ];
    let path = path.field("affinity");
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (list, inner) in lists {
            each(spec.at("affinity").at(kind), list, &path.field(kind), |item, path| {
                let term = if inner.is_empty() { item } else { item.at(inner) };
                no_selector(out, term, &path.field(inner));
            });
        }
    }
}

fn no_selector(out: &mut Vec<String>, of: &Value, path: &Path<'_>) {
    if !of.has("labelSelector") {
        out.push(format!("{}: a null labelSelector results in matching no pod", path.field("labelSelector")));
    }
}

fn topology(out: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    each(spec, "topologySpreadConstraints", path, |constraint, path| {
        let key = constraint.text("topologyKey");
        let text = deprecated(DEPRECATED_LABELS, key);
        out.extend(text.map(|text| format!("{}: {key} is {text}", path.field("topologyKey"))));
        no_selector(out, constraint, path);
    });
}

fn volumes(out: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    each(spec, "volumes", path, |volume, path| {
        let has = |kind: &str| volume.has(if kind == "storageOS" { "storageos" } else { kind });
        for (kind, text) in DEPRECATED_VOLUMES.iter().filter(|(k, _)| has(k)) {
            out.push(format!("{}: {text}", path.field(kind)));
        }
        for kind in ["secret", "configMap"] {
            duplicates(out, volume.at(kind).list("items"), "key", &path.field(kind).field("items"));
        }
    });
}

fn container(out: &mut Vec<String>, c: &Value, path: &Path<'_>) {
    for list in ["limits", "requests"] {
        fractional(out, c.at("resources").at(list), &path.field("resources").field(list));
    }
    let env = path.field("env");
    let list = c.list("env");
    let twice = repeated(list.iter().map(|var| var.text("name")));
    for (i, var) in list.iter().enumerate() {
        let name = var.text("name");
        if twice[i] {
            let text = format!("hides previous definition of {name:?}, which may be dropped when using apply");
            out.push(format!("{}: {text}", env.index(i)));
        }
    }
    ports(out, c, path);
}

fn ports(out: &mut Vec<String>, c: &Value, path: &Path<'_>) {
    let (list, list_path) = (c.list("ports"), path.field("ports"));
    let mut first = HashMap::new();
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
        let key = (port.int("containerPort"), port.text("protocol"), port.int("hostPort"), port.text("hostIP"));
        let j = *first.entry(key).or_insert(i);
        if j < i {
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

/// Names given twice, then names left out.
fn pull_secrets(out: &mut Vec<String>, list: &[Value], path: &Path<'_>) {
    let twice = repeated(list.iter().map(|secret| secret.text("name")));
    for (i, secret) in list.iter().enumerate().filter(|(i, _)| twice[*i]) {
        out.push(format!("{}: duplicate name {:?}", path.index(i).field("name"), secret.text("name")));
    }
    for (i, _) in list.iter().enumerate().filter(|(_, secret)| secret.text("name").is_empty()) {
        out.push(format!("{}: invalid empty name \"\"", path.index(i).field("name")));
    }
}

fn duplicates(out: &mut Vec<String>, list: &[Value], field: &str, path: &Path<'_>) {
    let twice = repeated(list.iter().map(|item| item.text(field)));
    for (i, item) in list.iter().enumerate() {
        let key = item.text(field);
        if !key.is_empty() && twice[i] {
            out.push(format!("{}: duplicate {field} {key:?}", path.index(i)));
        }
    }
}
