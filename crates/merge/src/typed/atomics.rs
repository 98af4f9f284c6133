//! What of a value is owned as a whole.

use super::{Node, Typed};
use crate::{ListType, Shape};
use serde_json::Value;

impl Typed<'_> {
    /// Paths of the lists, maps and structs in a value that are owned as a whole: `.spec.args`.
    pub(crate) fn atomics(&self, value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        self.atomics_at(&self.root(), value, &mut String::new(), &mut found);
        found
    }

    fn atomics_at(&self, node: &Node, value: &Value, path: &mut String, found: &mut Vec<String>) {
        let length = path.len();
        match value {
            Value::Object(map) => {
                if node.fact.atomic || node.fact.shape == Shape::Scalar {
                    found.push(path.clone());
                    return;
                }
                let fields = self.below(node);
                for (key, value) in map {
                    path.push_str(&format!(".{key}"));
                    self.atomics_at(&fields.field(key).0, value, path, found);
                    path.truncate(length);
                }
            }
            Value::Array(items) => {
                if node.fact.shape != Shape::List || node.fact.list_type == ListType::Atomic {
                    found.push(path.clone());
                    return;
                }
                let element = self.element(node);
                for (at, item) in items.iter().enumerate() {
                    path.push_str(&format!("[{at}]"));
                    self.atomics_at(&element, item, path, found);
                    path.truncate(length);
                }
            }
            _ => {}
        }
    }
}
