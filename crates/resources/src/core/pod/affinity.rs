//! Where a pod may run: affinity, tolerations, topology spread.

use crate::field::{Errors, Fields, Path};
use crate::metadata::label_selector;
use crate::names;
use serde_json::Value;

const WEIGHT: &str = "must be in the range 1-100";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Errors of `affinity`.
pub fn affinity(errors: &mut Errors, affinity: &Value, path: &Path<'_>) {
    node_affinity(errors, affinity.at("nodeAffinity"), &path.field("nodeAffinity"));
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (of, path) = (affinity.at(kind), path.field(kind));
        let list = path.field(REQUIRED);
        for (i, term) in of.list(REQUIRED).iter().enumerate() {
            pod_term(errors, term, &list.index(i));
        }
        let list = path.field(PREFERRED);
        for (i, weighted) in of.list(PREFERRED).iter().enumerate() {
            let path = list.index(i);
            weight(errors, weighted, &path);
            pod_term(errors, weighted.at("podAffinityTerm"), &path.field("podAffinityTerm"));
        }
    }
}

fn node_affinity(errors: &mut Errors, affinity: &Value, path: &Path<'_>) {
    if affinity.has(REQUIRED) {
        node_selector(errors, affinity.at(REQUIRED), &path.field(REQUIRED));
    }
    let list = path.field(PREFERRED);
    for (i, term) in affinity.list(PREFERRED).iter().enumerate() {
        let path = list.index(i);
        weight(errors, term, &path);
        node_term(errors, term.at("preference"), false, &path.field("preference"));
    }
}

fn weight(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let weight = of.int("weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.field("weight"), weight, WEIGHT);
    }
}

/// Errors of a `NodeSelector`.
pub fn node_selector(errors: &mut Errors, selector: &Value, path: &Path<'_>) {
    let (terms, path) = (selector.list("nodeSelectorTerms"), path.field("nodeSelectorTerms"));
    if terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(errors, term, true, &path.index(i));
    }
}

fn node_term(errors: &mut Errors, term: &Value, check_values: bool, path: &Path<'_>) {
    let list = path.field("matchExpressions");
    for (i, requirement) in term.list("matchExpressions").iter().enumerate() {
        node_requirement(errors, requirement, check_values, &list.index(i));
    }
    let list = path.field("matchFields");
    for (i, requirement) in term.list("matchFields").iter().enumerate() {
        node_field(errors, requirement, &list.index(i));
    }
}

