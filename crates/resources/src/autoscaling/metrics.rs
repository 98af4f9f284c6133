//! Metrics and scaling rules of an autoscaler.

use crate::core::quantities::{self, quantity};
use crate::field::{Errors, Fields, NOT_NEGATIVE, Path};
use crate::names;
use crate::rules::{self, Check, Rule};
use serde_json::Value;

/// The types of metrics: their fields, the errors of what is measured, and of what is aimed at.
struct Source {
    field: &'static str,
    kind: &'static str,
    rules: &'static [Rule],
    goal: fn(&mut Errors, &Value, &Path<'_>),
}

const fn source(
    field: &'static str,
    kind: &'static str,
    rules: &'static [Rule],
    goal: fn(&mut Errors, &Value, &Path<'_>),
) -> Source {
    Source { field, kind, rules, goal }
}

const METRIC: Rule = ("metric", Check::By(identifier));
const NAME: Rule = ("name", Check::Given("must specify a resource name"));
const OF_CONTAINER: &[Rule] = &[
    NAME,
    ("name", Check::By(container_resource)),
    ("container", Check::Given("must specify a container")),
    ("container", Check::MaybeNamed(names::label)),
];
/// In the order in which they are looked at; only the first that a metric has is.
const SOURCES: [Source; 5] = [
    source("object", "Object", &[METRIC], of_object),
    source("external", "External", &[METRIC], of_external),
    source("pods", "Pods", &[METRIC], of_pods),
    source("resource", "Resource", &[NAME], of_resource),
    source("containerResource", "ContainerResource", OF_CONTAINER, of_resource),
];
const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const REFERENCE: &[Rule] = &[("kind", Check::Named(names::segment)), ("name", Check::Named(names::segment))];
const SHOWN: usize = 2;

/// What the `apiVersion` of a reference may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Whatever it is.
    Any,
    /// One that can be read.
    Valid,
    /// One with a group.
    Grouped,
}

/// Errors of a reference to what is scaled or measured.
pub fn reference(errors: &mut Errors, of: &Value, version: Version, path: &Path<'_>) {
    rules::check(errors, of, path, REFERENCE);
    if let Some(why) = bad_version(of.text("apiVersion"), version) {
        errors.invalid(&path.field("apiVersion"), of.text("apiVersion"), &why);
    }
}

fn bad_version(text: &str, version: Version) -> Option<String> {
    match text.split_once('/') {
        _ if version == Version::Any => None,
        Some((_, rest)) if rest.contains('/') => Some(format!("unexpected GroupVersion string: {text}")),
        None | Some(("", _)) if version == Version::Grouped => Some("apiVersion must specify API group".into()),
        _ => None,
    }
}

/// Whether a spec holds metrics of objects whose `apiVersion` cannot be read.
pub fn has_bad_versions(spec: &Value) -> bool {
    let of_objects = spec.list("metrics").iter().filter(|metric| metric.text("type") == "Object");
    let mut versions = of_objects.map(|metric| metric.at("object").at("describedObject").text("apiVersion"));
    versions.any(|version| bad_version(version, Version::Valid).is_some())
}

/// Errors of `metrics`; `version`: what the `apiVersion` of measured objects may be.
pub fn metrics(errors: &mut Errors, spec: &Value, version: Version, path: &Path<'_>) {
    let list = spec.list("metrics");
    for (i, metric) in list.iter().enumerate() {
        self::metric(errors, metric, version, &path.index(i));
    }
    let outside = list.iter().any(|m| ["Object", "External"].contains(&m.text("type")));
    if spec.int("minReplicas") == Some(0) && !outside {
        let text = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(path, text);
    }
}

fn metric(errors: &mut Errors, metric: &Value, version: Version, path: &Path<'_>) {
    let (kind, type_path) = (metric.text("type"), path.field("type"));
    rules::check(errors, metric, path, &[("type", Check::Given("must specify a metric source type"))]);
    errors.one_of(&type_path, kind, &TYPES);
    let present: Vec<&Source> = SOURCES.iter().filter(|source| metric.has(source.field)).collect();
    if let Some(source) = present.first() {
        let (of, path) = (metric.at(source.field), path.field(source.field));
        if source.kind == "Object" {
            reference(errors, of.at("describedObject"), version, &path.field("describedObject"));
        }
        rules::check(errors, of, &path, source.rules);
        target(errors, of.at("target"), &path.field("target"));
        (source.goal)(errors, of.at("target"), &path.field("target"));
    }
    match SOURCES.iter().find(|source| source.kind == kind) {
        Some(source) if !metric.has(source.field) => {
            errors.required(&path.field(source.field), "must populate information for the given metric source");
        }
        Some(_) => {}
        None => errors.one_of(&type_path, kind, &TYPES),
    }
    if present.len() > 1 {
        for other in present.iter().filter(|source| source.kind != kind) {
            errors.forbidden(&path.field(other.field), "must populate the given metric source only");
        }
    }
}

fn container_resource(errors: &mut Errors, name: &Value, path: &Path<'_>) {
    if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
        quantities::container_resource_name(errors, name, path);
    }
}

