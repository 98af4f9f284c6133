//! Merging what was applied into what is there.

use super::{Node, Typed, entries, is_leaf, is_list, items};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

impl Typed<'_> {
    /// The live object with the applied one on top; nothing is removed.
    pub(crate) fn merge(&self, live: &Value, applied: &Value) -> Result<Value, String> {
        let merged = self.merge_at(&self.root(), Some(live), Some(applied))?;
        Ok(merged.unwrap_or_else(|| Value::Object(Map::new())))
    }

    fn merge_at(&self, node: &Node, live: Option<&Value>, applied: Option<&Value>) -> Result<Option<Value>, String> {
        let leaf = |v: Option<&Value>| v.is_some_and(|v| is_leaf(node, v));
        let keep = || Ok(applied.or(live).cloned());
        if leaf(live) || leaf(applied) {
            return keep();
        }
        if is_list(node) {
            if items(live).is_empty() && items(applied).is_empty() {
                return keep();
            }
            return self.merge_lists(node, items(live), items(applied));
        }
        let (old, new) = (entries(live), entries(applied));
        if old.is_empty() && new.is_empty() {
            return keep();
        }
        let (mut out, below) = (Map::new(), self.below(node));
        let added = new.keys().filter(|k| !old.contains_key(*k));
        for key in old.keys().chain(added) {
            let merged = self.merge_at(&below.field(key).0, old.get(key), new.get(key))?;
            out.extend(merged.map(|value| (key.clone(), value)));
        }
        Ok((!out.is_empty()).then_some(Value::Object(out)))
    }

    /// Weaves two lists: what both have comes in the order of the applied list, what only the live
    /// list has stays before the element it stood before.
    fn merge_lists(&self, node: &Node, live: &[Value], applied: &[Value]) -> Result<Option<Value>, String> {
        let keys =
            |list: &[Value]| list.iter().map(|item| self.path_element(node, item)).collect::<Result<Vec<_>, _>>();
        let (left, right) = (keys(live)?, keys(applied)?);
        let mut in_live: HashMap<&str, Option<&Value>> = HashMap::new();
        for (key, item) in left.iter().zip(live) {
            // Duplicates of old objects give way to what is applied.
            in_live.entry(key).and_modify(|old| *old = None).or_insert(Some(item));
        }
        let in_applied: HashMap<&str, &Value> = right.iter().map(String::as_str).zip(applied).collect();
        let mut shared = right.iter().map(String::as_str).filter(|k| in_live.contains_key(k)).peekable();
        let (element, mut out, mut done) = (self.element(node), Vec::new(), HashSet::new());
        let (mut l, mut r) = (0, 0);
        while l < left.len() || r < right.len() {
            if let (Some(lk), Some(rk)) = (left.get(l), right.get(r)) {
                if lk == rk {
                    let old = in_live.get(lk.as_str()).copied().flatten();
                    out.extend(self.merge_at(&element, old, Some(&applied[r]))?);
                    done.insert(rk.as_str());
                    (l, r) = (l + 1, r + 1);
                    shared.next();
                    continue;
                }
                if in_applied.contains_key(lk.as_str()) && shared.peek().is_some_and(|next| next != lk) {
                    l += 1;
                    continue;
                }
            }
            if let Some(lk) = left.get(l) {
                if !in_applied.contains_key(lk.as_str()) {
                    out.extend(self.merge_at(&element, Some(&live[l]), None)?);
                    l += 1;
                    continue;
                }
                if done.contains(lk.as_str()) {
                    l += 1;
                }
            }
            if let Some(rk) = right.get(r) {
                let old = in_live.get(rk.as_str()).copied().flatten();
                out.extend(self.merge_at(&element, old, Some(&applied[r]))?);
                done.insert(rk.as_str());
                r += 1;
                if shared.peek() == Some(&rk.as_str()) {
                    shared.next();
                }
            }
        }
        Ok((!out.is_empty()).then_some(Value::Array(out)))
    }
}
