//! `apps`: workloads, and what they share.

pub mod controller_revision;
pub mod daemon_set;
pub mod deployment;
pub mod replica_set;
pub mod stateful_set;

use crate::core::pod::{template, warnings};
use crate::field::{Errors, Fields, Path};
use crate::{Scale, metadata, names};
use api::{Cause, Object};
use serde_json::{Value, json};

const SPEC: Path<'static> = Path::root("spec");

/// Names and images of a template's containers, each joined by commas.
pub fn containers(template: &Value) -> (String, String) {
    let list = template.at("spec").list("containers");
    let join = |field: &str| list.iter().map(|c| c.text(field)).collect::<Vec<_>>().join(",");
    (join("name"), join("image"))
}

/// A selector as JSON in the order of its fields.
pub fn print_selector(selector: &Value) -> String {
    let mut fields = Vec::new();
    if selector.entries("matchLabels").next().is_some() {
        fields.push(format!("\"matchLabels\":{}", selector.at("matchLabels")));
    }
    let expressions = selector.list("matchExpressions");
    if !expressions.is_empty() {
        fields.push(format!("\"matchExpressions\":{}", json!(expressions)));
    }
    format!("{{{}}}", fields.join(","))
}

/// An error when a selector changed.
pub fn fixed_selector(errors: &mut Errors, new: &Value, old: &Value) {
    if !crate::field::same(new.at("selector"), old.at("selector")) {
        let printed = if new.at("selector").is_null() { "null".into() } else { print_selector(new.at("selector")) };
        errors.invalid_printed(&SPEC.field("selector"), &printed, crate::field::IMMUTABLE);
    }
}

/// Errors of a selector and the template it must match. `word` is what upstream calls the kind in the error of
/// an empty selector.
fn selector_and_template(errors: &mut Errors, spec: &Value, word: &str, kind: &str) {
    let (selector, path) = (spec.at("selector"), SPEC.field("selector"));
    if selector.is_null() {
        errors.required(&path, "");
    } else {
        metadata::label_selector(errors, selector, &path);
        if metadata::selector_is_empty(selector) {
            errors.invalid_printed(&path, "{}", &format!("empty selector is invalid for {word}"));
        }
    }
    let (of, at) = (spec.at("template"), SPEC.field("template"));
    let labels = of.at("metadata").at("labels");
    match metadata::selector_matches(selector, labels) {
        None => errors.invalid_printed(&path, &print_selector(selector), "invalid label selector"),
        Some(matches) => {
            if !matches {
                template::labels_mismatch(errors, of, &at);
            }
            template::validate(errors, of, &at);
            template::restart_always(errors, of, kind, &at);
        }
    }
}

/// Warnings about a workload's template.
fn template_warnings(obj: &Object) -> Vec<String> {
    let template = obj.at("spec").at("template");
    warnings::pod_spec(template.at("spec"), template.at("metadata"), &SPEC.field("template.spec"))
}

/// Errors of a number of pods, or a percentage of them.
pub fn int_or_percent(errors: &mut Errors, value: &Value, path: &Path<'_>) {
    match value {
        Value::String(text) => {
            errors.invalid_each(path, text, names::percent(text));
        }
        other => errors.non_negative(path, other.as_i64().unwrap_or(0)),
    }
}

/// An error when a percentage is over 100.
pub fn at_most_all(errors: &mut Errors, value: &Value, path: &Path<'_>) {
    if percentage(value).is_some_and(|p| p > 100) {
        errors.invalid(path, value.clone(), "must not be greater than 100%");
    }
}

/// The number of a percentage.
pub fn percentage(value: &Value) -> Option<i64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}

/// The number, of a percentage or a plain number.
fn number(value: &Value) -> i64 {
    percentage(value).or(value.as_i64()).unwrap_or(0)
}

/// Errors of counts of replicas in a status.
pub fn replica_counts(obj: &Object) -> Vec<Cause> {
    let (mut errors, path, status) = (Errors::default(), Path::root("status"), obj.at("status"));
    let of = |field: &str| status.int(field).unwrap_or(0);
    for field in ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"] {
        errors.non_negative(&path.field(field), of(field));
    }
    if status.has("terminatingReplicas") {
        errors.non_negative(&path.field("terminatingReplicas"), of("terminatingReplicas"));
    }
    for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        if of(field) > of("replicas") {
            errors.invalid(&path.field(field), of(field), "cannot be greater than status.replicas");
        }
    }
    if of("availableReplicas") > of("readyReplicas") {
        errors.invalid(
            &path.field("availableReplicas"),
            of("availableReplicas"),
            "cannot be greater than readyReplicas",
        );
    }
    errors.0
}

/// The scale of a workload with a selector.
fn scale(obj: &Object) -> Option<Scale> {
    let (spec, status) = (obj.at("spec"), obj.at("status"));
    let selector = metadata::format_selector(spec.at("selector"));
    Some(Scale {
        spec_replicas: spec.int("replicas").unwrap_or(0),
        status_replicas: status.int("replicas").unwrap_or(0),
        selector: if selector == "<none>" { String::new() } else { selector },
    })
}

/// Sets counts that are shown even when zero.
fn zero_counts(obj: &mut Object, fields: &[&str]) {
    if let Some(status) = crate::field::map_mut(obj, "status") {
        for field in fields.iter().filter(|f| !status.has(f)).collect::<Vec<_>>() {
            status[*field] = 0.into();
        }
    }
}
