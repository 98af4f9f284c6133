//! Taking a set of fields out of an object.

use super::{Node, Typed, is_leaf};
use crate::set::FieldSet;
use serde_json::{Map, Value};

impl Typed<'_> {
    /// The object without the fields of the set.
    pub(crate) fn remove(&self, value: &Value, set: &FieldSet) -> Value {
        self.remove_at(&self.root(), value, set).unwrap_or_else(|| Value::Object(Map::new()))
    }

    /// `None` where nothing is left that was not there.
    fn remove_at(&self, node: &Node, value: &Value, set: &FieldSet) -> Option<Value> {
        match value {
            Value::Array(items) if !is_leaf(node, value) => {
                let element = self.element(node);
                let mut out = Vec::new();
                for item in items {
                    let key = self.path_element(node, item).unwrap_or_default();
                    out.extend(self.remove_child(&element, item, set.child(&key)));
                }
                (!out.is_empty() || has_inner(set)).then_some(Value::Array(out))
            }
            Value::Object(map) if !is_leaf(node, value) => {
                let (mut out, below) = (Map::new(), self.below(node));
                for (key, item) in map {
                    let child = below.field(key).0;
                    let kept = self.remove_child(&child, item, set.child(&["f:", key].concat()));
                    out.extend(kept.map(|kept| (key.clone(), kept)));
                }
                (!out.is_empty() || has_inner(set)).then_some(Value::Object(out))
            }
            // What is owned as a whole has no parts to remove.
            other => Some(other.clone()),
        }
    }

    fn remove_child(&self, node: &Node, value: &Value, set: Option<&FieldSet>) -> Option<Value> {
        match set {
            None => Some(value.clone()),
            Some(set) if set.member => None,
            Some(set) if set.is_empty() => Some(value.clone()),
            Some(set) => Some(self.remove_at(node, value, set).unwrap_or_else(|| match value {
                Value::Array(_) => Value::Array(Vec::new()),
                Value::Object(_) => Value::Object(Map::new()),
                other => other.clone(),
            })),
        }
    }
}

fn has_inner(set: &FieldSet) -> bool {
    set.children().iter().any(|(_, child)| !child.member && !child.is_empty())
}
