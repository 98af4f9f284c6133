//! `audit.k8s.io/v1` events, fields in upstream's order.

use super::policy::{Level, Stage, Verdict};
use super::record::State;
use crate::authn::UserInfo;
use crate::handlers::Request;
use bytes::Bytes;
use flate2::read::GzDecoder;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;

const MAX_USER_AGENT: usize = 1024;
/// The most that a compressed answer may hold and still be written.
const MAX_ANSWER: u64 = 64 << 20;

/// An event.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    kind: &'static str,
    api_version: &'static str,
    level: Level,
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<User>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<ResponseStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<Value>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct User {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
}

#[derive(Clone, Debug, Serialize)]
struct ResponseStatus {
    metadata: Value,
    #[serde(skip_serializing_if = "str::is_empty")]
    status: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    details: Value,
    code: u16,
}

impl Event {
    /// The event of a stage of a request.
    pub fn of(request: &Request, stage: Stage, verdict: &Verdict) -> Self {
        let (record, state) = (&request.audit, request.audit.state());
        let shown = |wanted, bytes: &Option<(Bytes, String)>| {
            let (bytes, kind) = bytes.as_ref().filter(|_| verdict.level >= wanted)?;
            object(bytes, kind, verdict.omit_managed_fields)
        };
        let received = stage == Stage::RequestReceived;
        let request_object = shown(Level::Request, &state.body);
        let at = if received { request.now } else { Timestamp::now() };
        Self {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: verdict.level,
            audit_id: record.id.clone(),
            stage,
            request_uri: record.uri.clone(),
            verb: request.info.verb.clone(),
            user: state.user.as_deref().map(User::of).unwrap_or_default(),
            impersonated_user: state.impersonated.as_deref().map(User::of),
            source_ips: record.source_ips.clone(),
            user_agent: user_agent(request.user_agent()),
            object_ref: object_ref(request, request_object.as_ref()),
            response_status: (!received && state.code > 0).then(|| ResponseStatus::of(&state, stage)),
            response_object: shown(Level::RequestResponse, &state.answer),
            request_object,
            request_received_timestamp: micro(request.now),
            stage_timestamp: micro(at),
            annotations: annotations(state.annotations, verdict.level),
        }
    }
}

/// Patches of webhooks hold parts of objects: they are shown where objects are.
fn annotations(mut all: BTreeMap<String, String>, level: Level) -> BTreeMap<String, String> {
    if level < Level::Request {
        all.retain(|key, _| !key.starts_with("patch.webhook.admission.k8s.io/"));
    }
    all
}

impl User {
    fn of(user: &UserInfo) -> Self {
        let UserInfo { name, uid, groups, extra } = user.clone();
        Self { username: name, uid, groups, extra }
    }
}

impl ResponseStatus {
    fn of(state: &State, stage: Stage) -> Self {
        let none = Self {
            metadata: json!({}),
            status: "",
            message: String::new(),
            reason: String::new(),
            details: Value::Null,
            code: state.code,
        };
        match &state.failure {
            Some(failure) => Self {
                // Of a sender that nobody vouches for, only what it tried is told.
                status: if stage == Stage::ResponseStarted { "" } else { "Failure" },
                message: failure.message.clone(),
                reason: failure.reason.clone(),
                details: failure.details.clone(),
                ..none
            },
            None if state.left => Self { status: "Success", message: "Connection closed early".into(), ..none },
            None => none,
        }
    }
}

fn object_ref(request: &Request, sent: Option<&Value>) -> Option<ObjectRef> {
    let info = &request.info;
    if !info.is_resource || info.resource.is_empty() {
        return None;
    }
    let of_sent = |field: &str| {
        let text = sent.and_then(|o| o.get("metadata")?.get(field)?.as_str());
        text.unwrap_or("").to_owned()
    };
    let name = if info.name.is_empty() { of_sent("name") } else { info.name.clone() };
    Some(ObjectRef {
        resource: info.resource.clone(),
        namespace: info.namespace.clone(),
        name,
        uid: of_sent("uid"),
        api_group: info.group.clone(),
        api_version: info.version.clone(),
        resource_version: of_sent("resourceVersion"),
        subresource: info.subresource.clone(),
    })
}

/// A body as JSON; `None` for one that is none.
fn object(bytes: &Bytes, kind: &str, omit_managed_fields: bool) -> Option<Value> {
    let plain = match bytes.starts_with(&[0x1f, 0x8b]) {
        true => {
            let mut plain = Vec::new();
            GzDecoder::new(&bytes[..]).take(MAX_ANSWER).read_to_end(&mut plain).ok()?;
            plain.into()
        }
        false => bytes.clone(),
    };
    let mut value = match kind {
        kind if kind.contains("protobuf") => crate::media::protobuf_to_json(&plain)?,
        kind if kind.contains("yaml") => serde_saphyr::from_slice(&plain).ok()?,
        _ => serde_json::from_slice(&plain).ok()?,
    };
    if omit_managed_fields {
        strip(&mut value);
        value.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(strip);
        let rows = value.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten();
        rows.filter_map(|row| row.get_mut("object")).for_each(strip);
    }
    Some(value)
}

fn strip(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

fn user_agent(text: &str) -> String {
    match text.char_indices().nth(MAX_USER_AGENT) {
        Some((at, _)) => format!("{}...TRUNCATED", &text[..at]),
        None => text.to_owned(),
    }
}

/// A time with microseconds, as `MicroTime` is written.
fn micro(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
