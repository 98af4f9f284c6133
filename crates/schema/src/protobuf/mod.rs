//! JSON ⇄ protobuf of built-in kinds (`application/vnd.kubernetes.protobuf`).
//!
//! An object travels as `k8s\0` and a `runtime.Unknown` (kind and raw message). Messages follow
//! gogo's rules: what Go holds without a pointer is always written, zero or not; fields go by
//! number; map entries by key. Custom resources and Tables have no protobuf form.

mod from;
mod list;
mod to;

pub use list::ListMessage;

use crate::types::Schema;
use crate::wire::{Reader, Wire, Writer};
use serde_json::Value;

const MAGIC: &[u8] = b"k8s\0";
/// The same as Go prints it.
const MAGIC_TEXT: &str = "[107 56 115 0]";

/// An object in the `k8s\0` envelope; `apiVersion` and `kind` come from the value. An empty
/// schema is found by them.
pub fn to_protobuf(schema: &str, obj: &Value) -> Result<Vec<u8>, String> {
    let (version, kind) = type_of(obj);
    Ok(seal(version, kind, &message(schema, obj)?))
}

/// An object's bare message, as lists hold it; an empty schema is found by the object's kind.
pub fn message(schema: &str, obj: &Value) -> Result<Vec<u8>, String> {
    let (version, kind) = type_of(obj);
    let schema = find(schema, version, kind)?;
    let Value::Object(map) = obj else { return Err("the object is no JSON object".into()) };
    let mut raw = Writer::default();
    to::structure(&mut raw, schema, map)?;
    Ok(raw.finish())
}

fn type_of(obj: &Value) -> (&str, &str) {
    let text = |key: &str| obj.get(key).and_then(Value::as_str).unwrap_or_default();
    (text("apiVersion"), text("kind"))
}

/// A message in the `k8s\0` envelope.
pub fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    seal(api_version, kind, message)
}

fn seal(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut w = Writer::default();
    w.message(1, |w| {
        w.bytes(1, version.as_bytes());
        w.bytes(2, kind.as_bytes());
    });
    w.bytes(2, raw);
    w.bytes(3, b"");
    w.bytes(4, b"");
    [MAGIC, &w.finish()].concat()
}

/// The object of a `k8s\0` envelope; an empty schema is found by the envelope's own kind.
/// Quantities and times are as they were sent.
pub fn from_protobuf(schema: &str, bytes: &[u8]) -> Result<Value, String> {
    Envelope::open(bytes)?.object(schema)
}

/// A `k8s\0` envelope: what an object is, before it is read.
pub struct Envelope<'a> {
    /// `apps/v1`; empty where the client left it out.
    pub api_version: String,
    /// `Deployment`; empty where the client left it out.
    pub kind: String,
    raw: &'a [u8],
    is_json: bool,
}

impl<'a> Envelope<'a> {
    /// Opens the envelope.
    pub fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let foreign = || format!("provided data does not appear to be a protobuf message, expected prefix {MAGIC_TEXT}");
        let unknown = match bytes {
            [] => return Err("empty data".into()),
            bytes => bytes.strip_prefix(MAGIC).ok_or_else(foreign)?,
        };
        if unknown.is_empty() {
            return Err("empty body".into());
        }
        let mut envelope = Self { api_version: String::new(), kind: String::new(), raw: &[], is_json: false };
        let mut reader = Reader::new(unknown);
        while let Some((number, wire)) = reader.next_field()? {
            match (number, wire) {
                (1, Wire::Bytes(meta)) => (envelope.api_version, envelope.kind) = type_meta(meta)?,
                (2, Wire::Bytes(bytes)) => envelope.raw = bytes,
                (4, Wire::Bytes(bytes)) => envelope.is_json = bytes == b"application/json",
                _ => {}
            }
        }
        Ok(envelope)
    }

    /// The object's bytes where they are JSON.
    pub fn json(&self) -> Option<&'a [u8]> {
        self.is_json.then_some(self.raw)
    }

    /// Reads the object; an empty schema is found by the envelope's kind.
    pub fn object(&self, schema: &str) -> Result<Value, String> {
        let mut map = if self.is_json {
            serde_json::from_slice(self.raw).map_err(|e| e.to_string())?
        } else {
            from::object(find(schema, &self.api_version, &self.kind)?, self.raw)?
        };
        for (key, text) in [("apiVersion", &self.api_version), ("kind", &self.kind)] {
            if !text.is_empty() {
                map.insert(key.into(), text.as_str().into());
            }
        }
        Ok(Value::Object(map))
    }
}

/// One frame of a protobuf watch stream: length, then a WatchEvent around `object` (an envelope).
pub fn watch_event_protobuf(event_type: &str, object: &[u8]) -> Vec<u8> {
    let mut w = Writer::default();
    w.bytes(1, event_type.as_bytes());
    w.message(2, |w| w.bytes(1, object));
    let event = w.finish();
    [&(event.len() as u32).to_be_bytes()[..], &event].concat()
}

fn type_meta(bytes: &[u8]) -> Result<(String, String), String> {
    let (mut version, mut kind) = (String::new(), String::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next_field()? {
        match (number, wire) {
            (1, Wire::Bytes(b)) => version = from::text(b)?.to_owned(),
            (2, Wire::Bytes(b)) => kind = from::text(b)?.to_owned(),
            _ => {}
        }
    }
    Ok((version, kind))
}

fn find(schema: &str, api_version: &str, kind: &str) -> Result<Schema, String> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let found = if schema.is_empty() { Schema::of_kind(group, version, kind) } else { Schema::find(schema) };
    let has_numbers = |s: &Schema| s.fields().all(|f| f.is_inline()) || s.fields().any(|f| f.number() != 0);
    found.filter(has_numbers).ok_or_else(|| format!("object {api_version}, Kind={kind} has no protobuf form"))
}

#[cfg(test)]
mod tests;
