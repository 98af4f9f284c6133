//! Secrets.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, drop_empty, map_mut, set_default};
use crate::{Ctx, Strategy, names};
use api::table::Column;
use api::{Cause, Object};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

/// Secrets.
pub struct Secret;

/// Bytes of all values together.
const MAX_SIZE: usize = 1024 * 1024;
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Type").field("io.k8s.api.core.v1.Secret", "type"),
    Column::string("Data").field("io.k8s.api.core.v1.Secret", "data"),
    AGE,
];

impl Strategy for Secret {
    fn default(&self, obj: &mut Object) {
        set_default(obj, "type", "Opaque");
        plain_text(obj);
        drop_empty(obj, "data");
    }

    fn has_status(&self) -> bool {
        false
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, path, mut size) = (Errors::default(), Path::root("data"), 0);
        for (key, value) in obj.entries("data") {
            errors.invalid_each(&path.key(key), key, names::config_map_key(key));
            size += decoded_len(value.as_str().unwrap_or(""));
        }
        if size > MAX_SIZE {
            errors.too_long(&path, MAX_SIZE);
        }
        by_type(&mut errors, obj, &path);
        errors.0
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        errors.immutable(&Path::root("type"), new.at("type"), old.at("type"));
        super::config_map::immutable(&mut errors, new, old, &["data"]);
        errors.0.extend(self.validate(ctx, new));
        errors.0
    }

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        if obj.text("type") == TLS { unreadable_pair(obj.at("data")).into_iter().collect() } else { Vec::new() }
    }

    fn selectable_fields(&self, obj: &Object) -> Vec<(&'static str, String)> {
        vec![("type", obj.text("type").into())]
    }

    fn metadata_on_update(&self) -> crate::MetadataChecks {
        crate::MetadataChecks::Both
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let count = obj.entries("data").count();
        vec![api::meta::name(obj).into(), obj.text("type").into(), count.into(), age::since_creation(obj, now).into()]
    }
}

/// What Go says of a certificate and a key without the PEM blocks that they should have. What is in the blocks is not
/// looked at.
fn unreadable_pair(data: &Value) -> Option<String> {
    let types = |key: &str| -> Vec<String> {
        let text = STANDARD.decode(data.text(key)).unwrap_or_default();
        crate::pem::blocks(&text).map(|block| block.kind).collect()
    };
    let (of_certificate, of_key) = (types("tls.crt"), types("tls.key"));
    let is_key = |kind: &String| kind == "PRIVATE KEY" || kind.ends_with(" PRIVATE KEY");
    let switched = "PEM inputs may have been switched";
    if !of_certificate.iter().any(|kind| kind == "CERTIFICATE") {
        return Some(match of_certificate.as_slice() {
            [] => "tls: failed to find any PEM data in certificate input".into(),
            [kind] if kind.ends_with("PRIVATE KEY") => format!(
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; {switched}"
            ),
            kinds => format!(
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the \
                 following types: [{}]",
                listed(kinds)
            ),
        });
    }
    if of_key.iter().any(is_key) {
        return None;
    }
    Some(match of_key.as_slice() {
        [] => "tls: failed to find any PEM data in key input".into(),
        [kind] if kind == "CERTIFICATE" => {
            "tls: found a certificate rather than a key in the PEM for the private key".into()
        }
        kinds => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of \
             the following types: [{}]",
            listed(kinds)
        ),
    })
}

/// As much of the types of blocks as a warning has room for.
fn listed(kinds: &[String]) -> String {
    const MOST: usize = 4096;
    kinds.iter().take(MOST).flat_map(|kind| [" ", kind]).flat_map(str::chars).skip(1).take(MOST).collect()
}

/// `stringData` is a way to write `data`, never kept.
fn plain_text(obj: &mut Object) {
    let Some(text) = obj.as_object_mut().and_then(|map| map.remove("stringData")) else { return };
    let Value::Object(text) = text else { return };
    if text.is_empty() {
        return;
    }
    if let Some(data) = map_mut(obj, "data") {
        for (key, value) in text {
            data[key] = STANDARD.encode(value.as_str().unwrap_or("")).into();
        }
    }
}

/// The length of what a base64 text holds.
pub fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|c| *c == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

/// What a type of secret needs.
enum Needs {
    /// Every one of these keys.
    Each(&'static [&'static str]),
    /// One of these keys.
    OneOf(&'static [&'static str]),
    /// A key with a value.
    Filled(&'static str),
    /// A key with an object as JSON.
    Json(&'static str),
    /// An annotation with a value.
    Annotation(&'static str),
}

const TLS: &str = "kubernetes.io/tls";
const TYPES: &[(&str, Needs)] = &[
    ("kubernetes.io/service-account-token", Needs::Annotation(ACCOUNT)),
    ("kubernetes.io/dockercfg", Needs::Json(".dockercfg")),
    ("kubernetes.io/dockerconfigjson", Needs::Json(".dockerconfigjson")),
    ("kubernetes.io/basic-auth", Needs::OneOf(&["username", "password"])),
    ("kubernetes.io/ssh-auth", Needs::Filled("ssh-privatekey")),
    (TLS, Needs::Each(&["tls.crt", "tls.key"])),
];

fn by_type(errors: &mut Errors, obj: &Object, path: &Path<'_>) {
    let needs = TYPES.iter().filter(|(name, _)| *name == obj.text("type"));
    needs.for_each(|(_, needs)| check(errors, obj, needs, path));
}

fn check(errors: &mut Errors, obj: &Object, needs: &Needs, path: &Path<'_>) {
    let data = obj.at("data");
    match *needs {
        Needs::Each(keys) => missing(errors, keys.iter().filter(|key| !data.has(key)), path),
        Needs::OneOf(keys) if keys.iter().any(|key| data.has(key)) => {}
        Needs::OneOf(keys) => missing(errors, keys.iter(), path),
        Needs::Filled(key) => missing(errors, [key].iter().filter(|key| data.text(key).is_empty()), path),
        Needs::Json(key) if data.has(key) => json_value(errors, data, key, path),
        Needs::Json(key) => missing(errors, [key].iter(), path),
        Needs::Annotation(key) => {
            let empty = api::meta::annotation(obj, key).unwrap_or("").is_empty();
            missing(errors, [key].iter().filter(|_| empty), &Path::root("metadata.annotations"));
        }
    }
}

fn missing<'a>(errors: &mut Errors, keys: impl Iterator<Item = &'a &'a str>, path: &Path<'_>) {
    keys.for_each(|key| errors.required(&path.key(key), ""));
}

fn json_value(errors: &mut Errors, data: &Value, key: &str, path: &Path<'_>) {
    let bytes = STANDARD.decode(data.text(key)).unwrap_or_default();
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(_) | Value::Null) => {}
        Ok(other) => {
            let kind = match other {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                _ => "number",
            };
            let text = format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}");
            errors.invalid(&path.key(key), "<secret contents redacted>", &text);
        }
        Err(_) => errors.invalid(&path.key(key), "<secret contents redacted>", &go_syntax_error(&bytes)),
    }
}

