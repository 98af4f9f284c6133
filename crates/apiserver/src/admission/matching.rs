//! What requests a webhook or policy is about: rules and selectors.

use super::{Attributes, Operation, namespace_lifecycle};
use crate::registry::Resource;
use crate::server::ApiServer;
use api::{Object, Status};
use resources::field::Fields;
use resources::metadata::{selector_is_empty, selector_matches};
use serde_json::Value;
use std::sync::Arc;

/// A rule with its operations, and names where a policy has them.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource.
    resources: Vec<(String, String)>,
    /// `Namespaced` or `Cluster`; both where it is empty.
    scope: String,
    names: Vec<String>,
}

impl Rule {
    /// The rules of a list.
    pub fn list(list: &[Value]) -> Vec<Self> {
        list.iter().map(Self::parse).collect()
    }

    fn parse(rule: &Value) -> Self {
        let texts = |key: &str| rule.texts(key).into_iter().map(str::to_owned).collect::<Vec<_>>();
        let split = |text: &str| {
            let (resource, subresource) = text.split_once('/').unwrap_or((text, ""));
            (resource.to_owned(), subresource.to_owned())
        };
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: rule.texts("resources").into_iter().map(split).collect(),
            scope: match rule.text("scope") {
                "*" => String::new(),
                scope => scope.to_owned(),
            },
            names: texts("resourceNames"),
        }
    }

    /// Whether a request would be matched if it were about `resource`.
    pub fn matches(&self, a: &Attributes<'_>, resource: &Resource) -> bool {
        let any = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        any(&self.groups, &resource.group)
            && any(&self.versions, &resource.version)
            && any(&self.operations, a.operation.word())
            && self
                .resources
                .iter()
                .any(|(name, sub)| (name == "*" || *name == resource.resource) && (sub == "*" || sub == a.subresource))
            && self.is_of_scope(a)
            && (self.names.is_empty() || self.names.iter().any(|name| name == a.name))
    }

    fn is_of_scope(&self, a: &Attributes<'_>) -> bool {
        let cluster = a.is_about_namespaces() || a.namespace_name().is_empty();
        match self.scope.as_str() {
            "Namespaced" => !cluster,
            "Cluster" => cluster,
            _ => true,
        }
    }
}

/// The resource in the version that the first fitting rule names: that of the request, or (when `equivalent`)
/// another of the same objects.
pub fn matching_version<'r>(
    rules: &[Rule],
    equivalent: bool,
    a: &Attributes<'r>,
    others: &'r [Arc<Resource>],
) -> Option<&'r Resource> {
    if rules.iter().any(|rule| rule.matches(a, a.resource)) {
        return Some(a.resource);
    }
    let others = if equivalent { others } else { &[] };
    rules.iter().find_map(|rule| others.iter().find(|other| rule.matches(a, other))).map(|r| &**r)
}

/// The other versions that a request's objects are served in, with the subresource it is about.
pub fn equivalents(server: &ApiServer, a: &Attributes<'_>) -> Vec<Arc<Resource>> {
    let is_same = |r: &&Arc<Resource>| (&r.group, &r.version) == (&a.resource.group, &a.resource.version);
    let all = server.registry().all();
    let mut found: Vec<Arc<Resource>> = all
        .iter()
        .filter(|r| r.store.spec().prefix == a.resource.store.spec().prefix && !is_same(r))
        .filter(|r| a.subresource.is_empty() || r.subresource(a.subresource).is_some())
        .cloned()
        .collect();
    found.sort_by(|x, y| (&x.group, &x.version).cmp(&(&y.group, &y.version)));
    found
}

/// A label selector of objects or namespaces.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    selector: Value,
    is_empty: bool,
}

impl Selector {
    /// Reads one; absent means all.
    pub fn new(selector: &Value) -> Self {
        Self { is_empty: selector.is_null() || selector_is_empty(selector), selector: selector.clone() }
    }

    /// Whether it matches labels.
    pub fn matches(&self, labels: &Value) -> bool {
        self.is_empty || selector_matches(&self.selector, labels).unwrap_or(false)
    }

    /// Whether it matches the object or what it was before.
    pub fn matches_object(&self, new: Option<&Object>, old: Option<&Object>) -> bool {
        let labels = |object: &Object| object.pointer("/metadata/labels").cloned().unwrap_or_default();
        self.is_empty || [new, old].into_iter().flatten().any(|object| self.matches(&labels(object)))
    }

    /// Whether it matches the namespace of a request; objects without one always match.
    pub async fn matches_namespace(
        &self,
        server: &ApiServer,
        a: &Attributes<'_>,
        object: Option<&Object>,
    ) -> Result<bool, Status> {
        if self.is_empty || (a.namespace_name().is_empty() && !a.is_about_namespaces()) {
            return Ok(true);
        }
        let labels = |object: &Object| object.pointer("/metadata/labels").cloned().unwrap_or_default();
        let writes = matches!(a.operation, Operation::Create | Operation::Update) && a.subresource.is_empty();
        if let (true, true, Some(namespace)) = (a.is_about_namespaces(), writes, object) {
            // The caches do not know it yet.
            return Ok(self.matches(&labels(namespace)));
        }
        let namespace = namespace_lifecycle::find(server, a.namespace_name()).await?;
        Ok(self.matches(&labels(&namespace)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_see_both_states() {
        let selector = Selector::new(&json!({"matchLabels": {"a": "b"}}));
        let (with, without) = (json!({"metadata": {"labels": {"a": "b"}}}), json!({"metadata": {}}));
        assert!(selector.matches_object(Some(&without), Some(&with)));
        assert!(!selector.matches_object(Some(&without), None));
        assert!(!selector.matches_object(None, None));
        assert!(Selector::new(&json!({})).matches_object(None, None));
    }

    #[test]
    fn rules_name_resources_and_subresources() {
        let rule = Rule::parse(&json!({"resources": ["pods", "*/scale", "nodes/*"], "scope": "*"}));
        let want = [("pods", ""), ("*", "scale"), ("nodes", "*")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!((rule.resources.as_slice(), rule.scope.as_str()), (&want[..], ""));
    }
}
