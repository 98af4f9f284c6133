//! Lists: merging by key or as sets, and the order of what comes out.

use super::{Merge, Object, PATCH, SET_ELEMENT_ORDER, bad_patch_type, go_print, without_directives};
use crate::{Error, FieldFact};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

impl Merge<'_> {
    pub(super) fn list(&self, original: Vec<Value>, patch: Vec<Value>, fact: &FieldFact) -> Result<Vec<Value>, Error> {
        if !fact.patch_merge {
            return Ok(patch);
        }
        if original.is_empty() && patch.is_empty() {
            return Ok(original);
        }
        if !has_maps(&[&original, &patch])? {
            let merged = deduplicated(original.iter().chain(&patch).cloned());
            return order(merged, &patch, &original, "");
        }
        if fact.patch_merge_key.is_empty() {
            let name = fact.schema.rsplit('.').next().unwrap_or_default();
            return Err(Error::Internal(format!("cannot merge lists without merge key for {name}")));
        }
        let key = &*fact.patch_merge_key;
        let (original, patch) = special_elements(original, patch, key)?;
        let merged = self.by_key(original.clone(), patch.clone(), key, &fact.schema)?;
        order(merged, &patch, &original, key)
    }

    fn by_key(&self, original: Vec<Value>, patch: Vec<Value>, key: &str, schema: &str) -> Result<Vec<Value>, Error> {
        let mut at: HashMap<String, usize> = HashMap::new();
        for (i, item) in original.iter().enumerate() {
            at.entry(identity(item, key).unwrap_or_default()).or_insert(i);
        }
        let mut merged = original;
        for item in patch {
            let id = identity(&item, key).ok_or_else(|| no_merge_key(&item, key))?;
            match (at.get(&id), item) {
                (Some(i), Value::Object(item)) => {
                    let old = merged[*i].as_object_mut().map(std::mem::take).unwrap_or_default();
                    merged[*i] = Value::Object(self.map(old, item, schema)?);
                }
                (_, item) => {
                    at.insert(id, merged.len());
                    merged.push(item);
                }
            }
        }
        Ok(merged)
    }

    /// Merges the lists whose order the patch gives and takes them out of the patch.
    pub(super) fn set_element_orders(
        &self,
        original: &mut Object,
        patch: &mut Object,
        schema: &str,
    ) -> Result<(), Error> {
        let lists: Vec<String> =
            patch.keys().filter_map(|k| k.strip_prefix(SET_ELEMENT_ORDER)).map(str::to_owned).collect();
        for list in lists {
            let wanted = array(patch.remove(&format!("{SET_ELEMENT_ORDER}{list}")))?.unwrap_or_default();
            let new = array(patch.get(&list).cloned())?;
            let old = array(original.get(&list).cloned())?;
            let fact = self.fact(schema, &list)?;
            let key = &*fact.patch_merge_key;
            check_order(new.as_deref().unwrap_or_default(), &wanted, key)?;
            let merged = match (old.clone(), new.clone()) {
                (None, None) => continue,
                (Some(old), None) => old,
                (None, Some(new)) => match without_directives(Value::Array(new)) {
                    Some(Value::Array(new)) => new,
                    _ => continue,
                },
                (Some(old), Some(new)) => self.list(old, new, &fact)?,
            };
            let ordered = order(merged, &wanted, &old.unwrap_or_default(), key)?;
            original.insert(list.clone(), Value::Array(ordered));
            patch.remove(&list);
        }
        Ok(())
    }
}

fn array(value: Option<Value>) -> Result<Option<Vec<Value>>, Error> {
    match value {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(other) => {
            let found = match other {
                Value::Object(_) => "map[string]interface {}",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                Value::Number(_) => "int64",
                _ => "%!s(<nil>)",
            };
            Err(Error::Internal(format!("expected a []interface {{}}, but received a {found}")))
        }
    }
}

