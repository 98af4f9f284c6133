//! Roles and cluster roles.

use crate::field::{Errors, Fields, Path};
use crate::{Ctx, MetadataChecks, Strategy, metadata, names};
use api::{Cause, Object};
use serde_json::Value;

/// Roles, and cluster roles.
pub struct Role {
    /// Whether its rules are for one namespace.
    pub namespaced: bool,
}

impl Strategy for Role {
    fn default(&self, obj: &mut Object) {
        null_rules(obj);
    }

    fn has_status(&self) -> bool {
        false
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::path_segment(name, prefix)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        rules(&mut errors, obj, self.namespaced);
        if !self.namespaced {
            aggregation(&mut errors, obj.at("aggregationRule"));
        }
        errors.0
    }
}

/// Errors of the rule by which a cluster role collects those of others.
fn aggregation(errors: &mut Errors, rule: &Value) {
    if rule.is_null() {
        return;
    }
    let path = Path::root("aggregationRule.clusterRoleSelectors");
    let list = rule.list("clusterRoleSelectors");
    if list.is_empty() {
        errors.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (i, selector) in list.iter().enumerate() {
        let (before, path) = (errors.0.len(), path.index(i));
        metadata::label_selector(errors, selector, &path);
        if errors.0.len() > before {
            errors.invalid(&path, Value::Null, "invalid label selector.");
        }
    }
}

fn null_rules(obj: &mut Object) {
    if !obj.has("rules") {
        obj["rules"] = Value::Null;
    }
}

fn rules(errors: &mut Errors, obj: &Object, namespaced: bool) {
    let list = Path::root("rules");
    for (i, rule) in obj.list("rules").iter().enumerate() {
        let path = list.index(i);
        if rule.list("verbs").is_empty() {
            errors.required(&path.field("verbs"), "verbs must contain at least one value");
        }
        if !rule.list("nonResourceURLs").is_empty() {
            let (urls, path) = (rule.at("nonResourceURLs").clone(), path.field("nonResourceURLs"));
            if namespaced {
                errors.invalid(&path, urls.clone(), "namespaced rules cannot apply to non-resource URLs");
            }
            if ["apiGroups", "resources", "resourceNames"].iter().any(|f| !rule.list(f).is_empty()) {
                errors.invalid(&path, urls, "rules cannot apply to both regular resources and non-resource URLs");
            }
            continue;
        }
        if rule.list("apiGroups").is_empty() {
            errors.required(&path.field("apiGroups"), "resource rules must supply at least one api group");
        }
        if rule.list("resources").is_empty() {
            errors.required(&path.field("resources"), "resource rules must supply at least one resource");
        }
    }
}
