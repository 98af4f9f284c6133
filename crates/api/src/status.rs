//! `Status`: the only error on the wire, with Kubernetes' codes, reasons and messages.

use crate::quoted;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fmt;

/// The kind of a field error (`apimachinery/pkg/util/validation/field`), as its reason on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum CauseType {
    FieldValueNotFound,
    FieldValueRequired,
    FieldValueDuplicate,
    FieldValueInvalid,
    FieldValueNotSupported,
    FieldValueForbidden,
    FieldValueTooLong,
    FieldValueTooMany,
    FieldValueTypeInvalid,
    InternalError,
}

/// One field error: `spec.x: Invalid value: "v": must be y`.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// What is wrong with the field.
    pub kind: CauseType,
    /// Path of the field, `spec.containers[0].name`.
    pub field: String,
    /// The body without the path: `Invalid value: "v": must be y`.
    pub message: String,
}

impl Cause {
    /// `Required value: detail`.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::of(CauseType::FieldValueRequired, field, "Required value", None, detail)
    }

    /// `Invalid value: <value>: detail`; strings are quoted, other values printed as Go does (`%#v` of JSON).
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::of(CauseType::FieldValueInvalid, field, "Invalid value", Some(value), detail)
    }

    /// `Unsupported value: "v": supported values: "a", "b"`.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list = supported.iter().map(|s| quoted(s).to_string()).collect::<Vec<_>>().join(", ");
        let detail = if list.is_empty() { String::new() } else { format!("supported values: {list}") };
        Self::of(CauseType::FieldValueNotSupported, field, "Unsupported value", Some(value), &detail)
    }

    /// `Duplicate value: "v"`.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::of(CauseType::FieldValueDuplicate, field, "Duplicate value", Some(value), "")
    }

    /// `Forbidden: detail`.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::of(CauseType::FieldValueForbidden, field, "Forbidden", None, detail)
    }

    /// `Not found: "v"`.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::of(CauseType::FieldValueNotFound, field, "Not found", Some(value), "")
    }

    /// `Too long: may not be more than N bytes`.
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self::of(CauseType::FieldValueTooLong, field, "Too long", None, &detail)
    }

    /// `Too many: N: must have at most M items`.
    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        let detail = format!("must have at most {max} item{}", if max == 1 { "" } else { "s" });
        Self::of(CauseType::FieldValueTooMany, field, "Too many", Some(&json!(actual)), &detail)
    }

    fn of(kind: CauseType, field: impl Into<String>, word: &str, value: Option<&Value>, detail: &str) -> Self {
        let mut message = word.to_owned();
        if let Some(value) = value {
            message.push_str(": ");
            message.push_str(&go_value(value));
        }
        if !detail.is_empty() {
            message.push_str(": ");
            message.push_str(detail);
        }
        Self { kind, field: field.into(), message }
    }
}

fn go_value(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text).to_string(),
        Value::Null => "null".into(),
        Value::Array(_) | Value::Object(_) => escaped(&value.to_string()),
        other => other.to_string(),
    }
}

/// JSON as Go writes it: safe inside of HTML.
fn escaped(json: &str) -> String {
    if !json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return json.to_owned();
    }
    let escape = |c: char| match c {
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => format!("\\u{:04x}", c as u32),
        c => c.to_string(),
    };
    json.chars().map(escape).collect()
}

/// A `metav1.Status` failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, `NotFound`; empty when unknown.
    pub reason: String,
    /// Text for people.
    pub message: String,
    /// `details`, absent when `Null`.
    pub details: Value,
    /// `metadata.continue`: where an expired list can be continued inconsistently; empty when there is none.
    pub continue_token: String,
}