fn of_object(errors: &mut Errors, goal: &Value, path: &Path<'_>) {
    if !goal.has("value") && !goal.has("averageValue") {
        errors.required(&path.field("averageValue"), "must set either a target value or averageValue");
    }
}

fn of_external(errors: &mut Errors, goal: &Value, path: &Path<'_>) {
    let what = "a target value for metric";
    match (goal.has("value"), goal.has("averageValue")) {
        (false, false) => {
            errors.required(&path.field("averageValue"), &format!("must set either {what} or a per-pod target"));
        }
        (true, true) => {
            errors.forbidden(&path.field("value"), &format!("may not set both {what} and a per-pod target"));
        }
        _ => {}
    }
}

fn of_pods(errors: &mut Errors, goal: &Value, path: &Path<'_>) {
    if !goal.has("averageValue") {
        errors.required(&path.field("averageValue"), "must specify a positive target averageValue");
    }
}

fn of_resource(errors: &mut Errors, goal: &Value, path: &Path<'_>) {
    match (goal.has("averageValue"), goal.has("averageUtilization")) {
        (false, false) => {
            let text = "must set either a target raw value or a target utilization";
            errors.required(&path.field("averageUtilization"), text);
        }
        (true, true) => {
            let text = "may not set both a target raw value and a target utilization";
            errors.forbidden(&path.field("averageValue"), text);
        }
        _ => {}
    }
}

fn identifier(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    match of.text("name") {
        "" => errors.required(&path.field("name"), "must specify a metric name"),
        name => errors.invalid_each(&path.field("name"), name, names::segment(name)),
    }
}

fn target(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let kind = of.text("type");
    if kind.is_empty() {
        errors.required(&path.field("type"), "must specify a metric target type");
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind) {
        errors.invalid(&path.field("type"), kind, "must be either Utilization, Value, or AverageValue");
    }
    for field in ["value", "averageValue"].into_iter().filter(|f| of.has(f)) {
        let amount = quantity(of.at(field));
        if amount.sign() <= 0 {
            errors.invalid(&path.field(field), amount.to_string(), "must be positive");
        }
    }
    if let Some(percent) = of.int("averageUtilization").filter(|p| *p < 1) {
        errors.invalid(&path.field("averageUtilization"), percent, "must be greater than 0");
    }
}

const SCALING: &[Rule] = &[
    ("stabilizationWindowSeconds", Check::By(window)),
    ("selectPolicy", Check::Optional(&["Disabled", "Max", "Min"])),
    ("policies", Check::Given("must specify at least one Policy")),
    ("policies", Check::Each(policy)),
    ("tolerance", Check::By(tolerance)),
];
const POLICY: &[Rule] = &[
    ("type", Check::Among(&["Percent", "Pods"])),
    ("value", Check::In(positive_value)),
    ("periodSeconds", Check::In(period)),
];

/// Errors of `behavior.scaleUp` or `scaleDown`.
pub fn scaling_rules(errors: &mut Errors, rules: &Value, path: &Path<'_>) {
    if !rules.is_null() {
        rules::check(errors, rules, path, SCALING);
    }
}

fn window(errors: &mut Errors, seconds: &Value, path: &Path<'_>) {
    match seconds.as_i64() {
        Some(seconds) if seconds < 0 => errors.invalid(path, seconds, "must be greater than or equal to zero"),
        Some(seconds) if seconds > 3600 => errors.invalid(path, seconds, "must be less than or equal to 3600"),
        _ => {}
    }
}

