//! Who writes roles and bindings may not grant by them what they do not hold themselves.
//!
//! A role may be written by who holds all its permissions, or may `escalate` it; a binding by who holds the
//! permissions of the role, or may `bind` it. Members of `system:masters` may do both. This runs after
//! mutating admission and before validation, so nothing can be added to an object that has been checked.

use super::{Attributes, Rule, decide};
use crate::authn::MASTERS;
use crate::handlers::Request;
use crate::registry::Resource;
use crate::server::ApiServer;
use api::{Object, Status, meta};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};

const GROUP: &str = "rbac.authorization.k8s.io";
/// Permissions of one verb on one thing that are compared. Few words make many of them: they are multiplied.
const PIECES: usize = 10_000;
const AGGREGATION: &str = "must have cluster-admin privileges to use the aggregationRule";

/// 403 when a role or binding to be written grants what its writer does not hold; other resources pass.
pub async fn check(
    server: &ApiServer,
    request: &Request,
    resource: &Resource,
    namespace: &str,
    new: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    if resource.group != GROUP || request.user.is_in(MASTERS) {
        return Ok(());
    }
    let write = Write { server, request, resource, namespace };
    match resource.resource.as_str() {
        "roles" | "clusterroles" => write.role(new, old),
        _ => write.binding(new, old).await,
    }
}

struct Write<'a> {
    server: &'a ApiServer,
    request: &'a Request,
    resource: &'a Resource,
    namespace: &'a str,
}

impl Write<'_> {
    fn role(&self, new: &Object, old: Option<&Object>) -> Result<(), Status> {
        let name = &self.request.info.name;
        if self.may("escalate", GROUP, &self.resource.resource, name) || changes_only_owners(new, old) {
            return Ok(());
        }
        let refuse = |why: &str| Status::forbidden(GROUP, &self.resource.resource, meta::name(new), why);
        self.holds(&granted(new)?).map_err(|why| refuse(&why))?;
        let aggregates = aggregates(new) || old.is_some_and(aggregates);
        if aggregates && self.holds(&everything()).is_err() {
            return Err(refuse(AGGREGATION));
        }
        Ok(())
    }

    async fn binding(&self, new: &Object, old: Option<&Object>) -> Result<(), Status> {
        if changes_only_owners(new, old) {
            return Ok(());
        }
        let field = |key: &str| new.pointer("/roleRef").and_then(|r| r.get(key)).and_then(Value::as_str).unwrap_or("");
        let (kind, group, name) = (field("kind"), field("apiGroup"), field("name"));
        let (resource, namespace) = match kind {
            "ClusterRole" => ("clusterroles", ""),
            "Role" => ("roles", self.namespace),
            _ => return Err(Status::new(500, "", format!("unsupported role reference kind: {kind:?}"))),
        };
        if self.may("bind", group, resource, name) {
            return Ok(());
        }
        // Read from the store: a cache may still show the role as it was before it was widened.
        let store = self.server.store(GROUP, resource).ok_or_else(Status::no_such_path)?;
        let role = store.get(namespace, name).await?.ok_or_else(|| Status::not_found(GROUP, resource, name))?;
        let granted = granted(&role.object()?)?;
        self.holds(&granted).map_err(|why| Status::forbidden(GROUP, &self.resource.resource, meta::name(new), &why))
    }

    /// Whether the user may do this to a role, where the object is written.
    fn may(&self, verb: &str, group: &str, resource: &str, name: &str) -> bool {
        let attributes = Attributes {
            user: &self.request.user,
            verb,
            is_resource: true,
            group,
            version: "*",
            namespace: self.namespace,
            resource,
            subresource: "",
            name,
            path: "",
            field_selector: "",
            label_selector: "",
        };
        decide(self.server, &attributes, None).allowed
    }

    /// Whether the user holds all these permissions where the object is written; else what is missing.
    fn holds(&self, wanted: &[Rule]) -> Result<(), String> {
        let user = &self.request.user;
        let (owned, errors) = self.server.authorizers().rbac.rules_for(user, self.namespace);
        // What one of the user's rules covers as it is need not be taken apart.
        let wanted: Vec<_> = wanted.iter().filter(|rule| !owned.iter().any(|own| own.covers(rule))).cloned().collect();
        let count = wanted.iter().fold(0, |sum: usize, rule| sum.saturating_add(rule.piece_count()));
        if count > PIECES {
            return Err(format!("the rules grant {count} permissions, more than the {PIECES} that can be compared"));
        }
        let missing = missing(&owned, &wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let groups: Vec<_> = user.groups.iter().map(|g| format!("{g:?}")).collect();
        let mut why = format!(
            "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            groups.join(" "),
            missing.join("\n")
        );
        if !errors.is_empty() {
            why.push_str(&format!("; resolution errors: [{}]", resolution(&errors)));
        }
        Err(why)
    }
}

