//! `apps`: workloads, and what they share.

pub mod controller_revision;
pub mod daemon_set;
pub mod deployment;
pub mod replica_set;
pub mod stateful_set;
pub mod status;

use crate::core::pod::{template, warnings};
use crate::field::{Errors, Fields, Path, map_mut, set_default};
use crate::{Scale, metadata, names};
use api::Object;
use serde_json::Value;

const SPEC: Path<'static> = Path::root("spec");

/// Names and images of a template's containers, each joined by commas.
pub fn containers(template: &Value) -> (String, String) {
    let list = template.at("spec").list("containers");
    let join = |field: &str| list.iter().map(|c| c.text(field)).collect::<Vec<_>>().join(",");
    (join("name"), join("image"))
}

/// A selector as Go prints it.
pub fn print_selector(selector: &Value) -> String {
    schema::internal_json("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector", selector, schema::Layout::Compact)
}

/// Whether a selector matches labels; `None` when it is malformed, which it is by a single bad key or value.
pub fn selects(selector: &Value, labels: &Value) -> Option<bool> {
    let mut wrong = Errors::default();
    metadata::label_selector(&mut wrong, selector, &Path::TOP);
    if wrong.is_empty() { metadata::selector_matches(selector, labels) } else { None }
}

/// An error when a selector changed.
pub fn fixed_selector(errors: &mut Errors, new: &Value, old: &Value) {
    let same = crate::field::same(new.at("selector"), old.at("selector"));
    if !same || new.has("selector") != old.has("selector") {
        let selector = new.at("selector");
        let printed = || if selector.is_null() { "null".into() } else { print_selector(selector) };
        errors.invalid_printed(&SPEC.field("selector"), printed, crate::field::IMMUTABLE);
    }
}

/// How a kind words what is wrong with a selector.
struct SelectorWords {
    /// What the error of an empty selector calls the kind.
    kind: &'static str,
    /// The detail of a malformed selector.
    malformed: &'static str,
}

/// Errors of a workload's selector, and of its template: it must have the selector's labels, and hold a pod that
/// restarts always. A malformed selector matches nothing, and the template is then not looked at any further.
fn selector_and_template(
    errors: &mut Errors,
    spec: &Value,
    words: &SelectorWords,
    template: impl FnOnce(&mut Errors, &Value, &Path<'_>),
) {
    let (selector, path) = (spec.at("selector"), SPEC.field("selector"));
    match selector.is_null() {
        true => errors.required(&path, ""),
        false => own_selector(errors, selector, words.kind, &path),
    }
    let (of, at) = (spec.at("template"), SPEC.field("template"));
    match selects(selector, of.at("metadata").at("labels")) {
        None => return errors.invalid_printed(&path, || print_selector(selector), words.malformed),
        Some(false) => template::labels_mismatch(errors, of, &at),
        Some(true) => {}
    }
    template(errors, of, &at);
}

/// Errors of a selector that may not be empty; `kind` is what the error calls its owner.
fn own_selector(errors: &mut Errors, selector: &Value, kind: &str, path: &Path<'_>) {
    metadata::label_selector(errors, selector, path);
    if metadata::selector_is_empty(selector) {
        errors.invalid_printed(path, || "{}".into(), &format!("empty selector is invalid for {kind}"));
    }
}

/// Errors of the selector and template of deployments and replica sets, which word them alike.
fn replicated(errors: &mut Errors, spec: &Value) {
    let words = SelectorWords { kind: "deployment", malformed: "invalid label selector" };
    selector_and_template(errors, spec, &words, |errors, of, at| {
        template::validate(errors, of, at);
        template::restart_always(errors, of, "ReplicaSet", at);
    });
}

/// Defaults of a strategy that rolls, with as many pods missing or too many as the kind allows. Numbers that another
/// strategy leaves out are zero: they are no pointers inside the server.
fn rolling_defaults(strategy: &mut Value, unavailable: impl Into<Value>, surge: impl Into<Value>) {
    set_default(strategy, "type", "RollingUpdate");
    let (unavailable, surge) = match strategy.text("type") == "RollingUpdate" {
        true => (unavailable.into(), surge.into()),
        false if strategy.has("rollingUpdate") => (0.into(), 0.into()),
        false => return,
    };
    if let Some(rolling) = map_mut(strategy, "rollingUpdate") {
        set_default(rolling, "maxUnavailable", unavailable);
        set_default(rolling, "maxSurge", surge);
    }
}

/// Warnings about a workload's template, where the workload's spec is new.
fn template_warnings(obj: &Object, old: Option<&Object>) -> Vec<String> {
    match warnings::due(obj, old) {
        true => warnings::template(obj.at("spec").at("template"), &SPEC.field("template")),
        false => Vec::new(),
    }
}

/// As [`template_warnings`], where the object's name becomes part of its pods' names.
pub fn named_template_warnings(obj: &Object, old: Option<&Object>) -> Vec<String> {
    let mut out = Vec::from_iter(warnings::host_name(obj, old, warnings::OF_PODS));
    out.extend(template_warnings(obj, old));
    out
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

/// The number of a percentage; one that no number holds is the largest.
pub fn percentage(value: &Value) -> Option<i64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    let fine = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    fine.then(|| digits.parse().unwrap_or(i64::MAX))
}

/// The number, of a percentage or a plain number, which a text may be too.
fn number(value: &Value) -> i64 {
    let written = || value.as_str()?.parse().ok();
    percentage(value).or(value.as_i64()).or_else(written).unwrap_or(0)
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
pub fn zero_counts(obj: &mut Object, fields: &[&str]) {
    if let Some(status) = map_mut(obj, "status") {
        fields.iter().for_each(|field| set_default(status, field, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_bad_key_or_value_makes_a_selector_malformed() {
        let check = |selector: Value, want: Option<bool>| assert_eq!(selects(&selector, &json!({"a": "x"})), want);
        check(json!({"matchLabels": {"a": "x"}}), Some(true));
        check(json!({"matchLabels": {"a": "y"}}), Some(false));
        check(json!({"matchLabels": {"a": "::1"}}), None);
        check(json!({"matchLabels": {"Bad Key": "x"}}), None);
        check(json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}), None);
        check(Value::Null, Some(false));
    }

    #[test]
    fn selectors_print_what_is_required() {
        let selector = json!({"matchLabels": {}, "matchExpressions": [{"operator": "In"}]});
        assert_eq!(print_selector(&selector), r#"{"matchExpressions":[{"key":"","operator":"In"}]}"#);
    }

    #[test]
    fn numbers_of_pods() {
        let check = |value: Value, want: i64| assert_eq!(number(&value), want, "{value}");
        check(json!("10%"), 10);
        check(json!("-1%"), 0);
        check(json!("99999999999999999999%"), i64::MAX);
        check(json!("5"), 5);
        check(json!(3), 3);
        check(json!("x"), 0);
    }
}
