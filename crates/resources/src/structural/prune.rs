//! Pruning: fields that no schema knows are removed, and named.

use super::{Node, Schema};
use api::Cause;
use serde_json::{Map, Value};

impl Schema {
    /// Removes unknown fields of a whole object; gives their paths, sorted.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut removed = Vec::new();
        self.prune_at(Some(0), object, true, "", &mut removed);
        removed.sort();
        removed
    }

    /// As [`Schema::prune`], below a node and for a value that is no whole object (a default).
    pub(super) fn prune_value(&self, node: usize, value: &mut Value) -> Vec<String> {
        let mut removed = Vec::new();
        self.prune_at(Some(node), value, self.node(node).embedded, "", &mut removed);
        removed
    }

    fn prune_at(&self, at: Option<usize>, value: &mut Value, whole: bool, path: &str, removed: &mut Vec<String>) {
        let node = at.map(|at| self.node(at));
        match value {
            Value::Object(map) => self.prune_map(node, map, whole, path, removed),
            Value::Array(list) => {
                if node.is_some_and(|n| n.preserve && n.items.is_none()) {
                    return;
                }
                for (i, item) in list.iter_mut().enumerate() {
                    let items = node.and_then(|n| n.items);
                    let whole = items.is_some_and(|i| self.node(i).embedded);
                    self.prune_at(items, item, whole, &format!("{path}[{i}]"), removed);
                }
            }
            _ => {}
        }
    }

    fn prune_map(
        &self,
        node: Option<&Node>,
        map: &mut Map<String, Value>,
        whole: bool,
        path: &str,
        removed: &mut Vec<String>,
    ) {
        map.retain(|key, value| {
            if whole && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                return true;
            }
            let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let known = node.and_then(|n| n.properties.get(key).copied().or(n.additional));
            match known {
                Some(at) => self.prune_at(Some(at), value, self.node(at).embedded, &place, removed),
                None if node.is_some_and(|n| n.preserve || n.additional_any) => {}
                None => {
                    removed.push(place);
                    return false;
                }
            }
            true
        });
    }

    /// Makes the metadata of the embedded resources what metadata is, and adds to `strict` what is unknown there; gives
    /// the error of what cannot be a type or metadata, the first one.
    pub fn uncoerced(&self, object: &mut Value, strict: &mut Vec<String>) -> Option<Cause> {
        let mut failed = None;
        self.embedded_at(0, object, ["", ""], &mut |[path, dotted], value| {
            let found = type_error(path, value).or_else(|| {
                let metadata = value.get("metadata").cloned().unwrap_or_default();
                let why = decode_metadata(value, dotted, strict).err()?;
                Some(Cause::invalid(join(path, "metadata"), &metadata, &why))
            });
            failed = failed.take().or(found);
        });
        failed
    }

    /// Visits the embedded resources of a value with their paths; in the second form keys of maps are told as fields are.
    fn embedded_at(&self, at: usize, value: &mut Value, path: [&str; 2], visit: &mut dyn FnMut([&str; 2], &mut Value)) {
        let node = self.node(at);
        if node.embedded && value.is_object() {
            visit(path, value);
        }
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let field = path.map(|path| join(path, key));
                    if let Some(below) = node.properties.get(key) {
                        self.embedded_at(*below, value, [&field[0], &field[1]], visit);
                    } else if let Some(below) = node.additional {
                        self.embedded_at(below, value, [&format!("{}[{key}]", path[0]), &field[1]], visit);
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = node.items else { return };
                for (i, item) in list.iter_mut().enumerate() {
                    let place = path.map(|path| format!("{path}[{i}]"));
                    self.embedded_at(items, item, [&place[0], &place[1]], visit);
                }
            }
            _ => {}
        }
    }
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// The error of an embedded resource's type that is no text.
fn type_error(path: &str, resource: &Value) -> Option<Cause> {
    let given = |field: &&str| resource.get(*field).is_some_and(|value| !value.is_string());
    let field = ["apiVersion", "kind"].into_iter().find(given)?;
    Some(Cause::invalid(join(path, field), &resource[field], "must be a string"))
}

/// Decodes the metadata of a resource, whole or embedded at a path; adds to `strict` what is unknown there.
pub fn decode_metadata(resource: &mut Value, path: &str, strict: &mut Vec<String>) -> Result<(), String> {
    let Some(metadata) = resource.get_mut("metadata") else { return Ok(()) };
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    let prefix = join(path, "metadata");
    // There are no quantities in metadata.
    for error in schema::decode(OBJECT_META, metadata, |_| None)? {
        strict.push(error.replacen('"', &format!("\"{prefix}."), 1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn embedded_resources_have_types_and_metadata() {
        let schema =
            Schema::new(&json!({"type": "object", "properties": {"x": {"type": "array", "items": {"type": "object",
            "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}}));
        let check = |resource: Value, want: Option<&str>, strict: &[&str]| {
            let mut unknown = Vec::new();
            let found = schema.uncoerced(&mut json!({"x": [resource]}), &mut unknown);
            assert_eq!(found.map(|c| format!("{}: {}", c.field, c.message)).as_deref(), want);
            assert_eq!(unknown, strict);
        };
        check(json!({"kind": "K", "metadata": {"zz": 1}}), None, &["unknown field \"x[0].metadata.zz\""]);
        check(json!({"kind": 1}), Some("x[0].kind: Invalid value: 1: must be a string"), &[]);
        check(
            json!({"metadata": {"labels": {"a": 1}}}),
            Some(
                "x[0].metadata: Invalid value: {\"labels\":{\"a\":1}}: json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string",
            ),
            &[],
        );
    }

    #[test]
    fn unknown_fields_go() {
        let schema = Schema::new(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "a": {"type": "string"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"known": {"type": "object"}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"k": {}}}},
                "list": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}}}}));
        let check = |mut object: Value, want: Value, gone: &[&str]| {
            assert_eq!(schema.prune(&mut object), gone);
            assert_eq!(object, want);
        };
        check(json!({"kind": "K", "metadata": {"x": 1}, "zz": 1}), json!({"kind": "K", "metadata": {"x": 1}}), &["zz"]);
        check(json!({"spec": {"b": 1, "a": "x"}}), json!({"spec": {"a": "x"}}), &["spec.b"]);
        check(
            json!({"spec": {"free": {"x": {"y": 1}, "known": {"z": 1}}}}),
            json!({"spec": {"free": {"x": {"y": 1}, "known": {}}}}),
            &["spec.free.known.z"],
        );
        check(
            json!({"spec": {"map": {"m": {"k": 1, "q": 2}}}}),
            json!({"spec": {"map": {"m": {"k": 1}}}}),
            &["spec.map.m.q"],
        );
        check(
            json!({"spec": {"list": [{"k": "a", "q": 1}]}}),
            json!({"spec": {"list": [{"k": "a"}]}}),
            &["spec.list[0].q"],
        );
    }
}
