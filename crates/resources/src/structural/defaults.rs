//! Defaulting of custom resources.

use super::Schema;
use serde_json::Value;

impl Schema {
    /// Sets what is absent, or null where null is no value, and removes the other nulls that are no values.
    pub fn default_object(&self, object: &mut Value) {
        self.default_at(0, object);
    }

    fn default_at(&self, at: usize, value: &mut Value) {
        let node = self.node(at);
        match value {
            Value::Object(map) => {
                for (key, below) in &node.properties {
                    let below = self.node(*below);
                    let missing = map.get(key).is_none_or(|v| v.is_null() && !below.nullable);
                    if let (true, Some(default)) = (missing, &below.default) {
                        map.insert(key.clone(), default.clone());
                    }
                }
                map.retain(|key, value| {
                    let Some(below) = node.properties.get(key).copied().or(node.additional) else { return true };
                    self.settle(below, value)
                });
            }
            Value::Array(list) => {
                let Some(items) = node.items else { return };
                for item in list {
                    self.settle(items, item);
                }
            }
            _ => {}
        }
    }

    /// Defaults a value; false when it is a null that means nothing.
    fn settle(&self, at: usize, value: &mut Value) -> bool {
        let node = self.node(at);
        if value.is_null() && !node.nullable {
            match &node.default {
                Some(default) => *value = default.clone(),
                None => return node.kind == super::Kind::Any && !node.int_or_string,
            }
        }
        self.default_at(at, value);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_fields_are_set() {
        let schema = Schema::new(&json!({"type": "object", "properties": {
            "a": {"type": "integer", "default": 3},
            "nest": {"type": "object", "default": {}, "properties": {"d": {"type": "string", "default": "x"}}},
            "plain": {"type": "object", "properties": {"d": {"type": "string", "default": "x"}}},
            "nul": {"type": "string", "nullable": true, "default": "n"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"v": {"type": "string", "default": "dv"}}}},
            "no": {"type": "string"}}}));
        let check = |mut object: Value, want: Value| {
            schema.default_object(&mut object);
            assert_eq!(object, want);
        };
        check(json!({}), json!({"a": 3, "nest": {"d": "x"}, "nul": "n"}));
        check(
            json!({"a": null, "nul": null, "no": null, "nest": {"d": "y"}, "plain": {}}),
            json!({"a": 3, "nul": null, "nest": {"d": "y"}, "plain": {"d": "x"}}),
        );
        check(
            json!({"a": 1, "nest": {"d": "y"}, "nul": "z", "list": [{}]}),
            json!({"a": 1, "nest": {"d": "y"}, "nul": "z", "list": [{"v": "dv"}]}),
        );
    }
}
