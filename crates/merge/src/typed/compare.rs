//! What changed between two objects.

use super::{Node, Typed, entries, is_leaf, is_list, items};
use crate::set::FieldSet;
use serde_json::Value;
use std::collections::BTreeMap;

/// Paths that appeared, went, or changed their value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Comparison {
    pub(crate) added: FieldSet,
    pub(crate) removed: FieldSet,
    pub(crate) modified: FieldSet,
}

impl Comparison {
    /// Without these fields and everything below them.
    pub(crate) fn without(self, fields: &[&[&str]]) -> Self {
        Self {
            added: self.added.without(fields),
            removed: self.removed.without(fields),
            modified: self.modified.without(fields),
        }
    }
}

impl Typed<'_> {
    pub(crate) fn compare(&self, old: &Value, new: &Value) -> Comparison {
        let mut out = Comparison::default();
        self.compare_at(&self.root(), Some(old), Some(new), &mut Vec::new(), &mut out);
        out
    }

    fn compare_at(
        &self,
        node: &Node,
        old: Option<&Value>,
        new: Option<&Value>,
        path: &mut Vec<String>,
        out: &mut Comparison,
    ) {
        let is_empty = |v: Option<&Value>| match v {
            Some(Value::Object(m)) => m.is_empty(),
            Some(Value::Array(l)) => l.is_empty(),
            Some(Value::Null) | None => true,
            Some(_) => false,
        };
        let leaf = |v: Option<&Value>| v.is_some_and(|v| is_leaf(node, v));
        if leaf(old) || leaf(new) || (is_empty(old) && is_empty(new)) {
            match (old, new) {
                (None, Some(_)) => out.added.insert(path),
                (Some(_), None) => out.removed.insert(path),
                (old, new) if old != new => out.modified.insert(path),
                _ => {}
            }
            return;
        }
        if is_list(node) {
            self.compare_lists(node, items(old), items(new), path, out);
        } else {
            self.compare_maps(node, old, new, path, out);
        }
        if old.is_none() {
            out.added.insert(path);
        } else if new.is_none() {
            out.removed.insert(path);
        }
    }

    fn compare_maps(
        &self,
        node: &Node,
        old: Option<&Value>,
        new: Option<&Value>,
        path: &mut Vec<String>,
        out: &mut Comparison,
    ) {
        let (old, new) = (entries(old), entries(new));
        let added = new.keys().filter(|k| !old.contains_key(*k));
        for key in old.keys().chain(added) {
            path.push(format!("f:{key}"));
            self.compare_at(&self.child(node, key).0, old.get(key), new.get(key), path, out);
            path.pop();
        }
    }

    fn compare_lists(&self, node: &Node, old: &[Value], new: &[Value], path: &mut Vec<String>, out: &mut Comparison) {
        let by_element = |list| {
            let mut by: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
            for item in list {
                if let Ok(key) = self.path_element(node, item) {
                    by.entry(key).or_default().push(item);
                }
            }
            by
        };
        let (old, new) = (by_element(old), by_element(new));
        let element = self.element(node);
        let none = Vec::new();
        let added = new.keys().filter(|k| !old.contains_key(*k));
        for key in old.keys().chain(added) {
            let (l, r) = (old.get(key).unwrap_or(&none), new.get(key).unwrap_or(&none));
            path.push(key.clone());
            match (l.len(), r.len()) {
                (0 | 1, 0 | 1) => self.compare_at(&element, l.first().copied(), r.first().copied(), path, out),
                (2.., 2..) if l != r => out.modified.insert(path),
                (2.., 2..) => {}
                (2.., _) => {
                    if let Some(item) = r.first() {
                        self.compare_at(&element, None, Some(item), path, out);
                    }
                    out.removed.insert(path);
                }
                _ => {
                    if let Some(item) = l.first() {
                        self.compare_at(&element, Some(item), None, path, out);
                    }
                    out.added.insert(path);
                }
            }
            path.pop();
        }
    }
}