impl Status {
    /// Builds a failure without details.
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            message: message.into(),
            details: Value::Null,
            continue_token: String::new(),
        }
    }

    /// 400 with a message.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403 for a resource: `pods "x" is forbidden: why`.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = match (resource, name) {
            ("", "") => format!("forbidden: {why}"),
            (_, "") => format!("{} is forbidden: {why}", group_resource(group, resource)),
            _ => format!("{} {} is forbidden: {why}", group_resource(group, resource), quoted(name)),
        };
        Self { details: details(name, group, resource), ..Self::new(403, "Forbidden", message) }
    }

    /// 404 for a named object.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {} not found", group_resource(group, resource), quoted(name));
        Self { details: details(name, group, resource), ..Self::new(404, "NotFound", message) }
    }

    /// 404 for a path that nothing serves.
    pub fn no_such_path() -> Self {
        Self { details: json!({}), ..Self::new(404, "NotFound", "the server could not find the requested resource") }
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self { details: json!({}), ..Self::new(405, "MethodNotAllowed", message) }
    }

    /// 409 on create.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {} already exists", group_resource(group, resource), quoted(name));
        Self { details: details(name, group, resource), ..Self::new(409, "AlreadyExists", message) }
    }

    /// 409 on update: `Operation cannot be fulfilled on pods "x": why`.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {}: {why}", group_resource(group, resource), quoted(name));
        Self { details: details(name, group, resource), ..Self::new(409, "Conflict", message) }
    }

    /// 410: the resource version asked for has been compacted.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 422 with every field error: `Pod "x" is invalid: [a, b]`.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let text: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let mut seen = HashSet::new();
        let unique: Vec<&str> = text.iter().map(String::as_str).filter(|t| seen.insert(*t)).collect();
        let body = match unique.as_slice() {
            [one] => (*one).to_owned(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut details = details(name, group, kind);
        if let Value::Object(map) = &mut details {
            let list = causes.iter().map(|c| json!({"reason": c.kind, "message": c.message, "field": c.field}));
            map.insert("causes".into(), list.collect());
        }
        let prefix = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        Self { details, ..Self::new(422, "Invalid", format!("{prefix} {} is invalid: {body}", quoted(name))) }
    }

    /// 429 with a Retry-After of `seconds`.
    pub fn too_many_requests(message: impl Into<String>, seconds: u32) -> Self {
        Self { details: json!({"retryAfterSeconds": seconds}), ..Self::new(429, "TooManyRequests", message) }
    }

    /// 500: `Internal error occurred: why`.
    pub fn internal(why: impl fmt::Display) -> Self {
        let message = format!("Internal error occurred: {why}");
        let details = json!({"causes": [{"message": why.to_string()}]});
        Self { details, ..Self::new(500, "InternalError", message) }
    }

    /// 504 with a message.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message)
    }

    /// The JSON object that is sent.
    pub fn to_object(&self) -> Value {
        let mut out = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code});
        if !self.reason.is_empty() {
            out["reason"] = self.reason.as_str().into();
        }
        if !self.continue_token.is_empty() {
            out["metadata"]["continue"] = self.continue_token.as_str().into();
        }
        if !self.details.is_null() {
            out["details"] = self.details.clone();
        }
        out
    }

    /// Seconds a client is asked to wait, when it is.
    pub fn retry_after(&self) -> Option<u64> {
        self.details.get("retryAfterSeconds")?.as_u64()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

fn group_resource(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

fn details(name: &str, group: &str, kind: &str) -> Value {
    let fields = [("name", name), ("group", group), ("kind", kind)];
    fields
        .into_iter()
        .filter(|(_, v)| !v.is_empty())
        .map(|(k, v)| (k.to_owned(), v.into()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_kubernetes() {
        let check = |status: Status, want: &str| assert_eq!(status.message, want);
        check(Status::not_found("apps", "deployments", "a"), "deployments.apps \"a\" not found");
        check(Status::forbidden("", "pods", "", "no"), "pods is forbidden: no");
        let causes = [Cause::required("metadata.name", "name or generateName is required")];
        check(
            Status::invalid("", "ConfigMap", "", &causes),
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
        );
        let two = [Cause::invalid("a", &json!("x"), "bad"), Cause::not_supported("b", &json!("y"), &["p", "q"])];
        check(
            Status::invalid("apps", "Deployment", "d", &two),
            "Deployment.apps \"d\" is invalid: [a: Invalid value: \"x\": bad, b: Unsupported value: \"y\": supported values: \"p\", \"q\"]",
        );
    }
}
