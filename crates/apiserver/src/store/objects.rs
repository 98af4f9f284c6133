//! The objects of a resource by key, and by the values of its indexed fields.

use super::cacher::Span;
use super::{Selection, StoreSpec, Stored};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

type Index = HashMap<String, BTreeSet<Arc<str>>>;
type Candidates<'a> = Box<dyn Iterator<Item = (&'a Arc<str>, &'a Stored)> + 'a>;

/// Objects with one index for each indexed field.
pub(super) struct Objects {
    map: BTreeMap<Arc<str>, Stored>,
    indexes: Vec<Index>,
    bytes: usize,
}

impl Objects {
    pub fn new(indexes: usize) -> Self {
        Self { map: BTreeMap::new(), indexes: (0..indexes).map(|_| Index::new()).collect(), bytes: 0 }
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn get(&self, key: &str) -> Option<&Stored> {
        self.map.get(key)
    }

    /// Adds or replaces an object; returns what was there.
    pub fn insert(&mut self, spec: &StoreSpec, key: Arc<str>, stored: Stored) -> Option<Stored> {
        let previous = self.remove(spec, &key);
        for (field, index) in spec.indexed.iter().zip(&mut self.indexes) {
            index.entry(stored.meta.field(field).to_owned()).or_default().insert(key.clone());
        }
        self.bytes += stored.json.len();
        self.map.insert(key, stored);
        previous
    }

    /// Removes an object; returns it.
    pub fn remove(&mut self, spec: &StoreSpec, key: &str) -> Option<Stored> {
        let previous = self.map.remove(key)?;
        self.bytes -= previous.json.len();
        for (field, index) in spec.indexed.iter().zip(&mut self.indexes) {
            let value = previous.meta.field(field);
            if let Some(keys) = index.get_mut(value) {
                keys.remove(key);
                if keys.is_empty() {
                    index.remove(value);
                }
            }
        }
        Some(previous)
    }

    /// The objects of a span, in order, that a selection may hold: as few as name and indexes allow.
    pub fn candidates<'a>(&'a self, spec: &StoreSpec, selection: &Selection, span: &Span) -> Candidates<'a> {
        let bounds = (Bound::Included(span.start.as_str()), Bound::Excluded(span.end.as_str()));
        if let Some(key) = span.key(spec, selection) {
            let found = self.map.get_key_value(key.as_str());
            let inside = key >= span.start;
            return Box::new(found.into_iter().filter(move |_| inside));
        }
        if span.start >= span.end {
            return Box::new(std::iter::empty());
        }
        let exact = |(field, index): (&&str, &'a Index)| Some((index, selection.fields.exact(field)?.to_owned()));
        match spec.indexed.iter().zip(&self.indexes).find_map(exact) {
            Some((index, value)) => {
                let keys = index.get(&value).map(|keys| keys.range::<str, _>(bounds)).into_iter().flatten();
                Box::new(keys.filter_map(|key| self.map.get_key_value(&**key)))
            }
            None => Box::new(self.map.range::<str, _>(bounds)),
        }
    }

    /// How many objects a span has.
    pub fn count(&self, span: &Span) -> usize {
        if span.start >= span.end {
            return 0;
        }
        self.map.range::<str, _>((Bound::Included(span.start.as_str()), Bound::Excluded(span.end.as_str()))).count()
    }
}

impl Span {
    /// The one key a selection can hold, where its name fixes that.
    pub fn key(&self, spec: &StoreSpec, selection: &Selection) -> Option<String> {
        let scoped = !spec.namespaced || !selection.namespace.is_empty();
        (scoped && !selection.name.is_empty()).then(|| format!("{}{}", self.scope, selection.name))
    }
}
