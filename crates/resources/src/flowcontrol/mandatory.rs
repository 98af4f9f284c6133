//! The flow schemas and priority levels without which there is no cluster: their specs are fixed.

use crate::field::{Errors, Fields, same};
use api::Object;
use serde_json::{Value, json};

/// Their names, of schemas as of levels.
pub const NAMES: [&str; 2] = [CATCH_ALL, EXEMPT];
const CATCH_ALL: &str = "catch-all";
const EXEMPT: &str = "exempt";

/// The spec of a flow schema with this name, if it is a fixed one.
pub fn schema(name: &str) -> Option<Value> {
    let (precedence, groups, method) = match name {
        EXEMPT => (1, &["system:masters"][..], None),
        CATCH_ALL => (10_000, &["system:unauthenticated", "system:authenticated"][..], Some("ByUser")),
        _ => return None,
    };
    let subjects: Vec<_> = groups.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect();
    let resources =
        json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true});
    let paths = json!({"verbs": ["*"], "nonResourceURLs": ["*"]});
    let mut spec = json!({"priorityLevelConfiguration": {"name": name}, "matchingPrecedence": precedence,
        "rules": [{"subjects": subjects, "resourceRules": [resources], "nonResourceRules": [paths]}]});
    if let Some(method) = method {
        spec["distinguisherMethod"] = json!({"type": method});
    }
    Some(spec)
}

/// The spec of a priority level with this name, if it is a fixed one.
pub fn level(name: &str) -> Option<Value> {
    match name {
        EXEMPT => Some(json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}})),
        CATCH_ALL => Some(json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0,
            "limitResponse": {"type": "Reject"}}})),
        _ => None,
    }
}

/// Adds an error when a flow schema must have another spec.
pub fn check_schema(errors: &mut Errors, obj: &Object) {
    let (name, spec) = (api::meta::name(obj), obj.at("spec"));
    if schema(name).is_some_and(|fixed| !same(spec, &fixed)) {
        let text = format!("spec of '{name}' must equal the fixed value");
        errors.invalid_struct(&super::SPEC, "io.k8s.api.flowcontrol.v1.FlowSchemaSpec", spec, &text);
    }
}

/// Adds an error when a priority level must have another spec; how much `exempt` counts for is the administrator's.
pub fn check_level(errors: &mut Errors, obj: &Object) {
    let (name, spec) = (api::meta::name(obj), obj.at("spec"));
    let Some(mut fixed) = level(name) else { return };
    let mut except = "";
    if name == EXEMPT {
        except = " except the 'spec.exempt' field";
        fixed["exempt"] = spec.at("exempt").clone();
    }
    if !same(spec, &fixed) {
        let text = format!("spec of '{name}'{except} must equal the fixed value");
        errors.invalid_struct(&super::SPEC, "io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationSpec", spec, &text);
    }
}
