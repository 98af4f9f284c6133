//! What an object uses of the resources that quotas can limit.

use super::Amounts;
use crate::admission::limit_ranger::{add, pod_total};
use crate::admission::persistent_volume_claim_resize::class;
use crate::admission::{Attributes, Operation};
use api::Object;
use api::quantity::{Format, Quantity};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Core resources that can be limited by their plain name too.
const PLAIN: [&str; 4] = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];
/// What pods use by these names.
const COMPUTE: [&str; 9] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
/// Of these a quota obliges every container to say how much it needs.
const OBLIGATORY: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

/// A resource, as quotas measure it.
pub enum Kind {
    /// Pods, with what their containers need.
    Pods,
    /// Services, with node ports and load balancers.
    Services,
    /// Claims, with storage, also by class.
    Claims,
    /// Anything else is counted: `count/deployments.apps`, and its plain name where it has one.
    Count(String, Option<&'static str>),
}

impl Kind {
    /// The kind of a write; `None` when the write cannot add to any quota.
    pub fn of(a: &Attributes<'_>, new: &Object, old: Option<&Object>) -> Option<Self> {
        let (group, resource) = (a.resource.group.as_str(), a.resource.resource.as_str());
        let (create, update) = (a.operation == Operation::Create, a.operation == Operation::Update);
        match (group, resource, a.subresource) {
            ("", "pods", "") => {
                let moved = || old.is_some_and(|old| is_terminating(old) != is_terminating(new));
                (create || (update && moved())).then_some(Self::Pods)
            }
            ("", "pods", "resize") => update.then_some(Self::Pods),
            ("", "services", "") => (create || update).then_some(Self::Services),
            ("", "persistentvolumeclaims", "") => (create || update).then_some(Self::Claims),
            ("", "persistentvolumeclaims", "status") => {
                let changed = |field| old.and_then(|o| o.pointer(field)) != new.pointer(field);
                let counts =
                    changed("/status/allocatedResources") || changed("/status/currentVolumeAttributesClassName");
                (update && counts).then_some(Self::Claims)
            }
            ("" | "events.k8s.io", "events", _) => None,
            (_, _, "") if create => {
                let dot = if group.is_empty() { "" } else { "." };
                let plain = PLAIN.into_iter().find(|p| group.is_empty() && *p == resource);
                Some(Self::Count(format!("count/{resource}{dot}{group}"), plain))
            }
            _ => None,
        }
    }

    /// Whether a quota resource of this name is about this kind.
    pub fn measures(&self, name: &str) -> bool {
        match self {
            Self::Pods => {
                matches!(name, "pods" | "count/pods")
                    || COMPUTE.contains(&name)
                    || name.starts_with("hugepages-")
                    || name.starts_with("requests.hugepages-")
                    || name.strip_prefix("requests.").is_some_and(is_extended)
            }
            Self::Services => {
                matches!(name, "services" | "count/services" | "services.nodeports" | "services.loadbalancers")
            }
            Self::Claims => {
                let plain = name.split_once(OF_CLASS).map_or(name, |(_, plain)| plain);
                name == "count/persistentvolumeclaims" || matches!(plain, "persistentvolumeclaims" | "requests.storage")
            }
            Self::Count(counted, plain) => name == counted || Some(name) == *plain,
        }
    }

    /// What an object uses.
    pub fn usage(&self, object: &Object) -> Amounts {
        match self {
            Self::Pods => pod_usage(object),
            Self::Services => service_usage(object),
            Self::Claims => claim_usage(object),
            Self::Count(counted, plain) => {
                std::iter::once(counted.as_str()).chain(*plain).map(|n| (n.to_owned(), units(1))).collect()
            }
        }
    }

