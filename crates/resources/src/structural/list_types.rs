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
                    if let Some(below) = node.properties.get(key).copied().or(node.additional) {
                        let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                        self.list_types(below, value, &place, out);
                    }
                }
            }
            Value::Array(list) => {
                match node.list_type {
                    ListType::Set => unique(list, path, Value::clone, out),
                    ListType::Map => unique(list, path, |item| self.key_of(at, item), out),
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
