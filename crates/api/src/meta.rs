//! Metadata of an object held as a JSON value.

use crate::Object;
use serde_json::{Map, Value};

/// `metadata.name`, or empty.
pub fn name(obj: &Object) -> &str {
    string(obj, "name")
}

/// `metadata.namespace`, or empty.
pub fn namespace(obj: &Object) -> &str {
    string(obj, "namespace")
}

/// `metadata.uid`, or empty.
pub fn uid(obj: &Object) -> &str {
    string(obj, "uid")
}

/// `metadata.resourceVersion`, or empty.
pub fn resource_version(obj: &Object) -> &str {
    string(obj, "resourceVersion")
}

/// `metadata.generation`, 0 when absent.
pub fn generation(obj: &Object) -> i64 {
    obj.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0)
}

/// Whether `metadata.deletionTimestamp` is set.
pub fn is_deleting(obj: &Object) -> bool {
    !string(obj, "deletionTimestamp").is_empty()
}

/// `metadata.finalizers`.
pub fn finalizers(obj: &Object) -> Vec<&str> {
    let list = obj.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// One label's value.
pub fn label<'a>(obj: &'a Object, key: &str) -> Option<&'a str> {
    obj.get("metadata")?.get("labels")?.get(key)?.as_str()
}

/// One annotation's value.
pub fn annotation<'a>(obj: &'a Object, key: &str) -> Option<&'a str> {
    obj.get("metadata")?.get("annotations")?.get(key)?.as_str()
}

/// A string field of the metadata, or empty.
pub fn string<'a>(obj: &'a Object, field: &str) -> &'a str {
    obj.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or("")
}

/// The metadata map, made when absent; an object that is not a map becomes one.
pub fn metadata_mut(obj: &mut Object) -> &mut Map<String, Value> {
    field_mut(obj, "metadata")
}

/// Sets one metadata field; `Null` removes it.
pub fn set(obj: &mut Object, field: &str, value: impl Into<Value>) {
    match value.into() {
        Value::Null => drop(metadata_mut(obj).remove(field)),
        value => drop(metadata_mut(obj).insert(field.to_owned(), value)),
    }
}

/// Sets an annotation.
pub fn set_annotation(obj: &mut Object, key: &str, value: &str) {
    let meta = metadata_mut(obj);
    let map = meta.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    map_of(map).insert(key.to_owned(), value.into());
}

/// A field that is a map, made when absent or of another type.
pub fn field_mut<'a>(obj: &'a mut Object, field: &str) -> &'a mut Map<String, Value> {
    let entry = map_of(obj).entry(field).or_insert(Value::Null);
    map_of(entry)
}

fn map_of(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made a map above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_and_writes() {
        let mut obj = json!({"metadata": {"name": "a", "finalizers": ["x"], "labels": {"k": "v"}}});
        set(&mut obj, "uid", "u");
        set_annotation(&mut obj, "n", "1");
        assert_eq!((name(&obj), uid(&obj), label(&obj, "k")), ("a", "u", Some("v")));
        assert_eq!((finalizers(&obj), annotation(&obj, "n")), (vec!["x"], Some("1")));
        set(&mut obj, "uid", Value::Null);
        assert_eq!(uid(&obj), "");
    }
}