    /// What the containers of a pod must say and do not: `limits.memory for: c; requests.cpu for: a,c`.
    pub fn missing(&self, covered: &BTreeSet<&str>, object: &Object) -> Option<String> {
        if !matches!(self, Self::Pods) || has_pod_level_resources(object) {
            return None;
        }
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for container in containers(object) {
            let name = container.get("name").and_then(Value::as_str).unwrap_or("");
            for resource in OBLIGATORY.into_iter().filter(|r| covered.contains(r)) {
                let (list, plain) = resource.split_once('.').unwrap_or(("requests", resource));
                let said = container.get("resources").and_then(|r| r.get(list)?.get(plain)).is_some();
                if !said {
                    missing.entry(resource).or_default().insert(name);
                }
            }
        }
        let texts = missing
            .into_iter()
            .map(|(resource, names)| format!("{resource} for: {}", names.into_iter().collect::<Vec<_>>().join(",")));
        Some(texts.collect::<Vec<_>>().join("; ")).filter(|text| !text.is_empty())
    }
}

fn units(count: i64) -> Quantity {
    Quantity::from_units(count, Format::DecimalSi)
}

/// Whether a pod is to end by itself.
pub fn is_terminating(pod: &Object) -> bool {
    pod.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds >= 0)
}

fn containers(pod: &Object) -> impl Iterator<Item = &Value> {
    let lists = ["/spec/containers", "/spec/initContainers"].into_iter();
    lists.filter_map(|pointer| pod.pointer(pointer)?.as_array()).flatten()
}

fn has_pod_level_resources(pod: &Object) -> bool {
    let lists = ["/spec/resources/requests", "/spec/resources/limits"].into_iter();
    let names = lists.filter_map(|pointer| pod.pointer(pointer)?.as_object()).flat_map(|map| map.keys());
    names.into_iter().any(|name| matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-"))
}

/// Whether a resource is a device plugin's: it has a domain, and not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

fn pod_usage(pod: &Object) -> Amounts {
    let mut out = Amounts::from([("count/pods".to_owned(), units(1))]);
    let phase = pod.pointer("/status/phase").and_then(Value::as_str);
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return out;
    }
    out.insert("pods".into(), units(1));
    let overhead = super::amounts(pod.pointer("/spec/overhead"));
    let (mut requests, mut limits) = (pod_total(pod, "requests"), pod_total(pod, "limits"));
    add(&mut requests, &overhead);
    // Overhead does not limit what was not limited.
    let limited = overhead.into_iter().filter(|(name, _)| limits.contains_key(name)).collect();
    add(&mut limits, &limited);
    for (name, amount) in requests {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            out.insert(name.clone(), amount);
            out.insert(format!("requests.{name}"), amount);
        } else if is_extended(&name) {
            out.insert(format!("requests.{name}"), amount);
        }
    }
    for (name, amount) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            out.insert(format!("limits.{name}"), amount);
        }
    }
    out
}

fn service_usage(service: &Object) -> Amounts {
    let list = service.pointer("/spec/ports").and_then(Value::as_array);
    let ports = list.map_or(0, Vec::len) as i64;
    let kind = service.pointer("/spec/type").and_then(Value::as_str).unwrap_or("");
    let allocates = service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
    let given = list.into_iter().flatten().filter(|p| p.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0);
    let node_ports = match kind {
        "NodePort" => ports,
        "LoadBalancer" if allocates => ports,
        "LoadBalancer" => given.count() as i64,
        _ => 0,
    };
    let balancers = i64::from(kind == "LoadBalancer");
    let table = [
        ("count/services", 1),
        ("services", 1),
        ("services.nodeports", node_ports),
        ("services.loadbalancers", balancers),
    ];
    table.into_iter().map(|(name, count)| (name.to_owned(), units(count))).collect()
}

