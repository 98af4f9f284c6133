//! Whether an applied object fits its schema, in the words of structured-merge-diff.

use super::{Node, Typed, entries};
use crate::set::printed;
use crate::{ListType, Scalar, Shape};
use serde_json::Value;
use std::collections::HashSet;

/// As many errors as are told of one object.
const MAX_ERRORS: usize = 1000;

struct Errors {
    texts: Vec<String>,
    /// Whether duplicates are none.
    duplicates: bool,
}

impl Typed<'_> {
    /// Checks types, declared fields and the keys of associative lists.
    pub(crate) fn validate(&self, value: &Value) -> Result<(), String> {
        self.validated(value, false)
    }

    /// As [`Typed::validate`], but sets and associative lists may have duplicates: those of stored objects can.
    pub(crate) fn validate_stored(&self, value: &Value) -> Result<(), String> {
        self.validated(value, true)
    }

    fn validated(&self, value: &Value, duplicates: bool) -> Result<(), String> {
        let mut errors = Errors { texts: Vec::new(), duplicates };
        self.validate_at(&self.root(), value, "", &mut errors);
        match errors.texts.as_slice() {
            [] => Ok(()),
            [one] => Err(one.clone()),
            many => Err(format!("errors:\n  {}", many.join("\n  "))),
        }
    }

    fn validate_at(&self, node: &Node, value: &Value, path: &str, errors: &mut Errors) {
        if errors.texts.len() >= MAX_ERRORS {
            return;
        }
        let mut fail = |text: String| errors.texts.push(if path.is_empty() { text } else { format!("{path}: {text}") });
        match (node.fact.shape, value) {
            (_, Value::Null) => {}
            (Shape::Scalar | Shape::Untyped, value) => {
                if let Some(text) = node.scalar.and_then(|scalar| mismatch(scalar, value)) {
                    fail(text);
                }
            }
            (Shape::List, Value::Array(items)) => self.validate_list(node, items, path, errors),
            (Shape::List, other) => fail(format!("expected list, got &{{{}}}", crate::strategic::go_print(other))),
            (Shape::Struct | Shape::Map, Value::Object(_)) => self.validate_map(node, value, path, errors),
            (_, other) => fail(format!("expected map, got &{{{}}}", crate::strategic::go_print(other))),
        }
    }

    fn validate_list(&self, node: &Node, items: &[Value], path: &str, errors: &mut Errors) {
        let (element, mut seen) = (self.element(node), HashSet::new());
        for (i, item) in items.iter().enumerate() {
            let key = match node.fact.list_type {
                ListType::Atomic => Ok(format!("i:{i}")),
                _ => self.path_element(node, item),
            };
            let key = match key {
                Ok(key) => printed(&key),
                Err(text) => return errors.texts.push(format!("{path}: element {i}: {text}")),
            };
            if !seen.insert(key.clone()) && !errors.duplicates && errors.texts.len() < MAX_ERRORS {
                errors.texts.push(format!("{path}: duplicate entries for key {key}"));
            }
            self.validate_at(&element, item, &format!("{path}{key}"), errors);
        }
    }

    fn validate_map(&self, node: &Node, value: &Value, path: &str, errors: &mut Errors) {
        let fields = self.below(node);
        for (key, item) in entries(Some(value)) {
            let (child, declared) = fields.field(key);
            let below = format!("{path}.{key}");
            if !declared && node.fact.shape == Shape::Struct {
                return errors.texts.push(format!("{below}: field not declared in schema"));
            }
            self.validate_at(&child, item, &below, errors);
        }
    }
}

fn mismatch(scalar: Scalar, value: &Value) -> Option<String> {
    match (scalar, value) {
        (Scalar::String, Value::String(_))
        | (Scalar::Boolean, Value::Bool(_))
        | (Scalar::Numeric, Value::Number(_)) => None,
        (Scalar::Any, Value::Object(_) | Value::Array(_)) => {
            Some(format!("expected any scalar, got &{{{}}}", crate::strategic::go_print(value)))
        }
        (Scalar::Any, _) => None,
        (Scalar::Numeric, other) => Some(format!("expected numeric (int or float), got {}", go_type(other))),
        (Scalar::String, other) => {
            Some(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(other)))
        }
        (Scalar::Boolean, other) => Some(format!("expected boolean, got &{{{}}}", crate::strategic::go_print(other))),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Object(_) => "map[string]interface {}",
        Value::Array(_) => "[]interface {}",
        _ => "<nil>",
    }
}

/// A value as Go's `%#v` prints it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries: Vec<String> = map.iter().map(|(k, v)| format!("{k:?}:{}", go_syntax(v))).collect();
            format!("map[string]interface {{}}{{{}}}", entries.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Null => "interface {}(nil)".into(),
        other => other.to_string(),
    }
}