/// Whether the elements are maps; they must be alike.
fn has_maps(lists: &[&[Value]]) -> Result<bool, Error> {
    let mut elements = lists.iter().flat_map(|l| l.iter());
    let first = elements.next().is_some_and(Value::is_object);
    if elements.any(|e| e.is_object() != first) {
        let printed: Vec<String> = lists.iter().map(|l| go_print(&Value::Array(l.to_vec()))).collect();
        return Err(Error::Internal(format!("list element types are not identical: [{}]", printed.join(" "))));
    }
    Ok(first)
}

fn deduplicated(values: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut seen = std::collections::HashSet::new();
    values.filter(|v| seen.insert(v.to_string())).collect()
}

/// What makes an element the same element: its key's value, or itself.
fn identity(item: &Value, key: &str) -> Option<String> {
    if key.is_empty() {
        return Some(item.to_string());
    }
    item.as_object()?.get(key).map(|v| match v {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    })
}

fn no_merge_key(item: &Value, key: &str) -> Error {
    Error::Internal(format!("map: {} does not contain declared merge key: {key}", go_print(item)))
}

/// Carries `$patch: delete` and `$patch: replace` elements out.
fn special_elements(mut original: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), Error> {
    let (mut rest, mut replace, mut deleted) = (Vec::new(), false, HashSet::new());
    for item in patch {
        let Some((directive, map)) = item.as_object().and_then(|m| m.get(PATCH).map(|d| (d, m))) else {
            rest.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                deleted.insert(identity(&item, key).ok_or_else(|| no_merge_key(&item, key))?);
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(Error::Internal("merging lists cannot yet be specified in the patch".into())),
            _ => return Err(bad_patch_type(directive, map)),
        }
    }
    if !deleted.is_empty() {
        original.retain(|old| identity(old, key).is_none_or(|id| !deleted.contains(&id)));
    }
    Ok(if replace { (rest, Vec::new()) } else { (original, rest) })
}

/// Orders a merged list: what the patch names by the patch's order, what only the server has by
/// the server's, the two woven together by the server's order where both are in it.
fn order(merged: Vec<Value>, patch: &[Value], server: &[Value], key: &str) -> Result<Vec<Value>, Error> {
    let index = |list: &[Value]| {
        let mut at = HashMap::new();
        for (i, item) in list.iter().enumerate() {
            at.entry(identity(item, key).unwrap_or_default()).or_insert(i);
        }
        at
    };
    let (in_patch, in_server) = (index(patch), index(server));
    let (mut named, mut server_only) = (Vec::new(), Vec::new());
    for item in merged {
        let id = identity(&item, key).ok_or_else(|| no_merge_key(&item, key))?;
        if in_patch.contains_key(&id) { named.push((id, item)) } else { server_only.push((id, item)) }
    }
    named.sort_by_key(|(id, _)| in_patch.get(id).copied());
    server_only.sort_by_key(|(id, _)| in_server.get(id).copied());
    let mut out = Vec::with_capacity(named.len() + server_only.len());
    let (mut left, mut right) = (server_only.into_iter().peekable(), named.into_iter().peekable());
    while let (Some((l, _)), Some((r, _))) = (left.peek(), right.peek()) {
        let left_first = matches!((in_server.get(l), in_server.get(r)), (Some(l), Some(r)) if l < r);
        out.extend(if left_first { left.next() } else { right.next() }.map(|(_, item)| item));
    }
    out.extend(left.chain(right).map(|(_, item)| item));
    Ok(out)
}

/// The patch's elements must come in the order the patch itself asks for.
fn check_order(patch: &[Value], wanted: &[Value], key: &str) -> Result<(), Error> {
    if patch.is_empty() || wanted.is_empty() {
        return Ok(());
    }
    let mut wanted_ids = wanted.iter().map(|w| identity(w, key));
    let elements = patch.iter().filter(|p| p.get(PATCH).is_none());
    for element in elements {
        let id = identity(element, key);
        if !wanted_ids.any(|w| w == id) {
            let print = |list: &[Value]| go_print(&Value::Array(list.to_vec()));
            return Err(Error::Internal(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                print(patch),
                print(wanted)
            )));
        }
    }
    Ok(())
}
