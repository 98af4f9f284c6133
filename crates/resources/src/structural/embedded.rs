//! Whole objects inside of custom resources: their type and metadata are those of any object.

use super::Schema;
use crate::metadata::validate_object_meta;
use crate::names;
use api::Cause;
use serde_json::{Map, Value, json};

impl Schema {
    /// Makes the root a whole object, or none.
    pub(super) fn set_embedded(&mut self, embedded: bool) {
        self.nodes[0].embedded |= embedded;
    }

    /// The errors of the whole objects inside of a value.
    pub(super) fn embedded_errors(&self, value: &Value, out: &mut Vec<Cause>) {
        self.embedded_at_node(0, value, "", out);
    }

    fn embedded_at_node(&self, at: usize, value: &Value, path: &str, out: &mut Vec<Cause>) {
        let node = self.node(at);
        match value {
            Value::Object(map) => {
                if node.embedded {
                    object(map, path, out);
                }
                for (key, value) in map {
                    if let Some(below) = node.properties.get(key) {
                        self.embedded_at_node(*below, value, &join(path, key), out);
                    } else if let Some(below) = node.additional {
                        self.embedded_at_node(below, value, &format!("{path}[{key}]"), out);
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = node.items else { return };
                for (i, item) in list.iter().enumerate() {
                    self.embedded_at_node(items, item, &format!("{path}[{i}]"), out);
                }
            }
            _ => {}
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn object(map: &Map<String, Value>, path: &str, out: &mut Vec<Cause>) {
    for field in ["apiVersion", "kind"] {
        if !map.contains_key(field) {
            out.push(Cause::required(join(path, field), ""));
        }
    }
    for (key, value) in map {
        let at = join(path, key);
        match (key.as_str(), value) {
            ("apiVersion" | "kind", Value::String(text)) if text.is_empty() => {
                out.push(Cause::invalid(at, value, "must not be empty"));
            }
            ("apiVersion", Value::String(text)) if text.matches('/').count() > 1 => {
                out.push(Cause::invalid(at, value, &format!("unexpected GroupVersion string: {text}")));
            }
            ("kind", Value::String(text)) => {
                let wrong = names::dns1035_label(&text.to_lowercase(), false);
                if !wrong.is_empty() {
                    let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
                    out.push(Cause::invalid(at, value, &why));
                }
            }
            ("apiVersion", Value::String(_)) => {}
            ("apiVersion" | "kind", _) => out.push(Cause::invalid(at, value, "must be a string")),
            ("metadata", Value::Object(metadata)) => object_meta(metadata, &at, out),
            _ => {}
        }
    }
}

fn object_meta(metadata: &Map<String, Value>, path: &str, out: &mut Vec<Cause>) {
    let mut metadata = metadata.clone();
    let text =
        |metadata: &Map<String, Value>, key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    if text(&metadata, "name").is_empty() {
        // An object inside of another needs no name.
        metadata.insert("name".into(), "fakename".into());
    }
    let namespaced = !text(&metadata, "namespace").is_empty();
    let whole = json!({"metadata": metadata});
    for mut cause in validate_object_meta(&whole, namespaced, &names::path_segment, false) {
        cause.field = cause.field.replacen("metadata", path, 1);
        out.push(cause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_objects_are_checked() {
        let schema = Schema::new(&json!({"type": "object", "properties": {"x": {"type": "object",
            "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}));
        let check = |object: Value, want: &[&str]| {
            let mut out = Vec::new();
            schema.embedded_errors(&json!({"x": object}), &mut out);
            let got: Vec<_> = out.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
            assert_eq!(got.len(), want.len(), "{got:?}");
            assert!(got.iter().zip(want).all(|(g, w)| g.starts_with(w)), "{got:?}");
        };
        check(json!({"apiVersion": "v1", "kind": "Pod"}), &[]);
        check(json!({}), &["x.apiVersion: Required value", "x.kind: Required value"]);
        check(
            json!({"apiVersion": "a/b/c", "kind": "Pod"}),
            &["x.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion"],
        );
        check(json!({"apiVersion": "v1", "kind": "a_b"}), &["x.kind: Invalid value: \"a_b\": may have mixed case"]);
        check(
            json!({"apiVersion": "v1", "kind": "P", "metadata": {"labels": {"a b": "c"}}}),
            &["x.metadata.labels: Invalid value: \"a b\""],
        );
    }
}
