//! Conversion by webhook: objects are sent as a `ConversionReview`, what comes back is checked and keeps the
//! metadata of the original, but for labels and annotations.

use crate::server::ApiServer;
use crate::store::Convert;
use crate::webhook::{Call, ClientConfig};
use api::{Object, Status, meta};
use futures::future::{BoxFuture, FutureExt};
use resources::field::Fields;
use resources::metadata::validate_object_meta;
use serde_json::{Map, Value, json};
use std::sync::{Arc, Weak};
use std::time::Duration;

const GROUP: &str = "apiextensions.k8s.io";
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const TIMEOUT: Duration = Duration::from_secs(30);

/// The webhook of a definition.
pub struct Webhook {
    server: Weak<ApiServer>,
    /// Where it is, or why that cannot be known.
    config: Result<Arc<ClientConfig>, String>,
    /// The first version of reviews that both sides know.
    review: Option<String>,
}

impl Webhook {
    /// The webhook of a definition, when it has one.
    pub fn of(crd: &Object, server: Weak<ApiServer>) -> Option<Arc<Self>> {
        let conversion = crd.at("spec").at("conversion");
        if conversion.text("strategy") != "Webhook" {
            return None;
        }
        let webhook = conversion.at("webhook");
        let config = ClientConfig::parse(webhook.at("clientConfig")).map(Arc::new).map_err(|error| error.to_string());
        let known = webhook.texts("conversionReviewVersions").into_iter().find(|v| REVIEW_VERSIONS.contains(v));
        Some(Arc::new(Self { server, config, review: known.map(str::to_owned) }))
    }

    async fn call(&self, objects: &[&Object], to: &str) -> Result<Vec<Object>, String> {
        let review = self.review.as_deref().ok_or("no supported conversion review versions")?;
        let config = self.config.as_ref().map_err(String::clone)?;
        let server = self.server.upgrade().ok_or("the server is stopping")?;
        let uid = uuid::Uuid::new_v4().to_string();
        let version = format!("{GROUP}/{review}");
        let request = json!({"kind": "ConversionReview", "apiVersion": version,
            "request": {"uid": uid, "desiredAPIVersion": to, "objects": objects}});
        let body = serde_json::to_vec(&request).map_err(|error| error.to_string())?.into();
        let call = Call { body, timeout: TIMEOUT, announce: false, user_agent: "kube-apiserver-conversion" };
        let answer = server.webhooks().post(config, call).await.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        converted(&answer, &version, &uid, review == "v1")
    }
}

impl Convert for Webhook {
    fn convert(&self, objects: Vec<Object>, api_version: String) -> BoxFuture<'_, Result<Vec<Object>, Status>> {
        async move {
            let other = |object: &&Object| object.text("apiVersion") != api_version;
            let sent: Vec<&Object> = objects.iter().filter(other).collect();
            let Some(first) = sent.first() else { return Ok(objects) };
            let of = format!("conversion webhook for {}", shown(first));
            let failed = |why: String| Status::new(500, "", format!("{of} {why}"));
            let answer = self.call(&sent, &api_version).await.map_err(|why| failed(format!("failed: {why}")))?;
            if answer.len() != sent.len() {
                return Err(failed(format!("returned {} objects, expected {}", answer.len(), sent.len())));
            }
            let mut answer = answer.into_iter();
            let mut out = Vec::with_capacity(objects.len());
            for original in objects {
                if original.text("apiVersion") == api_version {
                    out.push(original);
                    continue;
                }
                // As many as were sent: counted above.
                let Some(object) = answer.next() else { break };
                out.push(accept(&original, object, &api_version).map_err(|why| failed(format!("returned {why}")))?);
            }
            Ok(out)
        }
        .boxed()
    }
}

/// `group/version, Kind=Kind`
fn shown(object: &Object) -> String {
    format!("{}, Kind={}", object.text("apiVersion"), object.text("kind"))
}

/// The objects of an answer.
fn converted(answer: &Value, version: &str, uid: &str, strict: bool) -> Result<Vec<Object>, String> {
    if strict && (answer.text("apiVersion") != version || answer.text("kind") != "ConversionReview") {
        return Err(format!("expected webhook response of {version}, Kind=ConversionReview, got {}", shown(answer)));
    }
    let response = answer.at("response");
    if response.is_null() {
        return Err("no response provided".into());
    }
    if strict && response.text("uid") != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response.text("uid")));
    }
    let result = response.at("result");
    if result.text("status") != "Success" {
        return Err(match result.text("message") {
            "" => format!("response.result.status was '{}', not 'Success'", result.text("status")),
            message => message.to_owned(),
        });
    }
    Ok(response.list("convertedObjects").to_vec())
}