/// What could not be resolved, in the words of the store rather than of the authorizer's cache.
fn resolution(errors: &[String]) -> String {
    let mut seen = BTreeSet::new();
    let list: Vec<_> = errors.iter().filter(|e| seen.insert(e.as_str())).collect();
    let list: Vec<_> = list.into_iter().map(|e| e.replacen("role.rbac", "roles.rbac", 1)).collect();
    if list.len() == 1 { list.concat() } else { format!("[{}]", list.join(", ")) }
}

/// The rules that a role grants; one that cannot be read refuses the write, as it cannot be compared.
fn granted(role: &Object) -> Result<Vec<Rule>, Status> {
    let list = role.get("rules").and_then(Value::as_array).into_iter().flatten();
    list.map(|rule| Rule::deserialize(rule).map_err(|why| Status::bad_request(format!("rules: {why}")))).collect()
}

fn aggregates(role: &Object) -> bool {
    let selectors = role.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array);
    selectors.is_some_and(|s| !s.is_empty())
}

fn everything() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    [
        Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
        Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
    ]
}

/// The garbage collector and finalizers must be able to go on without the permissions of the role.
fn changes_only_owners(new: &Object, old: Option<&Object>) -> bool {
    let Some(old) = old else { return false };
    let without = |object: &Object| {
        let mut object = object.clone();
        for field in ["ownerReferences", "finalizers", "selfLink", "managedFields"] {
            meta::metadata_mut(&mut object).remove(field);
        }
        object
    };
    without(new) == without(old)
}

/// What of `wanted` is not in `owned`: one line for each resource and name, with the verbs together.
fn missing(owned: &[Rule], wanted: &[Rule]) -> Vec<String> {
    let pieces = wanted.iter().flat_map(Rule::pieces).filter(|piece| !piece.is_covered_by(owned));
    let mut compact: Vec<Rule> = Vec::new();
    let mut places = HashMap::new();
    for piece in pieces {
        let Rule { api_groups, resources, resource_names, .. } = piece.clone();
        let place = match piece.non_resource_urls.is_empty() {
            true => *places.entry((api_groups, resources, resource_names)).or_insert(compact.len()),
            false => compact.len(),
        };
        match compact.get_mut(place) {
            Some(rule) => rule.verbs.extend(piece.verbs),
            None => compact.push(piece),
        }
    }
    let lines: BTreeSet<_> = compact.iter().map(describe).collect();
    lines.into_iter().collect()
}

fn describe(rule: &Rule) -> String {
    let fields = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let shown = fields.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| {
        let list: Vec<_> = list.iter().map(|item| format!("{item:?}")).collect();
        format!("{name}:[{}]", list.join(" "))
    });
    format!("{{{}}}", shown.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(value: Value) -> Vec<Rule> {
        granted(&json!({ "rules": value })).expect("rules")
    }

    #[test]
    fn missing_permissions_are_listed() {
        let owned = rules(json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]));
        let check = |wanted: Value, want: &[&str]| assert_eq!(missing(&owned, &rules(wanted)), want);
        check(json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}]), &[]);
        check(
            json!([{"verbs": ["list", "get", "watch"], "apiGroups": [""], "resources": ["pods"]}]),
            &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}"#],
        );
        check(
            json!([{"verbs": ["get"], "nonResourceURLs": ["/x"]},
                {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"]}]),
            &[
                r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["s"], Verbs:["get"]}"#,
                r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#,
            ],
        );
    }

    #[test]
    fn few_words_make_many_permissions() {
        let words = |n: usize| (0..n).map(|i| format!("w{i}")).collect::<Vec<_>>();
        let rule = json!([{"verbs": words(1000), "apiGroups": words(1000), "resources": words(1000),
            "resourceNames": words(1000), "nonResourceURLs": words(3)}]);
        assert_eq!(rules(rule)[0].piece_count(), 1_000_000_003_000);
        let rule = rules(json!([{"verbs": ["a", "b"], "apiGroups": ["x"], "resources": ["y", "z"]}]));
        assert_eq!(rule[0].piece_count(), rule[0].pieces().len());
        assert!(rules(json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]))[0].covers(&rule[0]));
    }

    #[test]
    fn a_rule_that_cannot_be_read_is_refused() {
        assert!(granted(&json!({"rules": [{"verbs": [1]}]})).is_err());
        assert!(granted(&json!({"rules": null})).expect("rules").is_empty());
    }

    #[test]
    fn owners_alone_may_change() {
        let old = json!({"metadata": {"name": "r", "finalizers": ["a"]}, "rules": []});
        let check = |new: Value, want: bool| assert_eq!(changes_only_owners(&new, Some(&old)), want, "{new}");
        check(json!({"metadata": {"name": "r"}, "rules": []}), true);
        check(json!({"metadata": {"name": "r", "labels": {"a": "b"}}, "rules": []}), false);
        assert!(!changes_only_owners(&old, None));
    }
}
