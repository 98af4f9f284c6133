//! Warnings about pods and their templates.

mod annotations;
mod ports;
mod virtual_paths;

use super::defaults::CONTAINER_LISTS;
use crate::core::{persistent_volume_claim, quantities};
use crate::field::{Fields, Path, repeated};
use crate::names;
use crate::rules::{each, each_of, each_text};
use api::Object;
use serde_json::Value;
use std::fmt::Display;

const DEPRECATED_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
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

/// The warnings about deprecated labels that a node selector's term asks for.
pub fn deprecated_labels(term: &Value, path: &Path<'_>) -> Vec<String> {
    let mut out = Found::default();
    out.labels(term, path);
    out.texts
}

/// What is wrong with a label of nodes, if it is an outdated one.
pub fn deprecated_label(label: &str) -> Option<&'static str> {
    deprecated(DEPRECATED_LABELS, label)
}

/// What is wrong with the kind of a volume, if it is an outdated one.
pub fn deprecated_volume(kind: &str) -> Option<&'static str> {
    deprecated(DEPRECATED_VOLUMES, kind)
}

/// Warnings about a pod.
pub fn pod(pod: &Object) -> Vec<String> {
    let mut out = Found::default();
    out.pod(pod, &Path::TOP, false);
    out.texts
}

/// Warnings about a template.
pub fn template(template: &Value, path: &Path<'_>) -> Vec<String> {
    let mut out = Found::default();
    out.pod(template, path, true);
    out.texts
}

/// Whether warnings about a spec are due: it is new, or it changed.
pub fn due(obj: &Object, old: Option<&Object>) -> bool {
    old.is_none_or(|old| api::meta::generation(old) != api::meta::generation(obj))
}

/// More bytes than any answer carries; from a body of 3 MB there could be thousands of millions of texts.
const ENOUGH: usize = 256 << 10;

/// The warnings found so far.
#[derive(Default)]
struct Found {
    texts: Vec<String>,
    size: usize,
}

impl Found {
    fn add(&mut self, about: impl Display, text: impl Display) {
        if !self.is_enough() {
            self.whole(format!("{about}: {text}"));
        }
    }

    fn whole(&mut self, text: String) {
        if !self.is_enough() {
            self.size += text.len();
            self.texts.push(text);
        }
    }

    fn is_enough(&self) -> bool {
        self.size >= ENOUGH
    }

    fn pod(&mut self, of: &Value, path: &Path<'_>, is_template: bool) {
        let (spec, path_of) = (of.at("spec"), path.field("spec"));
        for part in [node_selector, node_affinity, topology] {
            part(self, spec, &path_of);
        }
        let annotated = annotations::Annotated::new(of, path, is_template);
        annotated.outdated(self);
        for part in [volumes, virtual_paths::overlaps, references, overhead] {
            part(self, spec, &path_of);
        }
        annotated.seccomp_of_pod(self);
        each_of(spec, &CONTAINER_LISTS, &path_of, |c, path| {
            annotated.of_container(self, c);
            amounts(self, c, path);
            environment(self, c, path);
        });
        for part in [ports::definitions, ports::names, grace_period, affinity, addresses] {
            part(self, spec, &path_of);
        }
    }

    /// A label that a field names beside its value.
    fn label(&mut self, key: &str, path: &Path<'_>) {
        if let Some(text) = deprecated(DEPRECATED_LABELS, key) {
            self.add(path, format_args!("{key} is {text}"));
        }
    }

    /// Those that the expressions of a term name.
    fn labels(&mut self, term: &Value, path: &Path<'_>) {
        each(term, "matchExpressions", path, |expression, path| self.label(expression.text("key"), &path.field("key")));
    }

    fn fractional(&mut self, list: &Value, names: &[&str], path: &Path<'_>) {
        for (name, text) in quantities::fractional(list, names) {
            self.add(path.key(name), text);
        }
    }
}

