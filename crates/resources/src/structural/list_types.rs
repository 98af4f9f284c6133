//! Lists that are sets or maps: their values or keys are unique.

use super::{ListType, Schema};
use api::Cause;
use serde_json::{Map, Value};

impl Schema {
    pub(super) fn list_types(&self, at: usize, value: &Value, path: &str, out: &mut Vec<Cause>) {
        let node = self.node(at);
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    if let Some(below) = node.properties.get(key) {
                        let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                        self.list_types(*below, value, &place, out);
                    } else if let Some(below) = node.additional {
                        self.list_types(below, value, &format!("{path}[{key}]"), out);
                    }
                }
            }
            Value::Array(list) => {
                match node.list_type {
                    ListType::Set => unique(list, path, Value::clone, out),
                    ListType::Map if list.iter().all(Value::is_object) => {
                        unique(list, path, |item| self.key_of(at, item), out);
                    }
                    ListType::Map => {
                        for (i, item) in list.iter().enumerate().filter(|(_, item)| !item.is_object()) {
                            let why = "must be an object for an array of list-type map";
                            out.push(Cause::invalid(format!("{path}[{i}]"), item, why));
                        }
                    }
                    ListType::Atomic => {}
                }
                let Some(items) = node.items else { return };
                for (i, item) in list.iter().enumerate() {
                    self.list_types(items, item, &format!("{path}[{i}]"), out);
                }
            }
            _ => {}
        }
    }

    /// The keys of an element, absent ones with their defaults.
    fn key_of(&self, list: usize, item: &Value) -> Value {
        let node = self.node(list);
        let default = |key: &String| self.node(*self.node(node.items?).properties.get(key)?).default.clone();
        let keys = node
            .list_keys
            .iter()
            .filter_map(|key| Some((key.clone(), item.get(key).cloned().or_else(|| default(key))?)));
        Value::Object(keys.collect::<Map<_, _>>())
    }
}

fn unique(list: &[Value], path: &str, key: impl Fn(&Value) -> Value, out: &mut Vec<Cause>) {
    let mut seen: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    for (i, item) in list.iter().enumerate() {
        let key = key(item);
        let times = seen.entry(key.to_string()).or_default();
        *times += 1;
        // Each is told of once.
        if *times == 2 {
            out.push(Cause::duplicate(format!("{path}[{i}]"), &key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_say_where_they_are() {
        let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
        let keyed = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}}}});
        let schema = Schema::new(&json!({"type": "object", "properties": {
            "m": {"type": "object", "additionalProperties": set}, "l": keyed}}));
        let check = |object: Value, want: &[&str]| {
            let got: Vec<_> =
                schema.lists(&object, None).iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
            assert_eq!(got, want);
        };
        check(json!({"m": {"a b": ["x", "x"]}}), &["m[a b][1]: Duplicate value: \"x\""]);
        check(
            json!({"l": [{"k": "a"}, ["a"], {"k": "a"}]}),
            &["l[1]: Invalid value: [\"a\"]: must be an object for an array of list-type map"],
        );
    }
}
