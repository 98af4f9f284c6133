//! What changed between two objects.

use super::{Node, Typed, entries, is_leaf, is_list, items};
use crate::set::FieldSet;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Paths that appeared, went, or changed their value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Comparison {
    pub(crate) added: FieldSet,
    pub(crate) removed: FieldSet,
    pub(crate) modified: FieldSet,
}

impl Comparison {
    /// A leaf that appeared, went, or changed.
    fn leaf(old: Option<&Value>, new: Option<&Value>) -> Self {
        let mut out = Self::default();
        match (old, new) {
            (None, Some(_)) => out.added.member = true,
            (Some(_), None) => out.removed.member = true,
            (old, new) => out.modified.member = old != new,
        }
        out
    }

    /// Without these fields and everything below them.
    pub(crate) fn without(self, fields: &[&[&str]]) -> Self {
        Self {
            added: self.added.without(fields),
            removed: self.removed.without(fields),
            modified: self.modified.without(fields),
        }
    }

    /// What has a new value, and what went.
    pub(crate) fn touched(self) -> (FieldSet, FieldSet) {
        (self.modified.union(self.added), self.removed)
    }
}

/// The comparisons of the parts of a list or map, those where something changed.
#[derive(Default)]
struct Parts {
    added: Vec<(String, FieldSet)>,
    removed: Vec<(String, FieldSet)>,
    modified: Vec<(String, FieldSet)>,
}

impl Parts {
    fn add(&mut self, element: impl Fn() -> String, part: Comparison) {
        let lists = [&mut self.added, &mut self.removed, &mut self.modified];
        for (list, set) in lists.into_iter().zip([part.added, part.removed, part.modified]) {
            if set.member || !set.children.is_empty() {
                list.push((element(), set));
            }
        }
    }

    fn together(self) -> Comparison {
        let set = |parts: Vec<(String, FieldSet)>| FieldSet { member: false, children: parts.into_iter().collect() };
        Comparison { added: set(self.added), removed: set(self.removed), modified: set(self.modified) }
    }
}

impl Typed<'_> {
    pub(crate) fn compare(&self, old: &Value, new: &Value) -> Comparison {
        self.compare_at(&self.root(), Some(old), Some(new))
    }

    fn compare_at(&self, node: &Node, old: Option<&Value>, new: Option<&Value>) -> Comparison {
        let is_empty = |v: Option<&Value>| match v {
            Some(Value::Object(m)) => m.is_empty(),
            Some(Value::Array(l)) => l.is_empty(),
            Some(Value::Null) | None => true,
            Some(_) => false,
        };
        let leaf = |v: Option<&Value>| v.is_some_and(|v| is_leaf(node, v));
        if leaf(old) || leaf(new) || (is_empty(old) && is_empty(new)) {
            return Comparison::leaf(old, new);
        }
        let parts = match is_list(node) {
            true => self.compare_lists(node, items(old), items(new)),
            false => self.compare_maps(node, entries(old), entries(new)),
        };
        let mut out = parts.together();
        out.added.member = old.is_none();
        out.removed.member = old.is_some() && new.is_none();
        out
    }

    fn compare_maps(&self, node: &Node, old: &Map<String, Value>, new: &Map<String, Value>) -> Parts {
        let (mut parts, below) = (Parts::default(), self.below(node));
        let added = new.iter().filter(|(key, _)| !old.contains_key(*key)).map(|(key, new)| (key, None, Some(new)));
        for (key, old, new) in old.iter().map(|(key, old)| (key, Some(old), new.get(key))).chain(added) {
            parts.add(|| ["f:", key].concat(), self.compare_at(&below.field(key).0, old, new));
        }
        parts
    }

    fn compare_lists(&self, node: &Node, old: &[Value], new: &[Value]) -> Parts {
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
        let (element, mut parts) = (self.element(node), Parts::default());
        let added = new.keys().filter(|key| !old.contains_key(*key));
        let none = Vec::new();
        for key in old.keys().chain(added) {
            let part = self.compare_elements(&element, old.get(key).unwrap_or(&none), new.get(key).unwrap_or(&none));
            parts.add(|| key.clone(), part);
        }
        parts
    }

    /// Compares the elements of one key: one of each, unless a list has duplicates.
    fn compare_elements(&self, node: &Node, old: &[&Value], new: &[&Value]) -> Comparison {
        match (old, new) {
            ([] | [_], [] | [_]) => self.compare_at(node, old.first().copied(), new.first().copied()),
            ([_, _, ..], [_, _, ..]) => {
                let mut out = Comparison::default();
                out.modified.member = old != new;
                out
            }
            ([_, _, ..], _) => {
                let mut out = new.first().map(|item| self.compare_at(node, None, Some(item))).unwrap_or_default();
                out.removed.member = true;
                out
            }
            _ => {
                let mut out = old.first().map(|item| self.compare_at(node, Some(item), None)).unwrap_or_default();
                out.added.member = true;
                out
            }
        }
    }
}
