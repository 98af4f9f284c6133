//! Strategic merge patch: maps merge by field, lists as the facts of their field say.
//!
//! Directives: `$patch: replace|delete`, `$retainKeys`, `$setElementOrder/list`,
//! `$deleteFromPrimitiveList/list`.

mod go_print;
mod lists;

use crate::{Error, Facts, FieldFact, Shape};
pub(crate) use go_print::go_print;
use serde_json::{Map, Value};
use std::collections::HashSet;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

/// Merges a strategic patch into an object of the schema.
pub fn strategic_merge(original: &Value, patch: &Value, schema: &str, facts: &dyn Facts) -> Result<Value, Error> {
    // Go reads null as a map of nothing.
    if patch.is_null() {
        return Ok(original.clone());
    }
    let Value::Object(patch) = patch else {
        return Err(Error::BadRequest(format!("error decoding patch: {}", strategic_kind(patch))));
    };
    let original = original.as_object().cloned().unwrap_or_default();
    Merge { facts }.map(original, patch.clone(), schema).map(Value::Object)
}

/// What Go says of a patch that is no map.
pub fn strategic_kind(patch: &Value) -> String {
    let found = crate::json::go_kind(patch);
    format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")
}

struct Merge<'a> {
    facts: &'a dyn Facts,
}

impl Merge<'_> {
    /// Merges two maps; `schema` is empty inside maps with free keys.
    fn map(&self, mut original: Object, mut patch: Object, schema: &str) -> Result<Object, Error> {
        if let Some(directive) = patch.get(PATCH) {
            return match directive.as_str() {
                Some("replace") => {
                    patch.remove(PATCH);
                    Ok(patch)
                }
                Some("delete") => Ok(Object::new()),
                _ => Err(bad_patch_type(directive, &patch)),
            };
        }
        retain_keys(&mut original, &mut patch)?;
        self.set_element_orders(&mut original, &mut patch, schema)?;
        for (key, value) in patch {
            match key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
                Some(list) => self.delete_from(&mut original, list, value)?,
                None => self.field(&mut original, key, value, schema)?,
            }
        }
        Ok(original)
    }

    fn field(&self, original: &mut Object, key: String, patch: Value, schema: &str) -> Result<(), Error> {
        let merged = match (original.remove(&key), patch) {
            (_, Value::Null) => None,
            (Some(Value::Object(old)), Value::Object(patch)) => {
                let fact = self.fact(schema, &key)?;
                let merged = if fact.patch_replace { patch } else { self.map(old, patch, &fact.schema)? };
                Some(Value::Object(merged))
            }
            (Some(Value::Array(old)), Value::Array(patch)) => {
                let fact = self.fact(schema, &key)?;
                Some(Value::Array(self.list(old, patch, &fact)?))
            }
            (_, patch) => without_directives(without_nulls(patch)),
        };
        if let Some(value) = merged {
            original.insert(key, value);
        }
        Ok(())
    }

    /// Facts of a field; what has no schema (values of free maps) merges by its own form.
    fn fact(&self, schema: &str, key: &str) -> Result<FieldFact, Error> {
        if schema.is_empty() {
            return Ok(FieldFact { shape: Shape::Untyped, ..FieldFact::default() });
        }
        let name = || schema.rsplit('.').next().unwrap_or(schema);
        self.facts.field(schema, key).ok_or_else(|| {
            Error::Internal(format!("unable to find api field in struct {} for the json field {key:?}", name()))
        })
    }

    fn delete_from(&self, original: &mut Object, list: &str, values: Value) -> Result<(), Error> {
        let Some(old) = original.get_mut(list) else { return Ok(()) };
        match (old, values) {
            (Value::Array(old), Value::Array(values)) => {
                let values: HashSet<String> = values.iter().map(Value::to_string).collect();
                old.retain(|value| !values.contains(&value.to_string()));
            }
            (Value::Array(_), Value::Null) => drop(original.remove(list)),
            _ => {}
        }
        Ok(())
    }
}

/// Drops keys of the original that `$retainKeys` does not name.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), Error> {
    const BAD: &str = "invalid patch format of retainKeys";
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let keys = keys.as_array().ok_or_else(|| Error::BadRequest(BAD.into()))?;
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let named = |key: &str| keys.contains(key);
    let is_directive = |key: &str| key.starts_with(DELETE_FROM_PRIMITIVE_LIST) || key.starts_with(SET_ELEMENT_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !is_directive(key) && !named(key)) {
        return Err(Error::BadRequest(BAD.into()));
    }
    original.retain(|key, _| named(key));
    Ok(())
}

fn bad_patch_type(directive: &Value, patch: &Object) -> Error {
    // Go is told to print a string, and says what it was given.
    let shown = match directive {
        Value::String(text) => text.clone(),
        Value::Null => "%!s(<nil>)".into(),
        Value::Bool(flag) => format!("%!s(bool={flag})"),
        Value::Number(number) if number.is_f64() => format!("%!s(float64={number})"),
        Value::Number(number) => format!("%!s(int64={number})"),
        other => go_print(other),
    };
    Error::Internal(format!("unknown patch type: {shown} in map: {}", go_print(&patch.clone().into())))
}

/// Drops nulls of maps, at every depth.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// Drops every map that carries a `$patch` directive.
fn without_directives(value: Value) -> Option<Value> {
    Some(match value {
        Value::Object(map) if map.contains_key(PATCH) => return None,
        Value::Object(map) => map.into_iter().filter_map(|(k, v)| without_directives(v).map(|v| (k, v))).collect(),
        Value::Array(items) => items.into_iter().filter_map(without_directives).collect(),
        other => other,
    })
}

#[cfg(test)]
pub(crate) mod tests;
