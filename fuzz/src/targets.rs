//! The targets: one function for each parser, named as its file in `fuzz_targets/`.

use api::quantity::Quantity;
use api::selector::{FieldSelector, LabelSelector};
use apiserver::registry::decode::canonical_quantity;
use apiserver::registry::yaml;
use apiserver::registry::facts::BuiltIn;
use merge::Apply;
use serde_json::{Value, json};
use std::sync::OnceLock;

const POD: &str = "io.k8s.api.core.v1.Pod";
const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// Heavy bodies are refused before they are read.
fn json_of(data: &[u8]) -> Option<Value> {
    if apiserver::fuzzing::is_too_heavy(data) {
        return None;
    }
    serde_json::from_slice(data).ok()
}

/// Bodies in JSON: decoded against a schema, completed, written in protobuf and read again.
pub fn json(data: &[u8]) {
    if apiserver::fuzzing::is_too_heavy(data) {
        return;
    }
    for schema in [POD, DEPLOYMENT] {
        let Ok(mut decoded) = schema::decode_slice(schema, data, canonical_quantity) else { continue };
        schema::complete(schema, &mut decoded.object);
        if let Ok(bytes) = schema::to_protobuf(schema, &decoded.object) {
            schema::from_protobuf(schema, &bytes).expect("what is written can be read");
        }
    }
}

/// Bodies in YAML.
pub fn yaml(data: &[u8]) {
    if apiserver::fuzzing::is_too_heavy(data) {
        return;
    }
    if let Ok((value, _)) = yaml::parse_body(data) {
        let mut value = value;
        let _ = schema::decode(POD, &mut value, canonical_quantity);
    }
}

/// Bodies in protobuf.
pub fn protobuf(data: &[u8]) {
    let mut framed = b"k8s\0".to_vec();
    framed.extend_from_slice(data);
    for bytes in [data, &framed] {
        if let Ok(envelope) = schema::Envelope::open(bytes) {
            let _ = envelope.object("");
            let _ = envelope.object(POD);
        }
    }
    let _ = schema::from_protobuf(POD, data);
}

/// Label and field selectors.
pub fn selectors(data: &[u8]) {
    // A URL is no longer than this.
    let Some(text) = text(&data[..data.len().min(64 << 10)]) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        let _ = selector.matches(|key| (key.len() % 2 == 0).then_some("value"));
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        let _ = (selector.matches(|_| "value"), selector.exact("metadata.name").is_some());
    }
}

/// Quantities; the canonical form of one is its own.
pub fn quantity(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(quantity) = Quantity::parse(text) {
        let canonical = quantity.to_string();
        let again = Quantity::parse(&canonical).expect("the canonical form can be read");
        assert_eq!(again.to_string(), canonical);
        let _ = (quantity.value(), quantity.milli_value(), quantity.as_f64(), quantity.plus(&again), quantity.minus(&again));
    }
}

fn live() -> &'static Value {
    static LIVE: OnceLock<Value> = OnceLock::new();
    LIVE.get_or_init(|| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}, "finalizers": ["x/y"],
            "managedFields": [{"manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
                "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}}}]},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "env": [{"name": "A", "value": "1"}]}], "tolerations": [{"key": "k"}]}})
    })
}

/// JSON patches.
pub fn json_patch(data: &[u8]) {
    if let Some(patch) = json_of(data) {
        let _ = merge::json_patch(live(), &patch);
    }
}

/// Merge patches.
pub fn merge_patch(data: &[u8]) {
    if let Some(patch) = json_of(data) {
        let _ = merge::merge_patch(live(), &patch);
    }
}

/// Strategic merge patches.
pub fn strategic_patch(data: &[u8]) {
    if let Some(patch) = json_of(data) {
        let _ = merge::strategic_merge(live(), &patch, POD, &BuiltIn);
    }
}

/// Server-side apply, the managedFields of the live object being outside bytes too.
pub fn apply(data: &[u8]) {
    let Some(applied) = json_of(data) else { return };
    let mut own = live().clone();
    if let Some(fields) = applied.pointer("/metadata/managedFields") {
        own["metadata"]["managedFields"] = fields.clone();
    }
    let mut body = applied;
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    for (live, force) in [(live(), false), (&own, true)] {
        let request = Apply {
            live,
            applied: &body,
            manager: "fuzz",
            force,
            time: "2026-01-02T00:00:00Z",
            subresource: "",
            schema: POD,
        };
        let _ = merge::apply(&request, &BuiltIn);
    }
}

/// CEL: compiled, and evaluated within the limit of one call.
pub fn cel(data: &[u8]) {
    use expression::{Bindings, DeclType, Env, compile};
    // Rules are no longer than this.
    let Some(text) = text(&data[..data.len().min(16 << 10)]) else { return };
    static ENV: OnceLock<Env> = OnceLock::new();
    let env = ENV.get_or_init(|| Env::new().variable("object", DeclType::dynamic()).variable("self", DeclType::dynamic()));
    if let Ok(program) = compile(text, env) {
        let object = expression::Value::json(live());
        let bindings = Bindings::new().set("object", object.clone()).set("self", object);
        let _ = program.eval(&bindings, 1_000_000).value.map(|value| value.to_json());
    }
}

/// JSON web tokens.
pub fn jwt(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let _ = pki::jwt::Jwt::parse(text).map(|token| token.text("iss").len());
    let _ = pki::token::unverified_issuer(text);
}

/// Certificate signing requests.
pub fn csr(data: &[u8]) {
    let _ = pki::CertificateRequest::parse(data);
}

/// Paths, queries and `Accept` headers.
pub fn paths(data: &[u8]) {
    // Heads of requests are no longer than this.
    let Some(text) = text(&data[..data.len().min(64 << 10)]) else { return };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    apiserver::fuzzing::request(path, query);
    apiserver::fuzzing::accept(text);
}

/// Continue tokens.
pub fn continue_token(data: &[u8]) {
    if let Some(text) = text(&data[..data.len().min(64 << 10)]) {
        apiserver::fuzzing::continue_token(text);
    }
}
