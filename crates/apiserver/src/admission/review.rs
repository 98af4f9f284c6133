//! AdmissionReview: what webhooks are asked, and what their answers mean.

use super::Attributes;
use super::versions;
use crate::authn::UserInfo;
use crate::registry::Resource;
use api::{Gvk, Object, Status};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// The object and what it was before, as a webhook sees them.
pub struct Shown {
    /// The object; a deletion has none.
    pub object: Option<Object>,
    /// What it was.
    pub old: Option<Object>,
}

/// The versions of the review that are spoken, by the names that webhooks list.
pub fn known_version(name: &str) -> Option<&'static str> {
    ["v1", "v1beta1"].into_iter().find(|known| *known == name)
}

/// The `request` of a review; policies see the same.
pub fn request(a: &Attributes<'_>, resource: &Resource, kind: &Gvk) -> Map<String, Value> {
    let of_kind = |k: &Gvk| json!({"group": k.group, "version": k.version, "kind": k.kind});
    let of_resource = |r: &Resource| json!({"group": r.group, "version": r.version, "resource": r.resource});
    let mut request = Map::new();
    request.insert("kind".into(), of_kind(kind));
    request.insert("resource".into(), of_resource(resource));
    request.insert("requestKind".into(), of_kind(&versions::kind(a.resource, a.subresource)));
    request.insert("requestResource".into(), of_resource(a.resource));
    let texts = [
        ("subResource", a.subresource),
        ("requestSubResource", a.subresource),
        ("name", a.name),
        ("namespace", a.namespace_name()),
    ];
    for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        request.insert(field.into(), text.into());
    }
    request.insert("operation".into(), a.operation.word().into());
    request.insert("userInfo".into(), user(&a.request.user));
    request.insert("dryRun".into(), a.dry_run.into());
    request.insert("options".into(), a.options_object());
    request
}

/// The sender, as webhooks and policies see it.
pub fn user(user: &UserInfo) -> Value {
    let mut shown = json!({"username": user.name});
    if !user.uid.is_empty() {
        shown["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        shown["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        shown["extra"] = json!(user.extra);
    }
    shown
}

/// The whole review.
pub fn review(version: &str, uid: &str, mut request: Map<String, Value>, shown: &Shown) -> Value {
    request.insert("uid".into(), uid.into());
    request.insert("object".into(), shown.object.clone().unwrap_or_default());
    request.insert("oldObject".into(), shown.old.clone().unwrap_or_default());
    json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"), "request": request})
}

/// What a webhook decided.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Whether the request may go on.
    pub allowed: bool,
    /// A JSON patch; empty: none.
    pub patch: Vec<u8>,
    /// Why not, as a `Status`.
    pub result: Value,
    /// Warnings for the client.
    pub warnings: Vec<String>,
    /// Annotations of the audit event.
    pub annotations: Vec<(String, String)>,
}

/// Why an answer is no verdict.
#[derive(Debug, PartialEq)]
pub enum Unusable {
    /// It is no review at all.
    Undecodable(String),
    /// It is one that breaks the rules.
    Invalid(String),
}