/// Checks a converted object and gives it the metadata of the original.
fn accept(original: &Object, mut object: Object, to: &str) -> Result<Object, String> {
    let invalid = |why: String| format!("invalid object at index 0: {why}");
    if !object.is_object() || object.text("kind").is_empty() {
        return Err(invalid("Object 'Kind' is missing".into()));
    }
    let found = object.text("apiVersion");
    if found != to {
        return Err(invalid(format!("invalid groupVersion (expected {to}, received {found})")));
    }
    let (want, found) = (original.text("kind"), object.text("kind"));
    if want != found {
        return Err(invalid(format!("invalid kind (expected {want}, received {found})")));
    }
    let text = |object: &Object, field: &str| meta::string(object, field).to_owned();
    for (field, name) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (want, found) = (text(original, field), text(&object, field));
        if want != found {
            return Err(format!("invalid object: must have the same {name}: {want} != {found}"));
        }
    }
    let metadata = restored(original, &object).map_err(|why| format!("invalid metadata: {why}"))?;
    object["metadata"] = metadata;
    Ok(object)
}

/// The metadata of the original with the labels and annotations of the converted object.
fn restored(original: &Object, object: &Object) -> Result<Value, String> {
    let given = match object.get("metadata") {
        None => return Err("missing metadata in converted object".into()),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(format!("invalid metadata of type {} in converted object", go_type(other))),
    };
    let mut metadata = original.at("metadata").as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        let new = match given.get(field) {
            None | Some(Value::Null) => {
                metadata.remove(field);
                continue;
            }
            Some(Value::Object(new)) => new,
            Some(other) => {
                return Err(format!("invalid metadata.{field} of type {} in converted object", go_type(other)));
            }
        };
        for (key, value) in new {
            if !value.is_string() {
                let kind = go_type(value);
                return Err(format!("metadata.{field}[{key}] must be a string, but is {kind} in converted object"));
            }
        }
        if metadata.get(field).and_then(Value::as_object) != Some(new) {
            check(field, new)?;
        }
        metadata.insert(field.into(), Value::Object(new.clone()));
    }
    Ok(Value::Object(metadata))
}

/// Checks changed labels or annotations.
fn check(field: &str, new: &Map<String, Value>) -> Result<(), String> {
    let object = json!({"metadata": {"name": "x", field: new}});
    let wrong: Vec<String> = validate_object_meta(&object, false, &|_, _| Vec::new(), false)
        .into_iter()
        .filter(|cause| cause.field.starts_with(&format!("metadata.{field}")))
        .map(|cause| {
            format!("{}: {}", cause.field.replacen("metadata.annotations", "metadata.annotation", 1), cause.message)
        })
        .collect();
    match wrong.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked() {
        let check = |change: Value, want: Result<(), &str>| {
            let answer = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
                "response": {"uid": "u", "result": {"status": "Success"}, "convertedObjects": []}});
            let answer = merge::merge_patch(&answer, &change).expect("patch");
            let got = converted(&answer, "apiextensions.k8s.io/v1", "u", true).map(drop);
            assert_eq!(got, want.map_err(str::to_owned));
        };
        check(json!({}), Ok(()));
        check(json!({"response": null}), Err("no response provided"));
        check(json!({"response": {"uid": "x"}}), Err("expected response.uid=\"u\", got \"x\""));
        check(json!({"response": {"result": {"status": "Failed", "message": "no"}}}), Err("no"));
        check(
            json!({"response": {"result": {"status": "Failed"}}}),
            Err("response.result.status was 'Failed', not 'Success'"),
        );
    }

    #[test]
    fn metadata_is_that_of_the_original() {
        let original = json!({"apiVersion": "g/v1", "kind": "K",
            "metadata": {"name": "n", "uid": "u", "labels": {"a": "b"}, "generation": 3}});
        let check = |metadata: Value, want: Result<Value, &str>| {
            let object = json!({"apiVersion": "g/v2", "kind": "K", "metadata": metadata});
            let got = accept(&original, object, "g/v2").map(|o| o["metadata"].clone());
            assert_eq!(got, want.map_err(str::to_owned));
        };
        check(
            json!({"name": "n", "uid": "u", "labels": {"c": "d"}, "generation": 9}),
            Ok(json!({"name": "n", "uid": "u", "labels": {"c": "d"}, "generation": 3})),
        );
        check(json!({"name": "n", "uid": "u"}), Ok(json!({"name": "n", "uid": "u", "generation": 3})));
        check(json!({"name": "m", "uid": "u"}), Err("invalid object: must have the same name: n != m"));
        check(
            json!({"name": "n", "uid": "u", "labels": {"c": 1}}),
            Err("invalid metadata: metadata.labels[c] must be a string, but is int64 in converted object"),
        );
    }
}
