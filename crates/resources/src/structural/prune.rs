//! Pruning: fields that no schema knows are removed, and named.

use super::{Node, Schema};
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

    /// Calls `visit` with every embedded resource of an object, and its path.
    pub fn embedded(&self, object: &mut Value, visit: &mut dyn FnMut(&str, &mut Value)) {
        self.embedded_at(0, object, "", visit);
    }

    fn embedded_at(&self, at: usize, value: &mut Value, path: &str, visit: &mut dyn FnMut(&str, &mut Value)) {
        let node = self.node(at);
        if node.embedded && value.is_object() {
            visit(path, value);
        }
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    if let Some(below) = node.properties.get(key).copied().or(node.additional) {
                        let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                        self.embedded_at(below, value, &place, visit);
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = node.items else { return };
                for (i, item) in list.iter_mut().enumerate() {
                    self.embedded_at(items, item, &format!("{path}[{i}]"), visit);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
