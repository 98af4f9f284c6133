//! The flow schemas and priority levels that every cluster has.

use super::spec::{FlowSchema, PriorityLevel};
use resources::flowcontrol::mandatory as fixed;
use serde_json::{Value, json};

/// Whether the objects' specs are kept as they are here.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Group of the objects.
pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// An object every cluster has.
pub struct Standard {
    /// `flowschemas` or `prioritylevelconfigurations`.
    pub resource: &'static str,
    /// Name.
    pub name: &'static str,
    /// Whether administrators cannot change it.
    pub mandatory: bool,
    /// Spec, with the defaults of the API filled in.
    pub spec: Value,
}

const SCHEMAS: &str = "flowschemas";
const LEVELS: &str = "prioritylevelconfigurations";

/// Limited priority levels with queues: name, shares, lendable percent, queues, hand size.
const QUEUED: [(&str, u32, u32, u32, u32); 6] = [
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];

/// All of them: the suggested first, as upstream creates them.
pub fn all() -> Vec<Standard> {
    let suggested = |resource, name, spec| Standard { resource, name, mandatory: false, spec };
    let mandatory = |resource, name, spec| Standard { resource, name, mandatory: true, spec };
    let levels = QUEUED.map(|row| suggested(LEVELS, row.0, queued(row)));
    let mut all: Vec<Standard> = levels.into();
    all.extend(suggested_schemas().into_iter().map(|(name, spec)| suggested(SCHEMAS, name, spec)));
    for (resource, spec) in [(LEVELS, fixed::level as fn(&str) -> _), (SCHEMAS, fixed::schema)] {
        all.extend(fixed::NAMES.into_iter().filter_map(|name| Some(mandatory(resource, name, spec(name)?))));
    }
    all
}

/// The levels that exist even when their objects do not.
pub fn mandatory_levels() -> Vec<PriorityLevel> {
    mandatory(LEVELS)
}

/// The schemas that exist even when their objects do not.
pub fn mandatory_schemas() -> Vec<FlowSchema> {
    mandatory(SCHEMAS)
}

fn mandatory<T: serde::de::DeserializeOwned>(resource: &str) -> Vec<T> {
    let rows = all().into_iter().filter(|d| d.mandatory && d.resource == resource);
    rows.filter_map(|d| serde_json::from_value(json!({"metadata": {"name": d.name}, "spec": d.spec})).ok()).collect()
}

fn queued((_, shares, lendable, queues, hand_size): (&str, u32, u32, u32, u32)) -> Value {
    json!({"type": "Limited", "limited": {"nominalConcurrencyShares": shares, "lendablePercent": lendable,
        "limitResponse": {"type": "Queue",
            "queuing": {"queues": queues, "handSize": hand_size, "queueLengthLimit": 50}}}})
}

/// What of its subjects' requests a schema matches: resource rules (verbs, groups, resources, cluster scope), and
/// paths with the verb for them.
struct Matches {
    resources: &'static [(&'static [&'static str], &'static str, &'static [&'static str], bool)],
    paths: &'static [(&'static str, &'static [&'static str])],
}

const EVERYTHING: Matches = Matches { resources: &[(&["*"], "*", &["*"], true)], paths: &[("*", &["*"])] };
const PROBES: Matches = Matches { resources: &[], paths: &[("get", &["/healthz", "/readyz", "/livez"])] };
const ELECTION: Matches =
    Matches { resources: &[(&["get", "create", "update"], "coordination.k8s.io", &["leases"], false)], paths: &[] };
const NODE_HEALTH: Matches = Matches {
    resources: &[(&["*"], "", &["nodes", "nodes/status"], true), (&["*"], "coordination.k8s.io", &["leases"], false)],
    paths: &[],
};

fn suggested_schemas() -> Vec<(&'static str, Value)> {
    let (manager, scheduler) = (user("system:kube-controller-manager"), user("system:kube-scheduler"));
    let nodes = || [group("system:nodes")];
    vec![
        ("system-nodes", schema("system", 500, "ByUser", &nodes(), EVERYTHING)),
        ("system-node-high", schema("node-high", 400, "ByUser", &nodes(), NODE_HEALTH)),
        ("probes", schema("exempt", 2, "", &everyone(), PROBES)),
        (
            "system-leader-election",
            schema(
                "leader-election",
                100,
                "ByUser",
                &[manager.clone(), scheduler.clone(), system_accounts()],
                ELECTION,
            ),
        ),
        ("kube-controller-manager", schema("workload-high", 800, "ByNamespace", &[manager], EVERYTHING)),
        ("kube-scheduler", schema("workload-high", 800, "ByNamespace", &[scheduler], EVERYTHING)),
        ("kube-system-service-accounts", schema("workload-high", 900, "ByNamespace", &[system_accounts()], EVERYTHING)),
        ("service-accounts", schema("workload-low", 9000, "ByUser", &[group("system:serviceaccounts")], EVERYTHING)),
        ("global-default", schema("global-default", 9900, "ByUser", &everyone(), EVERYTHING)),
    ]
}

fn schema(level: &str, precedence: u32, distinguisher: &str, subjects: &[Value], matches: Matches) -> Value {
    let mut rules = json!({"subjects": subjects});
    let resources = matches.resources.iter().map(|(verbs, group, resources, cluster)| {
        let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
        if *cluster {
            rule["clusterScope"] = true.into();
        }
        rule
    });
    let resources: Vec<_> = resources.collect();
    if !resources.is_empty() {
        rules["resourceRules"] = resources.into();
    }
    let paths: Vec<_> =
        matches.paths.iter().map(|(verb, urls)| json!({"verbs": [verb], "nonResourceURLs": urls})).collect();
    if !paths.is_empty() {
        rules["nonResourceRules"] = paths.into();
    }
    let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
        "rules": [rules]});
    if !distinguisher.is_empty() {
        spec["distinguisherMethod"] = json!({"type": distinguisher});
    }
    spec
}

fn everyone() -> [Value; 2] {
    [group("system:unauthenticated"), group("system:authenticated")]
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn system_accounts() -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_together() {
        let all = all();
        assert_eq!(all.len(), 19);
        for one in &all {
            let object = json!({"metadata": {"name": one.name}, "spec": one.spec});
            if one.resource == LEVELS {
                let level: PriorityLevel = serde_json::from_value(object).expect("level");
                assert!(level.discipline().is_some(), "{}", one.name);
            } else {
                let schema: FlowSchema = serde_json::from_value(object).expect("schema");
                let level = &schema.spec.priority_level_configuration.name;
                assert!(all.iter().any(|d| d.resource == LEVELS && d.name == level), "{}", one.name);
            }
        }
        assert_eq!((mandatory_levels().len(), mandatory_schemas().len()), (2, 2));
    }
}
