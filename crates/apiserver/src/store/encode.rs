//! Objects as bytes: canonical JSON, its resource version, and what is parsed of it.

use super::members::Members;
use super::{Meta, StoreSpec, Stored};
use crate::encryption::Cipher;
use api::{Object, Status, meta};
use bytes::{BufMut, Bytes, BytesMut};
use kv::KeyValue;
use serde_json::Value;
use std::sync::Arc;

/// The reader of JSON takes 127 levels. What it cannot read again could be neither changed nor deleted; managedFields,
/// which may be deeper than what a client has sent, are counted too, and lists put some levels around an object.
const MAX_DEPTH: usize = 120;

/// Refuses an object of too many levels; one that is stored with as many already may still be changed.
pub(super) fn check_depth(object: &Object, present: Option<&Stored>) -> Result<(), Status> {
    if !is_deeper(object, MAX_DEPTH) {
        return Ok(());
    }
    match present.map(Stored::object).transpose()? {
        Some(present) if !is_deeper(object, levels(&present)) => Ok(()),
        _ => Err(Status::bad_request(format!("the object is nested deeper than {MAX_DEPTH} levels"))),
    }
}

fn levels(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(levels).max().unwrap_or(0),
        Value::Array(list) => 1 + list.iter().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    match (value, levels.checked_sub(1)) {
        (Value::Object(_) | Value::Array(_), None) => true,
        (Value::Object(map), Some(left)) => map.values().any(|value| is_deeper(value, left)),
        (Value::Array(list), Some(left)) => list.iter().any(|value| is_deeper(value, left)),
        _ => false,
    }
}

/// An object ready to be written: canonical JSON without a resource version.
pub(super) struct Encoded {
    pub json: Bytes,
    pub meta: Meta,
}

impl Encoded {
    /// Encodes an object as the resource stores it.
    pub fn new(spec: &StoreSpec, mut object: Object) -> Result<Self, Status> {
        if let Value::Object(map) = &mut object {
            map.insert("apiVersion".into(), spec.api_version.as_str().into());
            map.insert("kind".into(), spec.kind.as_str().into());
        }
        meta::set(&mut object, "resourceVersion", Value::Null);
        let json = serde_json::to_vec(&object).map_err(Status::internal)?;
        Ok(Self { json: json.into(), meta: parse_meta(spec, &object) })
    }

    /// The object as readers get it.
    pub fn stored(&self, revision: u64) -> Stored {
        Self::stamped(&self.json, &self.meta, revision)
    }

    /// As [`Encoded::stored`], of its parts.
    pub fn stamped(json: &Bytes, meta: &Meta, revision: u64) -> Stored {
        let meta = Meta { resource_version: revision, ..meta.clone() };
        Stored::of(with_resource_version(json, revision), meta)
    }
}

/// How a resource is kept: its form, and what seals it.
#[derive(Clone)]
pub(super) struct Codec {
    pub spec: Arc<StoreSpec>,
    pub cipher: Option<Arc<Cipher>>,
}

impl Codec {
    /// Reads a value of the key-value store.
    pub fn decode(&self, kv: &KeyValue) -> Result<Stored, Status> {
        let json = match &self.cipher {
            Some(cipher) => cipher.open(&kv.key, &kv.value).map_err(Status::internal)?,
            None => kv.value.clone(),
        };
        let object: Object = serde_json::from_slice(&json).map_err(Status::internal)?;
        let meta = Meta { resource_version: kv.mod_revision, ..parse_meta(&self.spec, &object) };
        Ok(Stored::of(with_resource_version(&json, kv.mod_revision), meta))
    }

}

/// The same state at another resource version.
pub(super) fn restamped(stored: &Stored, revision: u64) -> Stored {
    let meta = Meta { resource_version: revision, ..(*stored.meta).clone() };
    Stored::of(with_resource_version(&stored.json, revision), meta)
}

impl Stored {
    pub(crate) fn of(json: Bytes, meta: Meta) -> Self {
        Self { json, meta: Arc::new(meta), frames: None, message: Arc::default() }
    }

    /// Parses the object.
    pub fn object(&self) -> Result<Object, Status> {
        serde_json::from_slice(&self.json).map_err(Status::internal)
    }
}

/// What is parsed of an object.
pub(super) fn parse_meta(spec: &StoreSpec, object: &Object) -> Meta {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    let mut labels: Vec<_> = labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
    labels.sort();
    let (name, namespace) = (meta::name(object).to_owned(), meta::namespace(object).to_owned());
    let mut fields = (spec.fields)(object);
    for (field, value) in [("metadata.name", &name), ("metadata.namespace", &namespace)] {
        if fields.iter().all(|(f, _)| *f != field) {
            fields.push((field, value.clone()));
        }
    }
    Meta { name, namespace, uid: meta::uid(object).to_owned(), resource_version: 0, labels, fields }
}