/// What Go's decoder says of a text that is no JSON.
fn go_syntax_error(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let trimmed = text.trim_start();
    for (first, literal) in [('n', "null"), ('t', "true"), ('f', "false")] {
        if !trimmed.starts_with(first) {
            continue;
        }
        let right = trimmed.chars().zip(literal.chars()).take_while(|(a, b)| a == b).count();
        if let (Some(got), Some(want)) = (trimmed.chars().nth(right), literal.chars().nth(right)) {
            return format!("invalid character '{got}' in literal {literal} (expecting '{want}')");
        }
    }
    let error = serde_json::from_str::<Value>(&text).err();
    match error {
        Some(error) if error.is_eof() => "unexpected end of JSON input".into(),
        Some(error) => {
            let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or("");
            let c = line.chars().nth(error.column().saturating_sub(1)).unwrap_or(' ');
            format!("invalid character '{c}' looking for beginning of value")
        }
        None => "unexpected end of JSON input".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pair_that_cannot_be_read_is_told_in_short() {
        let check = |certificate: &str, want: &str| {
            let got = unreadable_pair(&json!({"tls.crt": STANDARD.encode(certificate)})).unwrap_or_default();
            assert!(got.ends_with(want), "{:.200}", got);
            assert!(got.len() < 5000);
        };
        let block = |kind: &str| format!("-----BEGIN {kind}-----\nYQ==\n-----END {kind}-----\n");
        check("x", "tls: failed to find any PEM data in certificate input");
        check(&(block("A") + &block("B")), "of the following types: [A B]");
        check(&block(&"A".repeat(1 << 20)), "AA]");
        check(&block("CERTIFICATE"), "tls: failed to find any PEM data in key input");
    }

    #[test]
    fn plain_text_becomes_data() {
        let mut obj = json!({"stringData": {"a": "1"}, "data": {"b": "Mg=="}});
        Secret.default(&mut obj);
        assert_eq!(obj, json!({"type": "Opaque", "data": {"a": "MQ==", "b": "Mg=="}}));
        assert_eq!(decoded_len("MQ=="), 1);
    }

    #[test]
    fn pairs_have_their_blocks() {
        let pem = |kind: &str| STANDARD.encode(format!("-----BEGIN {kind}-----\nAA==\n-----END {kind}-----\n"));
        let check = |certificate: String, key: String, want: Option<&str>| {
            let got = unreadable_pair(&json!({"tls.crt": certificate, "tls.key": key}));
            assert_eq!(got.as_deref(), want);
        };
        check(pem("CERTIFICATE"), pem("EC PRIVATE KEY"), None);
        check("YQ==".into(), String::new(), Some("tls: failed to find any PEM data in certificate input"));
        check(pem("CERTIFICATE"), "YQ==".into(), Some("tls: failed to find any PEM data in key input"));
    }

    #[test]
    fn types_need_their_keys() {
        let check = |kind: &str, data: Value, want: &[&str]| {
            let mut errors = Errors::default();
            by_type(&mut errors, &json!({"type": format!("kubernetes.io/{kind}"), "data": data}), &Path::root("data"));
            assert_eq!(errors.0.iter().map(|cause| cause.field.as_str()).collect::<Vec<_>>(), want);
        };
        check("tls", json!({}), &["data[tls.crt]", "data[tls.key]"]);
        check("tls", json!({"tls.crt": "", "tls.key": ""}), &[]);
        check("basic-auth", json!({}), &["data[username]", "data[password]"]);
        check("basic-auth", json!({"password": ""}), &[]);
        check("ssh-auth", json!({"ssh-privatekey": ""}), &["data[ssh-privatekey]"]);
        check("dockercfg", json!({}), &["data[.dockercfg]"]);
        check("dockerconfigjson", json!({".dockerconfigjson": "e30="}), &[]);
        check("dockerconfigjson", json!({".dockerconfigjson": "W10="}), &["data[.dockerconfigjson]"]);
        check("service-account-token", json!({}), &["metadata.annotations[kubernetes.io/service-account.name]"]);
        check("other", json!({}), &[]);
    }

    #[test]
    fn go_says_what_is_wrong() {
        for (text, want) in [
            ("not json", "invalid character 'o' in literal null (expecting 'u')"),
            ("{", "unexpected end of JSON input"),
            ("x", "invalid character 'x' looking for beginning of value"),
        ] {
            assert_eq!(go_syntax_error(text.as_bytes()), want);
        }
    }
}
