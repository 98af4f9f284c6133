//! What an access review must not contain: metadata, and selectors that contradict themselves.

use api::{Cause, Object};
use serde_json::{Map, Value, json};

/// The order in which Kubernetes writes the fields of metadata.
const FIELDS: &[&str] = &[
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
];
const ENTRY: &[&str] = &["manager", "operation", "apiVersion", "time", "fieldsType", "fieldsV1", "subresource"];

/// Metadata must be empty but for what the server puts there; a local review's may name its namespace.
pub fn metadata(review: &Object, kind: &str) -> Option<Cause> {
    let local = kind == "LocalSubjectAccessReview";
    let metadata = review.get("metadata").and_then(Value::as_object)?;
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Bool(_) => false,
    };
    let given = metadata.iter().filter(|(_, value)| !empty(value)).map(|(key, _)| key.as_str());
    if given.filter(|key| *key != "managedFields").all(|key| local && key == "namespace") {
        return None;
    }
    let why = if local { "must be empty except for namespace" } else { "must be empty" };
    let mut cause = Cause::invalid("metadata", &Value::Null, why);
    cause.message = format!("Invalid value: {}: {why}", shown(metadata));
    Some(cause)
}

/// Metadata as the server would write it, in its order of fields.
fn shown(metadata: &Map<String, Value>) -> String {
    let mut metadata = metadata.clone();
    let entries = metadata.get("managedFields").and_then(Value::as_array);
    let entries: Option<Vec<_>> = entries.map(|list| list.iter().map(|e| ordered(e.as_object(), ENTRY)).collect());
    metadata.remove("managedFields");
    let mut text = ordered(Some(&metadata), FIELDS);
    if let Some(entries) = entries {
        text.pop();
        let comma = if text.len() > 1 { "," } else { "" };
        text.push_str(&format!("{comma}\"managedFields\":[{}]}}", entries.join(",")));
    }
    text
}

fn ordered(object: Option<&Map<String, Value>>, order: &[&str]) -> String {
    let fields = order.iter().filter_map(|key| Some((key, object?.get(*key)?))).filter(|(_, v)| !v.is_null());
    let fields: Vec<_> = fields.map(|(key, value)| format!("\"{key}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// The selectors of `resourceAttributes`: raw or by requirements, and requirements that make sense.
pub fn selectors(attributes: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for name in ["fieldSelector", "labelSelector"] {
        let Some(selector) = attributes.get(name).filter(|s| s.is_object()) else { continue };
        let path = format!("spec.resourceAttributes.{name}");
        let raw = selector.get("rawSelector").and_then(Value::as_str).unwrap_or("");
        let requirements = list(selector, "requirements");
        match (raw.is_empty(), requirements.is_empty()) {
            (false, false) => {
                let why = "may not specified at the same time as requirements";
                causes.push(Cause::invalid(format!("{path}.rawSelector"), &json!(raw), why));
            }
            (true, true) => {
                let why = format!("when {path} is specified, requirements or rawSelector is required");
                causes.push(Cause::required(format!("{path}.requirements"), &why));
            }
            _ => {}
        }
        for (at, requirement) in requirements.iter().enumerate() {
            check(requirement, &format!("{path}.requirements[{at}]"), name == "labelSelector", &mut causes);
        }
    }
    causes
}

fn check(requirement: &Value, path: &str, labels: bool, causes: &mut Vec<Cause>) {
    let text = |key: &str| requirement.get(key).and_then(Value::as_str).unwrap_or("");
    let values = list(requirement, "values");
    let key = text("key");
    if !labels && key.is_empty() {
        causes.push(Cause::required(format!("{path}.key"), "must be specified"));
    }
    // Operators that are not known come from newer clients.
    match text("operator") {
        "In" | "NotIn" if values.is_empty() => {
            let why = "must be specified when `operator` is 'In' or 'NotIn'";
            causes.push(Cause::required(format!("{path}.values"), why));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            causes.push(Cause::forbidden(format!("{path}.values"), why));
        }
        _ => {}
    }
    if labels {
        for why in resources::names::qualified_name(key) {
            causes.push(Cause::invalid(format!("{path}.key"), &json!(key), &why));
        }
        for (at, value) in values.iter().enumerate() {
            for why in resources::names::label_value(value.as_str().unwrap_or("")) {
                causes.push(Cause::invalid(format!("{path}.values[{at}]"), value, &why));
            }
        }
    }
}

fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_must_be_empty() {
        let check = |kind: &str, metadata: Value, want: &str| {
            let found = super::metadata(&json!({ "metadata": metadata }), kind).map(|c| c.message).unwrap_or_default();
            assert_eq!(found, want);
        };
        check("SubjectAccessReview", json!({"managedFields": [{}], "labels": {}}), "");
        check("LocalSubjectAccessReview", json!({"namespace": "n"}), "");
        check("SubjectAccessReview", json!({"namespace": "n"}), r#"Invalid value: {"namespace":"n"}: must be empty"#);
        check(
            "LocalSubjectAccessReview",
            json!({"name": "n", "managedFields": [{"operation": "Update", "manager": "m"}]}),
            r#"Invalid value: {"name":"n","managedFields":[{"manager":"m","operation":"Update"}]}: must be empty except for namespace"#,
        );
    }

    #[test]
    fn selectors_make_sense() {
        let check = |attributes: Value, want: &[&str]| {
            let found: Vec<_> = selectors(&attributes).into_iter().map(|c| c.field).collect();
            assert_eq!(found, want, "{attributes}");
        };
        let of =
            |key: &str, operator: &str, values: Value| json!([{"key": key, "operator": operator, "values": values}]);
        check(json!({"fieldSelector": {"rawSelector": "a=b"}}), &[]);
        check(json!({"fieldSelector": {}}), &["spec.resourceAttributes.fieldSelector.requirements"]);
        check(
            json!({"labelSelector": {"requirements": of("a b", "Exists", json!(["v"]))}}),
            &[
                "spec.resourceAttributes.labelSelector.requirements[0].values",
                "spec.resourceAttributes.labelSelector.requirements[0].key",
            ],
        );
        check(
            json!({"fieldSelector": {"requirements": of("", "In", json!([]))}}),
            &[
                "spec.resourceAttributes.fieldSelector.requirements[0].key",
                "spec.resourceAttributes.fieldSelector.requirements[0].values",
            ],
        );
    }
}
