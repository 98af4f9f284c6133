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

fn by_type(errors: &mut Errors, obj: &Object, path: &Path<'_>) {
    let data = obj.at("data");
    let mut require = |key: &str| {
        if !data.has(key) {
            errors.required(&path.key(key), "");
        }
        data.has(key)
    };
    match obj.text("type") {
        "kubernetes.io/service-account-token" => {
            if api::meta::annotation(obj, ACCOUNT).unwrap_or("").is_empty() {
                errors.required(&Path::root("metadata.annotations").key(ACCOUNT), "");
            }
        }
        "kubernetes.io/dockercfg" if require(".dockercfg") => json_value(errors, data, ".dockercfg", path),
        "kubernetes.io/dockerconfigjson" if require(".dockerconfigjson") => {
            json_value(errors, data, ".dockerconfigjson", path);
        }
        "kubernetes.io/basic-auth" => {
            if !data.has("username") && !data.has("password") {
                errors.required(&path.key("username"), "");
                errors.required(&path.key("password"), "");
            }
        }
        "kubernetes.io/ssh-auth" => {
            if data.text("ssh-privatekey").is_empty() {
                errors.required(&path.key("ssh-privatekey"), "");
            }
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                require(key);
            }
        }
        _ => {}
    }
}

fn json_value(errors: &mut Errors, data: &Value, key: &str, path: &Path<'_>) {
    let bytes = STANDARD.decode(data.text(key)).unwrap_or_default();
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(_) | Value::Null) => {}
        Ok(_) => {
            let text = "json: cannot unmarshal value into Go value of type map[string]interface {}";
            errors.invalid(&path.key(key), "<secret contents redacted>", text);
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
    fn plain_text_becomes_data() {
        let mut obj = json!({"stringData": {"a": "1"}, "data": {"b": "Mg=="}});
        Secret.default(&mut obj);
        assert_eq!(obj, json!({"type": "Opaque", "data": {"a": "MQ==", "b": "Mg=="}}));
        assert_eq!(decoded_len("MQ=="), 1);
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
