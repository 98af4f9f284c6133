//! Roles and cluster roles.

use crate::Strategy;
use crate::field::{Errors, Fields, Path, set_default};
use crate::metadata;
use crate::rbac::{Kind, Plain};
use crate::rules::{self, Check, Rule, each};
use api::Object;
use jiff::Timestamp;
use serde_json::Value;

/// Roles, and cluster roles.
pub struct Role;

impl Kind for Role {
    fn default(&self, obj: &mut Object) {
        set_default(obj, "rules", Value::Null);
    }

    fn check(&self, errors: &mut Errors, obj: &Object, namespaced: bool) {
        each(obj, "rules", &Path::TOP, |rule, path| self::rule(errors, rule, namespaced, path));
        if !namespaced {
            aggregation(errors, obj.at("aggregationRule"));
        }
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        Plain.row(obj, now)
    }
}

const OF_RESOURCES: &[Rule] = &[
    ("apiGroups", Check::Given("resource rules must supply at least one api group")),
    ("resources", Check::Given("resource rules must supply at least one resource")),
];
const VERBS: &[Rule] = &[("verbs", Check::Given("verbs must contain at least one value"))];

/// Errors of the rule by which a cluster role collects those of others.
fn aggregation(errors: &mut Errors, rule: &Value) {
    if rule.is_null() {
        return;
    }
    let given = Check::Given("at least one clusterRoleSelector required if aggregationRule is non-nil");
    rules::check(
        errors,
        rule,
        &Path::root("aggregationRule"),
        &[("clusterRoleSelectors", given), ("clusterRoleSelectors", Check::Each(role_selector))],
    );
}

fn role_selector(errors: &mut Errors, selector: &Value, path: &Path<'_>) {
    let before = errors.0.len();
    metadata::label_selector(errors, selector, path);
    if errors.0.len() > before {
        errors.invalid(path, Value::Null, "invalid label selector.");
    }
}

/// A rule is about resources or about URLs, and URLs are the cluster's.
fn rule(errors: &mut Errors, rule: &Value, namespaced: bool, path: &Path<'_>) {
    rules::check(errors, rule, path, VERBS);
    if rule.list("nonResourceURLs").is_empty() {
        return rules::check(errors, rule, path, OF_RESOURCES);
    }
    let both = ["apiGroups", "resources", "resourceNames"].iter().any(|f| !rule.list(f).is_empty());
    for (wrong, text) in [
        (namespaced, "namespaced rules cannot apply to non-resource URLs"),
        (both, "rules cannot apply to both regular resources and non-resource URLs"),
    ] {
        if wrong {
            errors.invalid(&path.field("nonResourceURLs"), rule.at("nonResourceURLs").clone(), text);
        }
    }
}
