//! Values as JSON: results of mutations, message and audit expressions.

use crate::collection::Map;
use crate::error::EvalError;
use crate::escape::unescape;
use crate::time;
use crate::value::Value;
use base64::Engine;
use serde_json::Value as Json;

/// Shared parts make a small expression stand for a huge value: so many parts are written, no more.
const MAX_PARTS: u32 = 1_000_000;

impl Value<'_> {
    /// The value as JSON; moments, durations and bytes as the text Kubernetes writes.
    pub fn to_json(&self) -> Result<Json, EvalError> {
        Writer(MAX_PARTS).write(self)
    }
}

struct Writer(u32);

impl Writer {
    fn write(&mut self, value: &Value<'_>) -> Result<Json, EvalError> {
        self.0 = self.0.checked_sub(1).ok_or(EvalError::CostLimitExceeded)?;
        Ok(match value {
            Value::Null | Value::Optional(None) => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(i) => Json::from(*i),
            Value::Uint(u) => Json::from(*u),
            // Go writes whole numbers without a fraction.
            Value::Double(d) if d.fract() == 0.0 && d.abs() < 1e15 => Json::from(*d as i64),
            Value::Double(d) => serde_json::Number::from_f64(*d).map_or(Json::Null, Json::Number),
            Value::String(text) => Json::from(&**text),
            Value::Bytes(bytes) => Json::from(base64::engine::general_purpose::STANDARD.encode(bytes)),
            Value::Timestamp(t) => Json::from(time::show_timestamp(t)),
            Value::Duration(d) => Json::from(time::show_duration(*d)),
            Value::Type(name) => Json::from(&**name),
            Value::Optional(Some(value)) => return self.write(value),
            Value::Opaque(value) => match value.text() {
                Some(text) => Json::from(text),
                None => {
                    return Err(EvalError::new(format!("type conversion error from '{}' to JSON", value.type_name())));
                }
            },
            Value::List(list) => Json::Array(list.iter().map(|item| self.write(&item?)).collect::<Result<_, _>>()?),
            Value::Map(Map::Json(fields, _)) => self.borrowed(fields)?,
            Value::Map(Map::Values(entries) | Map::Domains(entries)) => {
                let entries = entries.iter().map(|(key, value)| Ok((key_text(&key.value()), self.write(value)?)));
                Json::Object(entries.collect::<Result<_, EvalError>>()?)
            }
            Value::Map(Map::Struct(object)) => {
                let property = |name: &str| unescape(name).map_or_else(|| name.to_owned(), |n| n.into_owned());
                let fields = object.fields.iter().map(|(name, value)| Ok((property(name), self.write(value)?)));
                Json::Object(fields.collect::<Result<_, EvalError>>()?)
            }
        })
    }

    fn borrowed(&mut self, fields: &serde_json::Map<String, Json>) -> Result<Json, EvalError> {
        let cost = u32::try_from(parts(fields)).unwrap_or(u32::MAX);
        self.0 = self.0.checked_sub(cost).ok_or(EvalError::CostLimitExceeded)?;
        Ok(Json::Object(fields.clone()))
    }
}

fn parts(fields: &serde_json::Map<String, Json>) -> usize {
    fields.values().map(|value| 1 + value.as_object().map_or(0, parts) + value.as_array().map_or(0, Vec::len)).sum()
}

fn key_text(key: &Value<'_>) -> String {
    match key {
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Uint(u) => u.to_string(),
        other => other.as_str().unwrap_or_default().to_owned(),
    }
}
