//! What a default v1.36 server serves.

use crate::types::Schema;

/// One resource or subresource of a group version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceFact {
    /// API group, empty for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Plural resource.
    pub resource: &'static str,
    /// Subresource, empty for the resource itself.
    pub subresource: &'static str,
    /// Kind it serves.
    pub kind: &'static str,
    /// Group of that kind (`autoscaling` for `scale`).
    pub kind_group: &'static str,
    /// Version of that kind.
    pub kind_version: &'static str,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Verbs, sorted.
    pub verbs: &'static [&'static str],
    /// Short names.
    pub short_names: &'static [&'static str],
    /// Categories.
    pub categories: &'static [&'static str],
    /// Singular name, empty for subresources.
    pub singular: &'static str,
}

impl ResourceFact {
    /// Whether the verb is served.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Schema of the kind it serves.
    pub fn schema(&self) -> Option<Schema> {
        Schema::of_kind(self.kind_group, self.kind_version, self.kind)
    }
}

include!(concat!(env!("OUT_DIR"), "/resources.rs"));

/// Every resource and subresource, by group, version, resource, subresource.
pub fn resources() -> &'static [ResourceFact] {
    RESOURCES
}

/// One resource (subresource empty) or subresource.
pub fn resource(group: &str, version: &str, resource: &str, subresource: &str) -> Option<&'static ResourceFact> {
    RESOURCES
        .iter()
        .find(|r| r.resource == resource && r.subresource == subresource && r.group == group && r.version == version)
}

/// Name of the schema of a kind, `io.k8s.api.core.v1.Pod`.
pub fn schema_name(group: &str, version: &str, kind: &str) -> Option<&'static str> {
    Schema::of_kind(group, version, kind).map(|s| s.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_resources_and_their_kinds() {
        for (g, v, r, s, kind, schema) in [
            ("", "v1", "pods", "", "Pod", "io.k8s.api.core.v1.Pod"),
            ("", "v1", "pods", "eviction", "Eviction", "io.k8s.api.policy.v1.Eviction"),
            ("", "v1", "serviceaccounts", "token", "TokenRequest", "io.k8s.api.authentication.v1.TokenRequest"),
            ("apps", "v1", "deployments", "scale", "Scale", "io.k8s.api.autoscaling.v1.Scale"),
            ("rbac.authorization.k8s.io", "v1", "roles", "", "Role", "io.k8s.api.rbac.v1.Role"),
        ] {
            let fact = resource(g, v, r, s).unwrap_or_else(|| panic!("{r}/{s}"));
            assert_eq!((fact.kind, fact.schema().map(|s| s.name())), (kind, Some(schema)), "{r}/{s}");
        }
        assert_eq!(resource("apps", "v1beta1", "deployments", ""), None);
    }

    #[test]
    fn every_kind_has_a_schema() {
        for fact in resources() {
            assert!(fact.schema().is_some(), "{fact:?}");
        }
    }
}
