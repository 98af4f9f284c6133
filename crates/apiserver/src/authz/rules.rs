//! Policy rules and what they cover.

use super::Attributes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Verbs, `*` for all.
    pub verbs: Vec<String>,
    /// API groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// Resources, `pods/log`, `*/scale`, `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Names; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths; a `*` at the end covers what starts with it.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == wanted || item == "*")
}

impl Rule {
    /// Whether the rule allows it.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        if !has(&self.verbs, attributes.verb) {
            return false;
        }
        if !attributes.is_resource {
            return self.covers_path(attributes.path);
        }
        has(&self.api_groups, attributes.group)
            && self.covers_resource(attributes)
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == attributes.name))
    }

    fn covers_resource(&self, attributes: &Attributes<'_>) -> bool {
        let wanted = attributes.resource_with_subresource();
        self.resources.iter().any(|rule| {
            rule == "*"
                || *rule == wanted
                || (!attributes.subresource.is_empty() && rule.strip_prefix("*/") == Some(attributes.subresource))
        })
    }

    fn covers_path(&self, path: &str) -> bool {
        self.non_resource_urls.iter().any(|rule| match rule.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => rule == path,
        })
    }

    /// Whether everything `wanted` allows is allowed by some rule of `owned`; `wanted` is taken apart first.
    pub fn is_covered_by(&self, owned: &[Rule]) -> bool {
        self.pieces().iter().all(|piece| owned.iter().any(|rule| rule.covers(piece)))
    }

    /// How many [`Rule::pieces`] there are.
    pub fn piece_count(&self) -> usize {
        let named = self.resource_names.len().max(1);
        let resources = self.api_groups.len().saturating_mul(self.resources.len()).saturating_mul(named);
        self.verbs.len().saturating_mul(resources.saturating_add(self.non_resource_urls.len()))
    }

    /// The rule as rules of one verb and one resource (or path) each.
    pub fn pieces(&self) -> Vec<Rule> {
        let mut out = Vec::new();
        for verb in &self.verbs {
            let of = || Rule { verbs: vec![verb.clone()], ..Rule::default() };
            for url in &self.non_resource_urls {
                out.push(Rule { non_resource_urls: vec![url.clone()], ..of() });
            }
            for group in &self.api_groups {
                for resource in &self.resources {
                    let piece = Rule { api_groups: vec![group.clone()], resources: vec![resource.clone()], ..of() };
                    match self.resource_names.as_slice() {
                        [] => out.push(piece),
                        names => out.extend(
                            names.iter().map(|n| Rule { resource_names: vec![n.clone()], ..piece.clone() }),
                        ),
                    }
                }
            }
        }
        out
    }

    /// Whether this rule alone allows everything that another does; the other may be a piece or whole.
    pub fn covers(&self, piece: &Rule) -> bool {
        let all = |own: &[String], wanted: &[String]| has(own, "*") || wanted.iter().all(|w| own.contains(w));
        let resource = |wanted: &String| {
            let subresource = wanted.split_once('/').map(|(_, s)| format!("*/{s}"));
            self.resources.iter().any(|own| own == "*" || own == wanted || Some(own) == subresource.as_ref())
        };
        let url = |wanted: &String| {
            self.non_resource_urls.iter().any(|own| match own.strip_suffix('*') {
                Some(prefix) => wanted.starts_with(prefix),
                None => own == wanted,
            })
        };
        let names = self.resource_names.is_empty()
            || (!piece.resource_names.is_empty() && piece.resource_names.iter().all(|n| self.resource_names.contains(n)));
        all(&self.verbs, &piece.verbs)
            && all(&self.api_groups, &piece.api_groups)
            && piece.resources.iter().all(resource)
            && piece.non_resource_urls.iter().all(url)
            && names
    }
}

/// The `rules` of a role.
pub fn rule_list(role: &Value) -> Vec<Rule> {
    let list = role.get("rules").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|rule| Rule::deserialize(rule).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::UserInfo;
    use crate::query::Query;
    use crate::request_info::RequestInfo;
    use http::Method;
    use serde_json::json;

    fn rules() -> Vec<Rule> {
        rule_list(&json!({"rules": [
            {"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "*/status"], "resourceNames": ["a"]},
            {"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"]},
            {"verbs": ["get"], "nonResourceURLs": ["/healthz/*"]}]}))
    }

    #[test]
    fn rules_allow() {
        let table = [
            ("GET", "/api/v1/namespaces/n/pods/a", true),
            ("GET", "/api/v1/namespaces/n/pods/b", false),
            ("GET", "/api/v1/namespaces/n/pods", false),
            ("GET", "/api/v1/namespaces/n/services/a/status", true),
            ("GET", "/api/v1/namespaces/n/pods/a/log", false),
            ("DELETE", "/apis/apps/v1/namespaces/n/deployments/x", true),
            ("GET", "/healthz/ping", true),
            ("GET", "/healthz", false),
        ];
        let user = UserInfo::new("u", &[]);
        for (method, path, want) in table {
            let method = Method::from_bytes(method.as_bytes()).expect("method");
            let info = RequestInfo::new(&method, path, &Query::default());
            let allowed = rules().iter().any(|r| r.allows(&Attributes::of(&user, &info)));
            assert_eq!(allowed, want, "{method} {path}");
        }
    }

    #[test]
    fn escalation_is_seen() {
        let wanted = |value| serde_json::from_value::<Rule>(value).expect("rule");
        let apps = wanted(json!({"verbs": ["get", "list"], "apiGroups": ["apps"], "resources": ["deployments"]}));
        assert!(apps.is_covered_by(&rules()));
        let all_pods = wanted(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}));
        assert!(!all_pods.is_covered_by(&rules()), "only one name is allowed");
        let both = wanted(json!({"verbs": ["get"], "apiGroups": ["", "apps"], "resources": ["x"]}));
        assert!(!both.is_covered_by(&rules()));
    }
}