fn claim_usage(claim: &Object) -> Amounts {
    let storage = |pointer: &str| Quantity::parse(claim.pointer(pointer)?.as_str()?).ok();
    let requested = storage("/spec/resources/requests/storage");
    // While an expansion that failed is being taken back, what is allocated still counts.
    let size = requested.map(|r| r.max(storage("/status/allocatedResources/storage").unwrap_or(r)));
    let class = class(claim);
    let mut out = Amounts::from([("count/persistentvolumeclaims".to_owned(), units(1))]);
    for (name, amount) in [("persistentvolumeclaims", Some(units(1))), ("requests.storage", size)] {
        let Some(amount) = amount else { continue };
        out.insert(name.to_owned(), amount);
        if !class.is_empty() {
            out.insert(format!("{class}{OF_CLASS}{name}"), amount);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(kind: &Kind, object: Value, want: Value) {
        let got: BTreeMap<_, _> = kind.usage(&object).into_iter().map(|(k, v)| (k, v.to_string())).collect();
        assert_eq!(json!(got), want, "{object}");
    }

    #[test]
    fn usage_is_measured() {
        check(
            &Kind::Pods,
            json!({"spec": {"overhead": {"cpu": "100m", "memory": "1Mi"}, "containers": [
                {"resources": {"requests": {"cpu": "1", "a.test/gpu": "2"}, "limits": {"cpu": "2"}}},
                {"resources": {"requests": {"cpu": "500m"}}}]}}),
            json!({"count/pods": "1", "pods": "1", "cpu": "1600m", "requests.cpu": "1600m", "memory": "1Mi",
                "requests.memory": "1Mi", "limits.cpu": "2100m", "requests.a.test/gpu": "2"}),
        );
        check(&Kind::Pods, json!({"status": {"phase": "Failed"}}), json!({"count/pods": "1"}));
        check(
            &Kind::Services,
            json!({"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"nodePort": 1}, {}]}}),
            json!({"count/services": "1", "services": "1", "services.nodeports": "1", "services.loadbalancers": "1"}),
        );
        check(
            &Kind::Claims,
            json!({"spec": {"storageClassName": "g", "resources": {"requests": {"storage": "1Gi"}}}, "status": {"allocatedResources": {"storage": "2Gi"}}}),
            json!({"count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "2Gi",
                "g.storageclass.storage.k8s.io/persistentvolumeclaims": "1", "g.storageclass.storage.k8s.io/requests.storage": "2Gi"}),
        );
        check(
            &Kind::Count("count/secrets".into(), Some("secrets")),
            json!({}),
            json!({"count/secrets": "1", "secrets": "1"}),
        );
    }

    #[test]
    fn names_belong_to_kinds() {
        for (kind, name, want) in [
            (Kind::Pods, "requests.cpu", true),
            (Kind::Pods, "requests.storage", false),
            (Kind::Pods, "requests.a.test/gpu", true),
            (Kind::Pods, "services", false),
            (Kind::Claims, "requests.storage", true),
            (Kind::Claims, "g.storageclass.storage.k8s.io/requests.storage", true),
            (Kind::Count("count/leases.coordination.k8s.io".into(), None), "count/leases.coordination.k8s.io", true),
        ] {
            assert_eq!(kind.measures(name), want, "{name}");
        }
    }

    #[test]
    fn containers_must_say_what_they_need() {
        let check = |pod: Value, want: Option<&str>| {
            let covered = BTreeSet::from(["limits.memory", "pods", "requests.cpu"]);
            assert_eq!(Kind::Pods.missing(&covered, &pod).as_deref(), want, "{pod}");
        };
        check(json!({"spec": {"containers": [{"name": "c"}]}}), Some("limits.memory for: c; requests.cpu for: c"));
        let said = json!({"requests": {"cpu": "1"}, "limits": {"memory": "1"}});
        check(
            json!({"spec": {"containers": [{"name": "c", "resources": said}], "initContainers": [{"name": "b", "resources": {"requests": {"cpu": "1"}}}]}}),
            Some("limits.memory for: b"),
        );
        check(json!({"spec": {"resources": {"requests": {"cpu": "1"}}, "containers": [{"name": "c"}]}}), None);
    }
}