/// Reads an answer.
pub fn verdict(version: &str, uid: &str, mutating: bool, body: &[u8]) -> Result<Verdict, Unusable> {
    let answer: Value = serde_json::from_slice(body)
        .map_err(|e| Unusable::Undecodable(format!("couldn't get version/kind; json parse error: {e}")))?;
    let invalid = Unusable::Invalid;
    let response = &answer["response"];
    if !response.is_object() {
        return Err(invalid("webhook response was absent".into()));
    }
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    if version == "v1" {
        if response["uid"] != uid {
            return Err(invalid(format!("expected response.uid={uid:?}, got {:?}", text(&response["uid"]))));
        }
        if answer["apiVersion"] != "admission.k8s.io/v1" || answer["kind"] != "AdmissionReview" {
            let (group_version, kind) = (text(&answer["apiVersion"]), text(&answer["kind"]));
            let group_version = if group_version.is_empty() { "/" } else { &group_version };
            let want = "admission.k8s.io/v1, Kind=AdmissionReview";
            return Err(invalid(format!("expected webhook response of {want}, got {group_version}, Kind={kind}")));
        }
    }
    let patch = STANDARD.decode(text(&response["patch"]));
    let patch = patch.map_err(|e| Unusable::Undecodable(format!("illegal base64 data in response.patch: {e}")))?;
    if version == "v1" {
        check_patch(mutating, !patch.is_empty(), response["patchType"].as_str()).map_err(invalid)?;
    }
    let entries = response["auditAnnotations"].as_object();
    Ok(Verdict {
        allowed: response["allowed"] == true,
        patch: if mutating { patch } else { Vec::new() },
        result: response["status"].clone(),
        warnings: response["warnings"].as_array().into_iter().flatten().map(text).collect(),
        annotations: entries.into_iter().flatten().map(|(k, v)| (k.clone(), text(v))).collect(),
    })
}

fn check_patch(mutating: bool, patch: bool, kind: Option<&str>) -> Result<(), String> {
    let why = match (mutating, patch, kind) {
        (false, true, _) => "validating webhook may not return response.patch",
        (false, _, Some(_)) => "validating webhook may not return response.patchType",
        (true, true, None) => "webhook returned response.patch but not response.patchType",
        (true, false, Some(_)) => "webhook returned response.patchType but not response.patch",
        (true, true, Some("")) => "webhook returned invalid response.patchType of \"\"",
        (true, true, Some(other)) if other != "JSONPatch" => return Err(format!("unsupported patch type {other:?}")),
        _ => return Ok(()),
    };
    Err(why.into())
}

/// The refusal that a client sees.
pub fn refusal(webhook: &str, result: &Value) -> Status {
    let denied = format!("admission webhook {webhook:?} denied the request");
    let text = |key: &str| result[key].as_str().unwrap_or("");
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", why) | (why, _) => format!("{denied}: {why}"),
    };
    let code = result["code"].as_u64().and_then(|c| u16::try_from(c).ok()).filter(|c| (400..=599).contains(c));
    let details = Some(&result["details"]).filter(|details| details.is_object()).cloned().unwrap_or_default();
    Status { details, ..Status::new(code.unwrap_or(400), text("reason"), message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked() {
        let head = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"});
        let check = |mutating: bool, response: Value, want: Result<bool, &str>| {
            let mut answer = head.clone();
            answer["response"] = response;
            let got = verdict("v1", "u", mutating, answer.to_string().as_bytes()).map(|v| v.allowed);
            assert_eq!(got, want.map_err(|why| Unusable::Invalid(why.into())));
        };
        check(true, json!({"uid": "u", "allowed": true}), Ok(true));
        check(true, json!(null), Err("webhook response was absent"));
        check(true, json!({"uid": "x"}), Err("expected response.uid=\"u\", got \"x\""));
        check(
            true,
            json!({"uid": "u", "patch": "W10="}),
            Err("webhook returned response.patch but not response.patchType"),
        );
        check(false, json!({"uid": "u", "patch": "W10="}), Err("validating webhook may not return response.patch"));
        check(true, json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"}), Ok(true));
    }

    #[test]
    fn refusals_are_worded() {
        let table = [
            (json!(null), 400, "admission webhook \"w\" denied the request without explanation"),
            (json!({"code": 403, "message": "no"}), 403, "admission webhook \"w\" denied the request: no"),
            (json!({"reason": "Why"}), 400, "admission webhook \"w\" denied the request: Why"),
            (json!({"message": "no", "details": "x"}), 400, "admission webhook \"w\" denied the request: no"),
        ];
        for (result, code, message) in table {
            let status = refusal("w", &result);
            assert_eq!((status.code, status.message.as_str()), (code, message));
            assert_eq!(status.details, Value::Null);
        }
    }
}
