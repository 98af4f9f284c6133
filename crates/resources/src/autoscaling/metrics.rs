//! Metrics and scaling rules of an autoscaler.

use crate::core::quantities::quantity;
use crate::field::{Errors, Fields, NOT_NEGATIVE, Path};
use crate::{metadata, names};
use serde_json::Value;

const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
/// Fields in the order upstream looks at them, and the types they belong to.
const SOURCES: [(&str, &str); 5] = [
    ("object", "Object"),
    ("external", "External"),
    ("pods", "Pods"),
    ("resource", "Resource"),
    ("containerResource", "ContainerResource"),
];
const SHOWN: usize = 2;

/// Errors of a reference to a scalable or measured object.
pub fn object_reference(errors: &mut Errors, of: &Value, needs_group: bool, path: &Path<'_>) {
    for field in ["kind", "name"] {
        match of.text(field) {
            "" => errors.required(&path.field(field), ""),
            text => errors.invalid_each(&path.field(field), text, names::path_segment(text, false)),
        }
    }
    let version = of.text("apiVersion");
    let core = of.text("kind") == "ReplicationController" && version == "v1";
    if needs_group && !core && !version.contains('/') {
        let text = "apiVersion must specify API group";
        errors.invalid(&path.field("apiVersion"), version, text);
    }
}

/// Errors of `metrics`.
pub fn metrics(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let list = spec.list("metrics");
    for (i, metric) in list.iter().enumerate() {
        self::metric(errors, metric, &path.index(i));
    }
    let outside = list.iter().any(|m| ["Object", "External"].contains(&m.text("type")));
    if spec.int("minReplicas") == Some(0) && !outside {
        let text = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(path, text);
    }
}

fn metric(errors: &mut Errors, metric: &Value, path: &Path<'_>) {
    let (kind, type_path) = (metric.text("type"), path.field("type"));
    if kind.is_empty() {
        errors.required(&type_path, "must specify a metric source type");
    }
    errors.supported(&type_path, kind, &TYPES);
    let present: Vec<&str> = SOURCES.iter().map(|(field, _)| *field).filter(|f| metric.has(f)).collect();
    if let Some(field) = present.first() {
        source(errors, field, metric.at(field), &path.field(field));
    }
    match SOURCES.iter().find(|(_, k)| *k == kind) {
        Some((field, _)) if !metric.has(field) => {
            errors.required(&path.field(field), "must populate information for the given metric source");
        }
        Some(_) => {}
        None => errors.one_of(&type_path, kind, &TYPES),
    }
    if present.len() > 1 {
        for field in present.iter().filter(|f| !SOURCES.contains(&(**f, kind))) {
            errors.forbidden(&path.field(field), "must populate the given metric source only");
        }
    }
}

fn source(errors: &mut Errors, kind: &str, of: &Value, path: &Path<'_>) {
    let (goal, at) = (of.at("target"), path.field("target"));
    match kind {
        "object" => {
            object_reference(errors, of.at("describedObject"), false, &path.field("describedObject"));
            identifier(errors, of.at("metric"), &path.field("metric"));
        }
        "external" | "pods" => identifier(errors, of.at("metric"), &path.field("metric")),
        _ => {
            if of.text("name").is_empty() {
                errors.required(&path.field("name"), "must specify a resource name");
            }
            if kind == "containerResource" && of.text("container").is_empty() {
                errors.required(&path.field("container"), "must specify a container");
            }
        }
    }
    target(errors, goal, &at);
    let (value, average, percent) = (goal.has("value"), goal.has("averageValue"), goal.has("averageUtilization"));
    match kind {
        "object" if !value && !average => {
            errors.required(&at.field("averageValue"), "must set either a target value or averageValue");
        }
        "external" if !value && !average => {
            errors.required(&at.field("averageValue"), "must set either a target value for metric or a per-pod target");
        }
        "external" if value && average => {
            errors.forbidden(&at.field("value"), "may not set both a target value for metric and a per-pod target");
        }
        "pods" if !average || quantity(goal.at("averageValue")).sign() <= 0 => {
            errors.required(&at.field("averageValue"), "must specify a positive target averageValue");
        }
        "resource" | "containerResource" if !average && !percent => {
            errors.required(
                &at.field("averageUtilization"),
                "must set either a target raw value or a target utilization",
            );
        }
        "resource" | "containerResource" if average && percent => {
            errors.forbidden(&at.field("averageValue"), "may not set both a target raw value and a target utilization");
        }
        _ => {}
    }
}

fn identifier(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    match of.text("name") {
        "" => errors.required(&path.field("name"), "must specify a metric name"),
        name => errors.invalid_each(&path.field("name"), name, names::path_segment(name, false)),
    }
    metadata::label_selector(errors, of.at("selector"), &path.field("selector"));
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

/// Errors of `behavior.scaleUp` or `scaleDown`.
pub fn scaling_rules(errors: &mut Errors, rules: &Value, path: &Path<'_>) {
    let at = path.field("stabilizationWindowSeconds");
    match rules.int("stabilizationWindowSeconds") {
        Some(seconds) if seconds < 0 => errors.invalid(&at, seconds, "must be greater than or equal to zero"),
        Some(seconds) if seconds > 3600 => errors.invalid(&at, seconds, "must be less than or equal to 3600"),
        _ => {}
    }
    if rules.has("selectPolicy") {
        errors.supported(&path.field("selectPolicy"), rules.text("selectPolicy"), &["Disabled", "Max", "Min"]);
    }
    let list = path.field("policies");
    if rules.list("policies").is_empty() {
        errors.required(&list, "must specify at least one Policy");
    }
    for (i, policy) in rules.list("policies").iter().enumerate() {
        let path = list.index(i);
        errors.supported(&path.field("type"), policy.text("type"), &["Percent", "Pods"]);
        for field in ["value", "periodSeconds"] {
            let number = policy.int(field).unwrap_or(0);
            if number <= 0 {
                errors.invalid(&path.field(field), number, "must be greater than zero");
            }
            if field == "periodSeconds" && number > 1800 {
                errors.invalid(&path.field(field), number, "must be less than or equal to 1800");
            }
        }
    }
    if rules.has("tolerance") && quantity(rules.at("tolerance")).sign() < 0 {
        errors.invalid(&path.field("tolerance"), quantity(rules.at("tolerance")).to_string(), NOT_NEGATIVE);
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
    let Some((field, kind)) = SOURCES.iter().find(|(_, k)| *k == metric.text("type")) else {
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
