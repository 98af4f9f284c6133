//! Discovery of custom resources.

use super::Definition;
use crate::registry::{Registry, Resource};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The custom resources of a group version, by name.
fn of_version(registry: &Registry, group: &str, version: &str) -> Vec<(Arc<Resource>, Arc<Definition>)> {
    let all = registry.all().into_iter().filter(|r| r.group == group && r.version == version);
    let mut found: Vec<_> = all.filter_map(|r| r.custom.clone().map(|c| (r, c))).collect();
    found.sort_by(|(a, _), (b, _)| a.resource.cmp(&b.resource));
    found
}

/// The groups of custom resources with their versions, the preferred one first.
pub fn groups(registry: &Registry) -> BTreeMap<String, Vec<String>> {
    let mut groups = BTreeMap::<String, Vec<String>>::new();
    for resource in registry.all().iter().filter(|r| r.custom.is_some()) {
        let versions = groups.entry(resource.group.clone()).or_default();
        if !versions.contains(&resource.version) {
            versions.push(resource.version.clone());
        }
    }
    groups.values_mut().for_each(|versions| versions.sort_by(|a, b| compare_versions(a, b)));
    groups
}

/// Stable versions before beta before alpha, higher before lower, others last by name.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (priority(a), priority(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

fn priority(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..digits].parse().ok()?;
    match &rest[digits..] {
        "" => Some((2, major, 0)),
        rest => match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            (Some(minor), _) => Some((1, major, minor.parse().ok()?)),
            (_, Some(minor)) => Some((0, major, minor.parse().ok()?)),
            _ => None,
        },
    }
}

fn with_names(mut out: Value, custom: &Definition) -> Value {
    for (field, list) in [("shortNames", &custom.short_names), ("categories", &custom.categories)] {
        if !list.is_empty() {
            out[field] = json!(list);
        }
    }
    out
}

/// A resource whose definition is being deleted takes no more objects.
fn verbs<'a>(resource: &'a Resource, custom: &Definition) -> Vec<&'a str> {
    let kept = |verb: &&str| !custom.terminating || !matches!(*verb, "patch" | "create" | "update");
    resource.verbs.iter().map(String::as_str).filter(kept).collect()
}

/// What tells clients that objects are stored in another version by now.
pub fn storage_version_hash(group: &str, version: &str, kind: &str) -> String {
    let hash = pki::sha256_hex(format!("{group}/{version}/{kind}").as_bytes());
    let byte = |at: usize| hash.get(2 * at..2 * at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
    STANDARD.encode((0..8).filter_map(byte).collect::<Vec<_>>())
}

/// The entries of an `APIResourceList`.
pub fn resource_list(registry: &Registry, group: &str, version: &str) -> Vec<Value> {
    let mut out = Vec::new();
    for (resource, custom) in of_version(registry, group, version) {
        let mut entry = json!({"name": resource.resource, "singularName": custom.singular,
            "namespaced": resource.namespaced, "kind": resource.kind, "verbs": verbs(&resource, &custom)});
        if let Some(stored) = &custom.served_storage {
            entry["storageVersionHash"] = storage_version_hash(group, stored, &resource.kind).into();
        }
        out.push(with_names(entry, &custom));
        for sub in &resource.subresources {
            let mut entry = json!({"name": format!("{}/{}", resource.resource, sub.subresource), "singularName": "",
                "namespaced": resource.namespaced, "kind": resource.kind, "verbs": sub.verbs});
            if !sub.kind.is_empty() {
                entry["kind"] = sub.kind.into();
                entry["group"] = sub.kind_group.into();
                entry["version"] = sub.kind_version.into();
            }
            out.push(entry);
        }
    }
    out
}

/// The entries of an aggregated discovery version.
pub fn aggregated(registry: &Registry, group: &str, version: &str) -> Vec<Value> {
    let entry = |(resource, custom): (Arc<Resource>, Arc<Definition>)| {
        let kind = json!({"group": group, "version": version, "kind": resource.kind});
        let scope = if resource.namespaced { "Namespaced" } else { "Cluster" };
        let mut entry = json!({"resource": resource.resource, "responseKind": kind, "scope": scope,
            "singularResource": custom.singular, "verbs": verbs(&resource, &custom)});
        let subs = resource.subresources.iter().map(|sub| {
            let shown = match sub.kind {
                "" => kind.clone(),
                name => json!({"group": sub.kind_group, "version": sub.kind_version, "kind": name}),
            };
            json!({"subresource": sub.subresource, "responseKind": shown, "verbs": sub.verbs})
        });
        let subs: Vec<_> = subs.collect();
        if !subs.is_empty() {
            entry["subresources"] = subs.into();
        }
        with_names(entry, &custom)
    };
    of_version(registry, group, version).into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_upstreams() {
        assert_eq!(storage_version_hash("", "v1", "Pod"), "xPOwRZ+Yhw8=");
    }

    #[test]
    fn versions_are_ordered() {
        let mut versions = ["foo1", "v1alpha1", "v10", "v2beta1", "v2", "v1", "v11beta2"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(versions, ["v10", "v2", "v1", "v11beta2", "v2beta1", "v1alpha1", "foo1"]);
    }
}
