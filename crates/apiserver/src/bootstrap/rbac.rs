//! The default roles and bindings, from the table `rbac.tsv`.

use super::ensure;
use crate::authn::UserInfo;
use crate::authz::{Rule, rule_list};
use crate::handlers::Request;
use crate::registry::create::WriteOptions;
use crate::registry::update::{Change, Changed, update};
use crate::server::ApiServer;
use crate::store::{Preconditions, Stored};
use api::{Object, Status, meta};
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const GROUP: &str = "rbac.authorization.k8s.io";
const TABLE: &str = include_str!("rbac.tsv");
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// Creates share commits of the store.
const CONCURRENT: usize = 64;

/// Creates the roles and bindings that are missing, and gives those that are there what they lack.
pub async fn run(server: &ApiServer) -> Result<(), Status> {
    for page in objects().chunks(CONCURRENT) {
        let steps: Vec<BoxFuture<'_, Result<(), Status>>> =
            page.iter().map(|object| Box::pin(one(server, object)) as BoxFuture<'_, _>).collect();
        futures::future::try_join_all(steps).await?;
    }
    Ok(())
}

async fn one(server: &ApiServer, object: &Object) -> Result<(), Status> {
    let resource = format!("{}s", object["kind"].as_str().unwrap_or("").to_lowercase());
    match ensure(server, GROUP, &resource, meta::namespace(object), object.clone()).await? {
        Some(present) => reconcile(server, &resource, &present, object).await,
        None => Ok(()),
    }
}

/// What kubelets may do: the rules of `system:node`, which no one is bound to.
pub fn node_rules() -> Vec<Rule> {
    let role = objects().into_iter().find(|o| o["kind"] == "ClusterRole" && meta::name(o) == "system:node");
    role.map_or_else(Vec::new, |role| rule_list(&role))
}

/// Adds the default rules and subjects that are missing, unless the object opts out.
async fn reconcile(server: &ApiServer, resource: &str, present: &Stored, wanted: &Object) -> Result<(), Status> {
    let object = present.object()?;
    if meta::annotation(&object, AUTOUPDATE) == Some("false") || merged(&object, wanted).is_none() {
        return Ok(());
    }
    let row = server.registry().any_version(GROUP, resource).ok_or_else(Status::no_such_path)?;
    let request = Request::internal("update", Arc::new(UserInfo::admin()));
    let options = WriteOptions { manager: "kube-apiserver".into(), ..WriteOptions::default() };
    let change = Change {
        namespace: &present.meta.namespace,
        name: &present.meta.name,
        upsert: false,
        unconditional: true,
        preconditions: Preconditions::default(),
    };
    let mut make = |old: Option<&Object>| {
        let old = old.cloned().unwrap_or_default();
        Ok(Changed { object: merged(&old, wanted).unwrap_or(old), tracked: false })
    };
    update(server, &request, &row, &change, &options, &mut make).await.map(drop)
}

fn merged(present: &Object, wanted: &Object) -> Option<Object> {
    let mut out = present.clone();
    let list = if wanted.get("subjects").is_some() { "subjects" } else { "rules" };
    let aggregated = wanted.get("aggregationRule").is_some();
    let mut items = present.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
    let before = items.len();
    if list == "subjects" {
        for item in wanted[list].as_array().into_iter().flatten().filter(|_| !aggregated) {
            if !items.contains(item) {
                items.push(item.clone());
            }
        }
    } else if !aggregated {
        let owned = rule_list(present);
        let missing = rule_list(wanted).into_iter().filter(|rule| !rule.is_covered_by(&owned));
        items.extend(missing.filter_map(|rule| serde_json::to_value(rule).ok()));
    }
    if items.len() == before {
        return None;
    }
    out[list] = items.into();
    Some(out)
}

/// The table as objects.
fn objects() -> Vec<Object> {
    let mut out: Vec<Object> = Vec::new();
    for line in TABLE.lines().filter(|l| !l.starts_with('#')) {
        let cells: Vec<&str> = line.split('\t').collect();
        let cell = |at: usize| cells.get(at).copied().unwrap_or("");
        if cell(0).is_empty() {
            let rule = rule([cell(1), cell(2), cell(3), cell(4), cell(5)]);
            if let Some(rules) = out.last_mut().and_then(|o| o["rules"].as_array_mut()) {
                rules.push(rule);
            }
            continue;
        }
        let mut object = json!({"kind": cell(0), "apiVersion": "rbac.authorization.k8s.io/v1",
            "metadata": {"name": cell(2), "annotations": {AUTOUPDATE: "true"}, "labels": labels(cell(3))}});
        if !cell(1).is_empty() {
            object["metadata"]["namespace"] = cell(1).into();
        }
        if cell(0).ends_with("Binding") {
            let (kind, name) = cell(4).split_once('/').unwrap_or_default();
            object["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": name});
            object["subjects"] = list(cell(5)).iter().map(|s| subject(s)).collect();
        } else {
            object["rules"] = json!([]);
            if !cell(4).is_empty() {
                let selectors: Vec<_> = list(cell(4)).iter().map(|l| json!({"matchLabels": pairs(l)})).collect();
                object["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
            }
        }
        out.push(object);
    }
    out
}

fn list(text: &str) -> Vec<&str> {
    text.split(',').filter(|t| !t.is_empty()).map(|t| if t == "-" { "" } else { t }).collect()
}

fn pairs(text: &str) -> Value {
    let pairs = list(text).into_iter().filter_map(|l| l.split_once('='));
    pairs.map(|(k, v)| (k.to_owned(), v.into())).collect::<Map<_, _>>().into()
}

fn labels(text: &str) -> Value {
    let mut labels = pairs(text);
    labels["kubernetes.io/bootstrapping"] = "rbac-defaults".into();
    labels
}

fn rule([verbs, groups, resources, names, paths]: [&str; 5]) -> Value {
    let mut rule = json!({"verbs": list(verbs)});
    let rest = [("apiGroups", groups), ("resources", resources), ("resourceNames", names), ("nonResourceURLs", paths)];
    for (field, cell) in rest.into_iter().filter(|(_, cell)| !cell.is_empty()) {
        rule[field] = json!(list(cell));
    }
    rule
}

fn subject(text: &str) -> Value {
    let (kind, name) = text.split_once(':').unwrap_or_default();
    match (kind, name.split_once('/')) {
        ("ServiceAccount", Some((namespace, name))) => json!({"kind": kind, "name": name, "namespace": namespace}),
        _ => json!({"kind": kind, "name": name, "apiGroup": GROUP}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        let objects = objects();
        let find = |kind: &str, name: &str| {
            objects.iter().find(|o| o["kind"] == kind && meta::name(o) == name).unwrap_or_else(|| panic!("{kind} {name}"))
        };
        assert_eq!(rule_list(find("ClusterRole", "cluster-admin")).len(), 2);
        assert!(find("ClusterRole", "admin").get("aggregationRule").is_some());
        assert_eq!(find("ClusterRoleBinding", "cluster-admin")["subjects"][0]["name"], "system:masters");
        let binding = find("ClusterRoleBinding", "system:controller:job-controller");
        assert_eq!(binding["subjects"][0], json!({"kind": "ServiceAccount", "name": "job-controller", "namespace": "kube-system"}));
        assert!(node_rules().len() > 10);
    }

    #[test]
    fn what_is_missing_is_added() {
        let wanted = json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
        assert_eq!(merged(&wanted, &wanted), None);
        let present = json!({"rules": []});
        assert_eq!(merged(&present, &wanted).map(|o| o["rules"].clone()), Some(wanted["rules"].clone()));
    }
}