fn deprecated(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

fn node_selector(out: &mut Found, spec: &Value, path: &Path<'_>) {
    let path = path.field("nodeSelector");
    for (key, _) in spec.entries("nodeSelector") {
        deprecated(DEPRECATED_LABELS, key).into_iter().for_each(|text| out.add(path.key(key), text));
    }
}

fn node_affinity(out: &mut Found, spec: &Value, path: &Path<'_>) {
    let (of, path) = (spec.at("affinity").at("nodeAffinity"), path.field("affinity.nodeAffinity"));
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    each(of.at(required), "nodeSelectorTerms", &path.field(required), |term, path| out.labels(term, path));
    each(of, "preferredDuringSchedulingIgnoredDuringExecution", &path, |item, path| {
        each(item.at("preference"), "matchExpressions", &path.field("preference"), |expression, path| {
            out.label(expression.text("key"), &path.field("key"));
            each_text(expression, "values", path, |value, path| {
                for why in names::label_value(value) {
                    out.add(path, format_args!("{value} is invalid, {why}"));
                }
            });
        });
    });
}

fn topology(out: &mut Found, spec: &Value, path: &Path<'_>) {
    each(spec, "topologySpreadConstraints", path, |constraint, path| {
        out.label(constraint.text("topologyKey"), &path.field("topologyKey"));
        no_selector(out, constraint, path);
    });
}

fn volumes(out: &mut Found, spec: &Value, path: &Path<'_>) {
    each(spec, "volumes", path, |volume, path| {
        let has = |kind: &str| volume.has(if kind == "storageOS" { "storageos" } else { kind });
        for (kind, text) in DEPRECATED_VOLUMES.iter().filter(|(k, _)| has(k)) {
            out.add(path.field(kind), text);
        }
        let claim = volume.at("ephemeral").at("volumeClaimTemplate").at("spec");
        let path = path.field("ephemeral.volumeClaimTemplate.spec");
        persistent_volume_claim::spec_warnings(claim, &path).into_iter().for_each(|text| out.whole(text));
    });
}

/// Addresses and secrets given twice, and secrets left out.
fn references(out: &mut Found, spec: &Value, path: &Path<'_>) {
    for (list, field) in [("hostAliases", "ip"), ("imagePullSecrets", "name")] {
        let twice = repeated(spec.list(list).iter().map(|item| item.text(field)));
        let mut twice = twice.into_iter();
        each(spec, list, path, |item, path| {
            if twice.next() == Some(true) {
                out.add(path.field(field), format_args!("duplicate {field} {:?}", item.text(field)));
            }
        });
    }
    each(spec, "imagePullSecrets", path, |secret, path| {
        if secret.text("name").is_empty() {
            out.add(path.field("name"), "invalid empty name \"\"");
        }
    });
}

fn overhead(out: &mut Found, spec: &Value, path: &Path<'_>) {
    out.fractional(spec.at("overhead"), &BYTES, &path.field("overhead"));
}

/// Resources that are counted in bytes.
const BYTES: [&str; 2] = ["memory", "ephemeral-storage"];

fn amounts(out: &mut Found, c: &Value, path: &Path<'_>) {
    for name in BYTES {
        for list in ["limits", "requests"] {
            out.fractional(c.at("resources").at(list), &[name], &path.field("resources").field(list));
        }
    }
}

/// A variable that is set again may be made of its former value, and of nothing else.
fn environment(out: &mut Found, c: &Value, path: &Path<'_>) {
    let twice = repeated(c.list("env").iter().map(|var| var.text("name")));
    let mut twice = twice.into_iter();
    each(c, "env", path, |var, path| {
        let (name, value) = (var.text("name"), var.text("value"));
        let former = format!("$({name})");
        let extends = !var.has("valueFrom") && value != former && value.contains(&former);
        if twice.next() == Some(true) && !extends {
            out.add(path, format_args!("hides previous definition of {name:?}, which may be dropped when using apply"));
        }
    });
}

fn grace_period(out: &mut Found, spec: &Value, path: &Path<'_>) {
    if spec.int("terminationGracePeriodSeconds").is_some_and(|s| s < 0) {
        let path = path.field("terminationGracePeriodSeconds");
        out.add(path, "must be >= 0; negative values are invalid and will be treated as 1");
    }
}

/// Terms that select no pod.
fn affinity(out: &mut Found, spec: &Value, path: &Path<'_>) {
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

fn no_selector(out: &mut Found, of: &Value, path: &Path<'_>) {
    if !of.has("labelSelector") {
        out.add(path.field("labelSelector"), "a null labelSelector results in matching no pod");
    }
}

fn addresses(out: &mut Found, spec: &Value, path: &Path<'_>) {
    let mut odd = |text: &str, path: &Path<'_>| names::ip_warning(text).into_iter().for_each(|why| out.add(path, why));
    each_text(spec.at("dnsConfig"), "nameservers", &path.field("dnsConfig"), &mut odd);
    each(spec, "hostAliases", path, |alias, path| odd(alias.text("ip"), &path.field("ip")));
}

#[cfg(test)]
mod tests;