/// Puts a resource version into canonical JSON, where sorted keys have it; 0 leaves it out.
pub(super) fn with_resource_version(json: &Bytes, revision: u64) -> Bytes {
    let Some(place) = Place::find(json) else { return json.clone() };
    if revision == 0 && place.from == place.to {
        return json.clone();
    }
    let mut member = String::new();
    if revision > 0 {
        let (before, after) = (if place.comma_before { "," } else { "" }, if place.comma_after { "," } else { "" });
        member = format!("{before}\"resourceVersion\":\"{revision}\"{after}");
    }
    if json[place.from..place.to] == *member.as_bytes() {
        // It is there already: the bytes are shared with the key-value store.
        return json.clone();
    }
    let mut out = BytesMut::with_capacity(json.len() + 44);
    out.put_slice(&json[..place.from]);
    out.put_slice(member.as_bytes());
    out.put_slice(&json[place.to..]);
    out.freeze()
}

/// Where `metadata.resourceVersion` is or belongs, with its commas.
struct Place {
    from: usize,
    to: usize,
    comma_before: bool,
    comma_after: bool,
}

impl Place {
    fn find(json: &[u8]) -> Option<Self> {
        let top = Members::new(json, 1).find(|m| &json[m.key.0..m.key.1] == b"metadata")?;
        if json.get(top.value.0) != Some(&b'{') {
            return None;
        }
        let (start, end) = (top.value.0 + 1, top.value.1 - 1);
        let mut last = None;
        for member in Members::new(json, start) {
            let key = &json[member.key.0..member.key.1];
            let quote = member.key.0 - 1;
            if key > &b"resourceVersion"[..] {
                return Some(Self { from: quote, to: quote, comma_before: false, comma_after: true });
            }
            if key == b"resourceVersion" {
                return Some(match (last, json.get(member.value.1)) {
                    (_, Some(b',')) => {
                        Self { from: quote, to: member.value.1 + 1, comma_before: false, comma_after: true }
                    }
                    (Some(last), _) => Self { from: last, to: member.value.1, comma_before: true, comma_after: false },
                    (None, _) => Self { from: quote, to: member.value.1, comma_before: false, comma_after: false },
                });
            }
            last = Some(member.value.1);
        }
        Some(Self { from: end, to: end, comma_before: last.is_some(), comma_after: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn resource_versions_are_put_in_sorted_place() {
        let check = |object: Value, want: &str| {
            let json = Bytes::from(serde_json::to_vec(&object).expect("json"));
            let spliced = with_resource_version(&json, 7);
            assert_eq!(std::str::from_utf8(&spliced), Ok(want));
            let sorted = serde_json::from_slice::<Value>(&spliced).and_then(|v| serde_json::to_string(&v));
            assert_eq!(sorted.expect("json"), want, "canonical");
            let again = with_resource_version(&spliced, 123);
            assert_eq!(again, want.replace("\"7\"", "\"123\""));
        };
        check(json!({"metadata": {}}), r#"{"metadata":{"resourceVersion":"7"}}"#);
        check(json!({"metadata": {"uid": "u"}}), r#"{"metadata":{"resourceVersion":"7","uid":"u"}}"#);
        check(json!({"metadata": {"name": "n"}}), r#"{"metadata":{"name":"n","resourceVersion":"7"}}"#);
        check(
            json!({"data": {"metadata": {"uid": "}\"\\"}}, "metadata": {"annotations": {"uid": "{\"a\":[1]}"}, "uid": "u"}, "z": [1, {}]}),
            r#"{"data":{"metadata":{"uid":"}\"\\"}},"metadata":{"annotations":{"uid":"{\"a\":[1]}"},"resourceVersion":"7","uid":"u"},"z":[1,{}]}"#,
        );
    }

    #[test]
    fn bytes_that_are_no_object_pass_through() {
        for text in ["", "1", "{}", "[]", "{\"metadata\":1}", "{\"metadata\":{\"a\"", "{\"metadata\":\"\\"] {
            assert_eq!(with_resource_version(&Bytes::from(text), 7), text);
        }
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let nested = |levels: usize| (0..levels).fold(Value::from(1), |inner, _| Value::from(vec![inner]));
        assert!(!is_deeper(&nested(MAX_DEPTH), MAX_DEPTH));
        assert!(is_deeper(&nested(MAX_DEPTH + 1), MAX_DEPTH));
        assert!(serde_json::from_str::<Value>(&nested(MAX_DEPTH + 2).to_string()).is_ok());
        let stored = Stored::of(nested(MAX_DEPTH + 2).to_string().into(), Meta::default());
        let check = |depth: usize, present: Option<&Stored>| check_depth(&nested(depth), present).is_ok();
        assert!(check(MAX_DEPTH, None) && !check(MAX_DEPTH + 1, None));
        assert!(check(MAX_DEPTH + 2, Some(&stored)) && !check(MAX_DEPTH + 3, Some(&stored)));
    }
}
