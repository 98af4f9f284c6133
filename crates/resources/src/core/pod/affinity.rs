//! Where a pod may run: affinity, tolerations, topology spread.

use crate::field::{Errors, Fields, Path, repeated};
use crate::metadata::label_selector;
use crate::names;
use crate::rules::{self, Check, Rule, each};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// A term among others that are preferred.
const WEIGHT: Rule = ("weight", Check::In(weight));
const NODE_AFFINITY: &[Rule] = &[(REQUIRED, Check::By(required_nodes)), (PREFERRED, Check::Each(preferred_nodes))];
const POD_AFFINITY: &[Rule] = &[(REQUIRED, Check::Each(pod_term)), (PREFERRED, Check::Each(preferred_pods))];
const POD_TERM: &[Rule] = &[
    ("labelSelector", Check::By(label_selector)),
    ("namespaceSelector", Check::By(label_selector)),
    ("namespace", Check::In(namespaces)),
];
const TOPOLOGY_KEY: Check = Check::Given("can not be empty");

/// Errors of `affinity`.
pub fn affinity(errors: &mut Errors, affinity: &Value, path: &Path<'_>) {
    for (kind, rules) in
        [("nodeAffinity", NODE_AFFINITY), ("podAffinity", POD_AFFINITY), ("podAntiAffinity", POD_AFFINITY)]
    {
        rules::check(errors, affinity.at(kind), &path.field(kind), rules);
    }
}

fn required_nodes(errors: &mut Errors, selector: &Value, path: &Path<'_>) {
    if !selector.is_null() {
        node_selector(errors, selector, path);
    }
}

fn preferred_nodes(errors: &mut Errors, term: &Value, path: &Path<'_>) {
    rules::check(errors, term, path, &[WEIGHT]);
    node_term(errors, term.at("preference"), false, &path.field("preference"));
}

fn preferred_pods(errors: &mut Errors, term: &Value, path: &Path<'_>) {
    rules::check(errors, term, path, &[WEIGHT, ("podAffinityTerm", Check::By(pod_term))]);
}

fn weight(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let weight = of.int("weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(path, weight, "must be in the range 1-100");
    }
}

/// Errors of a `NodeSelector`.
pub fn node_selector(errors: &mut Errors, selector: &Value, path: &Path<'_>) {
    let terms = ("nodeSelectorTerms", Check::Given("must have at least one node selector term"));
    rules::check(errors, selector, path, &[terms]);
    each(selector, "nodeSelectorTerms", path, |term, path| node_term(errors, term, true, path));
}

fn node_term(errors: &mut Errors, term: &Value, check_values: bool, path: &Path<'_>) {
    each(term, "matchExpressions", path, |requirement, path| node_requirement(errors, requirement, check_values, path));
    rules::check(errors, term, path, &[("matchFields", Check::Each(node_field))]);
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
    rules::check(errors, term, path, POD_TERM);
    label_keys(errors, term, path);
    rules::check(errors, term, path, &[("topologyKey", TOPOLOGY_KEY)]);
    let key = term.text("topologyKey");
    errors.invalid_each(&path.field("topologyKey"), key, names::label_key(key));
}

/// Errors of namespaces are told of one field, which is not even theirs.
fn namespaces(errors: &mut Errors, term: &Value, path: &Path<'_>) {
    for name in term.texts("namespaces") {
        errors.invalid_each(path, name, names::label(name));
    }
}