fn node_requirement(errors: &mut Errors, requirement: &Value, check_values: bool, path: &Path<'_>) {
    let values = requirement.texts("values");
    let path_of = path.field("values");
    match requirement.text("operator") {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&path_of, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&path_of, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.required(&path_of, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(&path.field("operator"), other, "not a valid selector operator"),
    }
    let key = requirement.text("key");
    errors.invalid_each(&path.field("key"), key, names::label_key(key));
    for (i, value) in values.into_iter().enumerate().filter(|_| check_values) {
        errors.invalid_each(&path_of.index(i), value, names::label_value(value));
    }
}

fn node_field(errors: &mut Errors, requirement: &Value, path: &Path<'_>) {
    let values = requirement.texts("values");
    match requirement.text("operator") {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => {
            let text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.required(&path.field("values"), text);
        }
        other => errors.invalid(&path.field("operator"), other, "not a valid selector operator"),
    }
    if requirement.text("key") != "metadata.name" {
        return errors.invalid(&path.field("key"), requirement.text("key"), "not a valid field selector key");
    }
    let list = path.field("values");
    for (i, value) in values.into_iter().enumerate() {
        errors.invalid_each(&list.index(i), value, names::dns1123_subdomain(value, false));
    }
}

fn pod_term(errors: &mut Errors, term: &Value, path: &Path<'_>) {
    label_selector(errors, term.at("labelSelector"), &path.field("labelSelector"));
    label_selector(errors, term.at("namespaceSelector"), &path.field("namespaceSelector"));
    for name in term.texts("namespaces") {
        errors.invalid_each(&path.field("namespace"), name, names::dns1123_label(name, false));
    }
    label_keys(errors, term, path);
    let key = term.text("topologyKey");
    if key.is_empty() {
        errors.required(&path.field("topologyKey"), "can not be empty");
    }
    errors.invalid_each(&path.field("topologyKey"), key, names::label_key(key));
}

/// Errors of `matchLabelKeys` and `mismatchLabelKeys`.
fn label_keys(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let selector = of.at("labelSelector");
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let (keys, path) = (of.texts(field), path.field(field));
        if !keys.is_empty() && selector.is_null() {
            errors.forbidden(&path, "must not be specified when labelSelector is not set");
        }
        for (i, key) in keys.into_iter().enumerate() {
            errors.invalid_each(&path.index(i), key, names::label_key(key));
        }
    }
    let (matching, mismatching) = (of.texts("matchLabelKeys"), of.texts("mismatchLabelKeys"));
    let mut seen: Vec<&str> = selector.entries("matchLabels").map(|(k, _)| k.as_str()).collect();
    for expression in selector.list("matchExpressions") {
        let key = expression.text("key");
        // the key's own requirement was merged into the selector; a second one is the author's
        if let Some(i) = matching.iter().position(|k| *k == key).filter(|_| seen.contains(&key)) {
            errors.invalid(&path.index(i), key, "exists in both matchLabelKeys and labelSelector");
        }
        seen.push(key);
    }
    let list = path.field("matchLabelKeys");
    for (i, key) in matching.iter().enumerate().filter(|(_, k)| mismatching.contains(k)) {
        errors.invalid(&list.index(i), *key, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

/// Errors of `topologySpreadConstraints`.
pub fn topology_spread(errors: &mut Errors, list: &[Value], path: &Path<'_>) {
    for (i, constraint) in list.iter().enumerate() {
        let (path, skew, action) =
            (path.index(i), constraint.int("maxSkew").unwrap_or(0), constraint.text("whenUnsatisfiable"));
        let key = constraint.text("topologyKey");
        if skew <= 0 {
            errors.invalid(&path.field("maxSkew"), skew, "must be greater than zero");
        }
        if key.is_empty() {
            errors.required(&path.field("topologyKey"), "can not be empty");
        }
        errors.supported(&path.field("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        let same = |c: &Value| c.text("topologyKey") == key && c.text("whenUnsatisfiable") == action;
        if list[i + 1..].iter().any(same) {
            errors.duplicate(&path.field("{topologyKey, whenUnsatisfiable}"), format!("{{{key}, {action}}}"));
        }
        if let Some(domains) = constraint.int("minDomains") {
            let path = path.field("minDomains");
            if domains <= 0 {
                errors.invalid(&path, domains, "must be greater than zero");
            }
            if action != "DoNotSchedule" {
                let text = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.invalid(&path, domains, &text);
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if constraint.has(field) {
                errors.supported(&path.field(field), constraint.text(field), &["Honor", "Ignore"]);
            }
        }
        label_keys(errors, constraint, &path);
        label_selector(errors, constraint.at("labelSelector"), &path.field("labelSelector"));
    }
}

/// Errors of `tolerations`.
pub fn tolerations(errors: &mut Errors, list: &[Value], path: &Path<'_>) {
    for (i, toleration) in list.iter().enumerate() {
        let path = path.index(i);
        let (key, operator, value) = (toleration.text("key"), toleration.text("operator"), toleration.text("value"));
        let operator_path = path.field("operator");
        if !key.is_empty() {
            errors.invalid_each(&path.field("key"), key, names::label_key(key));
        } else if operator != "Exists" {
            let text = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&operator_path, operator, text);
        }
        if toleration.has("tolerationSeconds") && toleration.text("effect") != "NoExecute" {
            let text = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&path.field("effect"), toleration.text("effect"), text);
        }
        match operator {
            "" | "Equal" => {
                let wrong = names::label_value(value);
                if !wrong.is_empty() {
                    errors.invalid(&operator_path, value, &wrong.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                errors.invalid(&operator_path, value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            "Lt" | "Gt" => errors.not_supported(&operator_path, operator, &["Equal", "Exists", "Lt", "Gt"]),
            other => errors.not_supported(&operator_path, other, &["Equal", "Exists"]),
        }
        taint_effect(errors, toleration.text("effect"), true, &path.field("effect"));
    }
}

/// Errors of a taint's effect.
pub fn taint_effect(errors: &mut Errors, effect: &str, allow_empty: bool, path: &Path<'_>) {
    match effect {
        "" if allow_empty => {}
        "" => errors.required(path, ""),
        effect => errors.one_of(path, effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]),
    }
}
