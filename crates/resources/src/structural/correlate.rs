//! Old values of the parts of an object, where old and new can be told to be the same part.
//!
//! What did not change may stay invalid (KEP-4008): a part that equals its old value is not held against a newer
//! schema. Fields correlate by name, elements of map lists by their keys, elements of other lists not at all.

use super::{Kind, ListType, Node, Schema};
use serde_json::Value;

/// A part of a new object with its old value.
#[derive(Clone, Copy)]
pub(super) struct Correlated<'a> {
    schema: &'a Schema,
    node: usize,
    new: &'a Value,
    old: &'a Value,
}

impl<'a> Correlated<'a> {
    /// A whole object.
    pub fn of(schema: &'a Schema, new: &'a Value, old: &'a Value) -> Self {
        Self { schema, node: 0, new, old }
    }

    /// A field of an object or a value of a map.
    pub fn key(&self, name: &str) -> Option<Self> {
        let (new, old) = (self.new.as_object()?.get(name)?, self.old.as_object()?.get(name)?);
        let node = self.schema.node(self.node);
        let node = node.properties.get(name).copied().or(node.additional)?;
        Some(Self { node, new, old, ..*self })
    }

    /// An element of a list.
    pub fn index(&self, at: usize) -> Option<Self> {
        let new = self.new.as_array()?.get(at)?;
        let old = old_item(self.schema.node(self.node), new, self.old)?;
        Some(Self { node: self.schema.node(self.node).items?, new, old, ..*self })
    }

    /// Whether nothing changed; what the schema does not know counts as changed.
    pub fn is_unchanged(&self) -> bool {
        match (self.new, self.old) {
            (Value::Array(new), Value::Array(old)) => {
                let correlates = self.schema.node(self.node).list_type == ListType::Map;
                new.len() == old.len()
                    && match correlates {
                        true => (0..new.len()).all(|at| self.index(at).is_some_and(|item| item.is_unchanged())),
                        false => new == old,
                    }
            }
            (Value::Object(new), Value::Object(old)) => {
                new.len() == old.len() && new.keys().all(|key| self.key(key).is_some_and(|part| part.is_unchanged()))
            }
            (new, old) => new == old,
        }
    }
}

/// The element of an old map list with the keys of a new element; the first, where several have them.
pub(super) fn old_item<'a>(list: &Node, item: &Value, old: &'a Value) -> Option<&'a Value> {
    if list.kind != Kind::Array || list.list_type != ListType::Map || list.list_keys.is_empty() {
        return None;
    }
    let keys = keys_of(list, item)?;
    old.as_array()?.iter().find(|old| keys_of(list, old).as_ref() == Some(&keys))
}

fn keys_of<'a>(list: &Node, item: &'a Value) -> Option<Vec<&'a Value>> {
    let map = item.as_object()?;
    let scalar = |value: &&Value| !matches!(value, Value::Array(_) | Value::Object(_) | Value::Null);
    list.list_keys.iter().map(|key| map.get(key).filter(scalar)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unchanged_parts_are_found() {
        let schema = Schema::new(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "integer"}, "free": {"type": "array", "items": {"type": "integer"}},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}}}}}}));
        let check = |new: Value, old: Value, want: bool| {
            let (new, old) = (json!({"spec": new}), json!({"spec": old}));
            let spec = Correlated::of(&schema, &new, &old).key("spec");
            assert_eq!(spec.is_some_and(|s| s.is_unchanged()), want, "{new} {old}");
        };
        check(json!({"a": 1}), json!({"a": 1}), true);
        check(json!({"a": 1}), json!({"a": 2}), false);
        check(json!({"x": 1}), json!({"x": 1}), false);
        check(json!({"free": [1, 2]}), json!({"free": [1, 2]}), true);
        check(json!({"free": [1, 2]}), json!({"free": [2, 1]}), false);
        let (a, b) = (json!({"k": "a", "v": 1}), json!({"k": "b", "v": 2}));
        check(json!({"list": [a, b]}), json!({"list": [b, a]}), true);
        let new = json!({"spec": {"list": [{"k": "b", "v": 3}]}});
        let old = json!({"spec": {"list": [a, b]}});
        let list = Correlated::of(&schema, &new, &old).key("spec").and_then(|s| s.key("list"));
        assert_eq!(list.and_then(|l| l.index(0)).map(|i| i.old.clone()), Some(b));
    }
}