/// Errors of `matchLabelKeys` and `mismatchLabelKeys`.
fn label_keys(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let selector = of.at("labelSelector");
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let (keys, path) = (of.texts(field), path.field(field));
        if !keys.is_empty() && selector.is_null() {
            errors.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, key) in keys.into_iter().enumerate() {
            errors.invalid_each(&path.index(i), key, names::label_key(key));
        }
    }
    let (matching, mismatching) = (of.texts("matchLabelKeys"), of.texts("mismatchLabelKeys"));
    let mut seen: HashSet<&str> = selector.entries("matchLabels").map(|(k, _)| k.as_str()).collect();
    let mut places: HashMap<&str, usize> = HashMap::new();
    matching.iter().enumerate().for_each(|(i, key)| _ = places.insert(key, i));
    for expression in selector.list("matchExpressions") {
        let key = expression.text("key");
        // the key's own requirement was merged into the selector; a second one is the author's
        if let Some(i) = places.get(key).filter(|_| seen.contains(key)) {
            errors.invalid(&path.index(*i), key, "exists in both matchLabelKeys and labelSelector");
        }
        seen.insert(key);
    }
    let list = path.field("matchLabelKeys");
    let mismatching: HashSet<&str> = mismatching.into_iter().collect();
    for (i, key) in matching.iter().enumerate().filter(|(_, k)| mismatching.contains(*k)) {
        errors.invalid(&list.index(i), *key, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

const SPREAD: &[Rule] = &[
    ("maxSkew", Check::In(skew)),
    ("topologyKey", TOPOLOGY_KEY),
    ("whenUnsatisfiable", Check::Among(&["DoNotSchedule", "ScheduleAnyway"])),
];
const SPREAD_REST: &[Rule] = &[
    ("minDomains", Check::In(min_domains)),
    ("nodeAffinityPolicy", Check::Optional(&["Honor", "Ignore"])),
    ("nodeTaintsPolicy", Check::Optional(&["Honor", "Ignore"])),
];

/// Errors of `topologySpreadConstraints`.
pub fn topology_spread(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let list = spec.list("topologySpreadConstraints");
    let pair = |c: &Value| format!("{{{}, {}}}", c.text("topologyKey"), c.text("whenUnsatisfiable"));
    // of two that are the same the first is told
    let mut again = repeated(list.iter().rev().map(pair));
    again.reverse();
    for (i, constraint) in list.iter().enumerate() {
        let path = path.index(i);
        rules::check(errors, constraint, &path, SPREAD);
        if again[i] {
            errors.duplicate(&path.field("{topologyKey, whenUnsatisfiable}"), pair(constraint));
        }
        rules::check(errors, constraint, &path, SPREAD_REST);
        label_keys(errors, constraint, &path);
        label_selector(errors, constraint.at("labelSelector"), &path.field("labelSelector"));
    }
}

fn skew(errors: &mut Errors, constraint: &Value, path: &Path<'_>) {
    let skew = constraint.int("maxSkew").unwrap_or(0);
    if skew <= 0 {
        errors.invalid(path, skew, "must be greater than zero");
    }
}

fn min_domains(errors: &mut Errors, constraint: &Value, path: &Path<'_>) {
    let (Some(domains), action) = (constraint.int("minDomains"), constraint.text("whenUnsatisfiable")) else { return };
    if domains <= 0 {
        errors.invalid(path, domains, "must be greater than zero");
    }
    if action != "DoNotSchedule" {
        let text = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        errors.invalid(path, domains, &text);
    }
}

/// Errors of `tolerations`.
pub fn tolerations(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    for (i, toleration) in of.list("tolerations").iter().enumerate() {
        let path = path.index(i);
        rules::check(errors, toleration, &path, &[("key", Check::MaybeNamed(names::label_key))]);
        if toleration.text("key").is_empty() && toleration.text("operator") != "Exists" {
            let text = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&path.field("operator"), toleration.text("operator"), text);
        }
        if toleration.has("tolerationSeconds") && toleration.text("effect") != "NoExecute" {
            let text = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&path.field("effect"), toleration.text("effect"), text);
        }
        toleration_operator(errors, toleration, &path.field("operator"));
        taint_effect(errors, toleration.text("effect"), true, &path.field("effect"));
    }
}

/// Errors of values are told of the operator.
fn toleration_operator(errors: &mut Errors, toleration: &Value, path: &Path<'_>) {
    let value = toleration.text("value");
    match toleration.text("operator") {
        "" | "Equal" => {
            let wrong = names::label_value(value);
            if !wrong.is_empty() {
                errors.invalid(path, value, &wrong.join(";"));
            }
        }
        "Exists" if !value.is_empty() => errors.invalid(path, value, "value must be empty when `operator` is 'Exists'"),
        "Exists" => {}
        // known, but behind a gate that is off
        gated @ ("Lt" | "Gt") => errors.not_supported(path, gated, &["Equal", "Exists", "Lt", "Gt"]),
        other => errors.not_supported(path, other, &["Equal", "Exists"]),
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
