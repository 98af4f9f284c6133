//! What changed between two objects.

use super::{Node, Typed, entries, is_leaf, is_list, items};
use crate::set::FieldSet;
use serde_json::{Map, Value};

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
    added: Vec<(Box<str>, FieldSet)>,
    removed: Vec<(Box<str>, FieldSet)>,
    modified: Vec<(Box<str>, FieldSet)>,
}

impl Parts {
    fn add(&mut self, element: impl Fn() -> Box<str>, part: Comparison) {
        let lists = [&mut self.added, &mut self.removed, &mut self.modified];
        for (list, set) in lists.into_iter().zip([part.added, part.removed, part.modified]) {
            if set.member || !set.children().is_empty() {
                list.push((element(), set));
            }
        }
    }

    fn together(self) -> Comparison {
        // An element comes once.
        let set = |parts: Vec<(Box<str>, FieldSet)>| FieldSet::of(parts, |first, _| first);
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
            parts.add(|| ["f:", key].concat().into(), self.compare_at(&below.field(key).0, old, new));
        }
        parts
    }

    fn compare_lists(&self, node: &Node, old: &[Value], new: &[Value]) -> Parts {
        let (old, new) = (self.by_element(node, old), self.by_element(node, new));
        let (mut old, mut new) = (old.as_slice(), new.as_slice());
        let (element, mut parts) = (self.element(node), Parts::default());
        while let Some(key) = first_key(old, new) {
            let (olds, news) = (of_key(&mut old, key), of_key(&mut new, key));
            parts.add(|| key.into(), self.compare_elements(&element, &olds, &news));
        }
        parts
    }

    /// The elements of a list that can be told apart, in the order of their keys.
    fn by_element<'v>(&self, node: &Node, list: &'v [Value]) -> Vec<(Box<str>, &'v Value)> {
        let element = |item| Some((Box::from(self.path_element(node, item).ok()?), item));
        let mut by: Vec<(Box<str>, &Value)> = list.iter().filter_map(element).collect();
        by.sort_by(|(a, _), (b, _)| a.cmp(b));
        by
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

type ByKey<'v> = [(Box<str>, &'v Value)];

/// The least key that either list begins with.
fn first_key<'l>(old: &'l ByKey<'_>, new: &'l ByKey<'_>) -> Option<&'l str> {
    old.first().into_iter().chain(new.first()).map(|(key, _)| &**key).min()
}

/// Takes the elements of a key off the front of a list.
fn of_key<'v>(list: &mut &ByKey<'v>, key: &str) -> Vec<&'v Value> {
    let (of_key, rest) = list.split_at(list.partition_point(|(other, _)| **other <= *key));
    *list = rest;
    of_key.iter().map(|(_, value)| *value).collect()
}