fn policy(errors: &mut Errors, policy: &Value, path: &Path<'_>) {
    rules::check(errors, policy, path, POLICY);
}

fn positive(errors: &mut Errors, number: i64, path: &Path<'_>) {
    if number <= 0 {
        errors.invalid(path, number, "must be greater than zero");
    }
}

fn positive_value(errors: &mut Errors, policy: &Value, path: &Path<'_>) {
    positive(errors, policy.int("value").unwrap_or(0), path);
}

fn period(errors: &mut Errors, policy: &Value, path: &Path<'_>) {
    let seconds = policy.int("periodSeconds").unwrap_or(0);
    positive(errors, seconds, path);
    if seconds > 1800 {
        errors.invalid(path, seconds, "must be less than or equal to 1800");
    }
}

fn tolerance(errors: &mut Errors, tolerance: &Value, path: &Path<'_>) {
    let amount = quantity(tolerance);
    if amount.sign() < 0 {
        errors.invalid(path, amount.to_string(), NOT_NEGATIVE);
    }
}

/// What is measured and aimed at, `cpu: 10%/80%`.
pub fn summary(specs: &[Value], statuses: &[Value]) -> String {
    if specs.is_empty() {
        return "<none>".into();
    }
    let mut list: Vec<String> =
        specs.iter().enumerate().map(|(i, m)| one(m, statuses.get(i).unwrap_or(&Value::Null))).collect();
    let count = list.len();
    list.truncate(SHOWN);
    let text = list.join(", ");
    if count > SHOWN { format!("{text} + {} more...", count - SHOWN) } else { text }
}

fn one(metric: &Value, status: &Value) -> String {
    let Some(Source { field, kind, .. }) = SOURCES.iter().find(|source| source.kind == metric.text("type")) else {
        return "<unknown type>".into();
    };
    let (of, goal) = (metric.at(field), metric.at(field).at("target"));
    let current = status.at(field).at("current");
    let amount = |from: &Value, name: &str| from.has(name).then(|| quantity(from.at(name)).to_string());
    let percent = |from: &Value| from.int("averageUtilization").map(|p| format!("{p}%"));
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "<unknown>".into());
    let average = goal.has("averageValue");
    match *kind {
        "Object" | "External" if average => {
            format!("{}/{} (avg)", or_unknown(amount(current, "averageValue")), quantity(goal.at("averageValue")))
        }
        "Object" | "External" => format!("{}/{}", or_unknown(amount(current, "value")), quantity(goal.at("value"))),
        "Pods" => format!("{}/{}", or_unknown(amount(current, "averageValue")), quantity(goal.at("averageValue"))),
        _ if average => {
            let current = or_unknown(amount(current, "averageValue"));
            format!("{}: {current}/{}", of.text("name"), quantity(goal.at("averageValue")))
        }
        _ => {
            let goal = percent(goal).unwrap_or_else(|| "<auto>".into());
            format!("{}: {}/{goal}", of.text("name"), or_unknown(percent(current)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_have_a_group() {
        let check = |text: &str, version: Version, want: Option<&str>| {
            assert_eq!(bad_version(text, version).as_deref(), want, "{text}");
        };
        check("apps/v1", Version::Grouped, None);
        for text in ["v1", "", "/a", "/"] {
            check(text, Version::Grouped, Some("apiVersion must specify API group"));
            check(text, Version::Valid, None);
        }
        check("a/b/c", Version::Valid, Some("unexpected GroupVersion string: a/b/c"));
        check("a/b/c", Version::Any, None);
    }

    #[test]
    fn a_container_is_named_and_its_resource_known() {
        let spec = json!({"metrics": [{"type": "ContainerResource", "containerResource": {"name": "b",
            "container": "1.2", "target": {"type": "Value", "averageUtilization": 1}}}]});
        let mut errors = Errors::default();
        metrics(&mut errors, &spec, Version::Valid, &Path::root("m"));
        let got: Vec<&str> = errors.0.iter().map(|cause| cause.field.as_str()).collect();
        let name = "m[0].containerResource.name";
        assert_eq!(got, [name, name, "m[0].containerResource.container"]);
    }
}
