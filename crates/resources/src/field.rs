//! Reading fields of JSON objects, naming their paths, collecting their errors.

use crate::names;
use api::{Cause, CauseType};
use serde_json::{Map, Value};
use std::fmt;

/// Shorthand reads; a field that is absent, null or of another type reads as empty.
pub trait Fields {
    /// A field; `Null` when absent.
    fn at(&self, field: &str) -> &Value;
    /// A string field, or empty.
    fn text(&self, field: &str) -> &str {
        self.at(field).as_str().unwrap_or("")
    }
    /// An integer field.
    fn int(&self, field: &str) -> Option<i64> {
        self.at(field).as_i64()
    }
    /// A boolean field, or false.
    fn flag(&self, field: &str) -> bool {
        self.at(field).as_bool().unwrap_or(false)
    }
    /// A list field, or empty.
    fn list(&self, field: &str) -> &[Value] {
        self.at(field).as_array().map_or(&[], Vec::as_slice)
    }
    /// A map field's entries in order, none when absent.
    fn entries(&self, field: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.at(field).as_object().into_iter().flatten()
    }
    /// Whether a field is present and not null.
    fn has(&self, field: &str) -> bool {
        !self.at(field).is_null()
    }
    /// A list of strings.
    fn texts(&self, field: &str) -> Vec<&str> {
        self.list(field).iter().filter_map(Value::as_str).collect()
    }
}

impl Fields for Value {
    fn at(&self, field: &str) -> &Value {
        self.get(field).unwrap_or(&Value::Null)
    }
}

/// Sets a field where it is absent or null. An empty string is a value: where Go could not tell it from an absent
/// one, decoding has left it out.
pub fn set_default(obj: &mut Value, field: &str, value: impl Into<Value>) {
    if let Value::Object(map) = obj {
        if map.get(field).is_none_or(Value::is_null) {
            map.insert(field.to_owned(), value.into());
        }
    }
}

/// Removes a field when it holds nothing: null, an empty string, list or map, zero or false. Go leaves such
/// fields out when they are marked `omitempty` and no pointers.
pub fn drop_empty(obj: &mut Value, field: &str) {
    let empty = match obj.get(field) {
        None => return,
        Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Bool(flag)) => !flag,
        Some(Value::Number(number)) => number.as_i64() == Some(0),
    };
    if let (true, Value::Object(map)) = (empty, obj) {
        map.remove(field);
    }
}

/// A map field, made when absent; `None` when the object or the field is of another type.
pub fn map_mut<'a>(obj: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    let map = obj.as_object_mut()?;
    let entry = map.entry(field).or_insert_with(|| Value::Object(Map::new()));
    if entry.is_null() {
        *entry = Value::Object(Map::new());
    }
    entry.is_object().then_some(entry)
}

/// The items of a list field.
pub fn items_mut<'a>(obj: &'a mut Value, field: &str) -> std::slice::IterMut<'a, Value> {
    match obj.get_mut(field).and_then(Value::as_array_mut) {
        Some(list) => list.iter_mut(),
        None => [].iter_mut(),
    }
}

/// A present, non-null field.
pub fn field_mut<'a>(obj: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    obj.get_mut(field).filter(|v| !v.is_null())
}

/// Whether an item with the same key stood before it, for each item.
pub fn repeated<K: std::hash::Hash + Eq>(keys: impl Iterator<Item = K>) -> Vec<bool> {
    let mut seen = std::collections::HashSet::new();
    keys.map(|key| !seen.insert(key)).collect()
}

/// A path, linked to its parent so that naming a field costs nothing until an error prints it.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Segment<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// A top-level field; dots may join several.
    pub const fn root(name: &'a str) -> Self {
        Self { parent: None, segment: Segment::Field(name) }
    }
    /// The object itself: what is below prints without a dot.
    pub const TOP: Path<'static> = Path::root("");
    fn is_top(&self) -> bool {
        self.parent.is_none() && matches!(self.segment, Segment::Field(""))
    }
    /// A field below; dots may join several.
    pub const fn field(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Field(name) }
    }
    /// An item of a list.
    pub const fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Index(index) }
    }
    /// A value of a map.
    pub const fn key(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.segment {
            Segment::Field(name) if !name.is_empty() && self.parent.is_some_and(|p| !p.is_top()) => {
                write!(f, ".{name}")
            }
            Segment::Field(name) => f.write_str(name),
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// As many errors as one answer carries: a body of 3 MB can hold more mistakes than anyone reads.
const MAX_ERRORS: usize = 1000;
/// The length of their text, after which no more are added.
const MAX_TEXT: usize = 512 << 10;

/// The errors found so far, in upstream's order.
#[derive(Debug, Default)]
pub struct Errors(pub Vec<Cause>);

impl Errors {
    /// Keeps an error, unless there are too many already.
    pub(crate) fn add(&mut self, cause: impl FnOnce() -> Cause) {
        if !self.is_full() {
            self.0.push(cause());
        }
    }
    /// Whether no more errors are kept.
    pub(crate) fn is_full(&self) -> bool {
        let text = || self.0.iter().map(|cause| cause.field.len() + cause.message.len()).sum::<usize>();
        self.0.len() >= MAX_ERRORS || text() >= MAX_TEXT
    }
    /// `Required value: detail`; an empty detail is left out.
    pub fn required(&mut self, path: &Path<'_>, detail: &str) {
        self.add(|| Cause::required(path.to_string(), detail));
    }
    /// `Invalid value: <value>: detail`.
    pub fn invalid(&mut self, path: &Path<'_>, value: impl Into<Value>, detail: &str) {
        self.add(|| Cause::invalid(path.to_string(), &value.into(), detail));
    }
    /// `Invalid value` with a value printed in another order or shape than its JSON.
    pub fn invalid_printed(&mut self, path: &Path<'_>, printed: impl FnOnce() -> String, detail: &str) {
        let colon = if detail.is_empty() { "" } else { ": " };
        let message = || format!("Invalid value: {}{colon}{detail}", printed());
        self.add(|| Cause { kind: CauseType::FieldValueInvalid, field: path.to_string(), message: message() });
    }
    /// `Invalid value` with a struct printed as Go prints its internal type.
    pub fn invalid_struct(&mut self, path: &Path<'_>, schema: &str, value: &Value, detail: &str) {
        self.invalid_printed(path, || schema::internal_json(schema, value, schema::Layout::Compact), detail);
    }
    /// One `Invalid value` per detail.
    pub fn invalid_each(&mut self, path: &Path<'_>, value: &str, details: Vec<String>) {
        details.iter().for_each(|detail| self.invalid(path, value, detail));
    }
    /// `Unsupported value` unless the value is supported.
    pub fn supported(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) -> bool {
        let ok = supported.contains(&value);
        if !ok {
            self.add(|| Cause::not_supported(path.to_string(), &value.into(), supported));
        }
        ok
    }
    /// As [`Errors::supported`], where the answer does not matter.
    pub fn one_of(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        self.supported(path, value, supported);
    }
    /// `Unsupported value: <value>` with the supported ones.
    pub fn not_supported(&mut self, path: &Path<'_>, value: impl Into<Value>, supported: &[&str]) {
        self.add(|| Cause::not_supported(path.to_string(), &value.into(), supported));
    }
    /// As [`Errors::not_supported`] with a value printed in another shape than its JSON.
    pub fn not_supported_printed(&mut self, path: &Path<'_>, printed: impl FnOnce() -> String, supported: &[&str]) {
        let list = || supported.iter().map(|name| api::quoted(name).to_string()).collect::<Vec<_>>().join(", ");
        let message = || format!("Unsupported value: {}: supported values: {}", printed(), list());
        self.add(|| Cause { kind: CauseType::FieldValueNotSupported, field: path.to_string(), message: message() });
    }
    /// `Forbidden: detail`.
    pub fn forbidden(&mut self, path: &Path<'_>, detail: &str) {
        self.add(|| Cause::forbidden(path.to_string(), detail));
    }
    /// `Duplicate value: <value>`.
    pub fn duplicate(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.add(|| Cause::duplicate(path.to_string(), &value.into()));
    }
    /// `Duplicate value` with a value printed in another shape than its JSON.
    pub fn duplicate_printed(&mut self, path: &Path<'_>, printed: impl FnOnce() -> String) {
        let message = || format!("Duplicate value: {}", printed());
        self.add(|| Cause { kind: CauseType::FieldValueDuplicate, field: path.to_string(), message: message() });
    }
    /// `Not found: <value>`.
    pub fn not_found(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.add(|| Cause::not_found(path.to_string(), &value.into()));
    }
    /// `Internal error: detail`.
    pub fn internal(&mut self, path: &Path<'_>, detail: &str) {
        let message = format!("Internal error: {detail}");
        self.add(|| Cause { kind: CauseType::InternalError, field: path.to_string(), message });
    }
    /// `Too long: may not be more than N bytes`.
    pub fn too_long(&mut self, path: &Path<'_>, max: usize) {
        self.add(|| Cause::too_long(path.to_string(), max));
    }
    /// `Too many: N: must have at most M items`.
    pub fn too_many(&mut self, path: &Path<'_>, actual: usize, max: usize) {
        self.add(|| Cause::too_many(path.to_string(), actual, max));
    }
    /// Whether a list has no more items than it may have; one that has is not looked into.
    pub fn at_most(&mut self, path: &Path<'_>, list: &[Value], max: usize) -> bool {
        let fits = list.len() <= max;
        if !fits {
            self.too_many(path, list.len(), max);
        }
        fits
    }
    /// As [`Errors::ip`], but what was there before (`known`) may stay.
    pub fn new_ip(&mut self, path: &Path<'_>, text: &str, known: &[&str]) {
        if let Some(detail) = names::ip(text).filter(|_| !known.contains(&text)) {
            self.invalid(path, text, detail);
        }
    }
    /// As [`Errors::cidr`], but what was there before (`known`) may stay.
    pub fn new_cidr(&mut self, path: &Path<'_>, text: &str, known: &[&str]) {
        if let Some(detail) = names::cidr(text).filter(|_| !known.contains(&text)) {
            self.invalid(path, text, detail);
        }
    }
    /// An error when a text is no IP address.
    pub fn ip(&mut self, path: &Path<'_>, text: &str) {
        names::ip(text).into_iter().for_each(|detail| self.invalid(path, text, detail));
    }
    /// An error when a text is no CIDR.
    pub fn cidr(&mut self, path: &Path<'_>, text: &str) {
        names::cidr(text).into_iter().for_each(|detail| self.invalid(path, text, detail));
    }
    /// An error when the integer is no port.
    pub fn port_number(&mut self, path: &Path<'_>, port: i64) {
        names::port_number(port).into_iter().for_each(|detail| self.invalid(path, port, detail));
    }
    /// An error when the integer is below zero.
    pub fn non_negative(&mut self, path: &Path<'_>, value: i64) {
        if value < 0 {
            self.invalid(path, value, NOT_NEGATIVE);
        }
    }
    /// An error when the values differ.
    pub fn immutable(&mut self, path: &Path<'_>, new: &Value, old: &Value) -> bool {
        let same = same(new, old);
        if !same {
            self.invalid(path, new.clone(), IMMUTABLE);
        }
        same
    }
    /// As [`Errors::immutable`] for a text that Go holds without a pointer: absent is empty.
    pub fn immutable_text(&mut self, path: &Path<'_>, new: &Value, old: &Value) {
        if new.as_str().unwrap_or("") != old.as_str().unwrap_or("") {
            self.invalid(path, new.as_str().unwrap_or(""), IMMUTABLE);
        }
    }
    /// The errors when there are none yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The detail of a negative number.
pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
/// The detail of a changed field that may not change.
pub const IMMUTABLE: &str = "field is immutable";

/// Semantic equality: absent, null and empty lists or maps are the same.
pub fn same(a: &Value, b: &Value) -> bool {
    same_but(&[], a, b)
}

/// As [`same`], but members of these names are compared as they are: what is in them is not ours to read.
pub fn same_but(opaque: &[&str], a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let member = |k: &String, v: &Value| match opaque.contains(&k.as_str()) {
                true => y.get(k) == Some(v),
                false => same_but(opaque, v, y.get(k).unwrap_or(&Value::Null)),
            };
            let absent = |k: &String, v| !opaque.contains(&k.as_str()) && same_but(opaque, &Value::Null, v);
            x.iter().all(|(k, v)| member(k, v)) && y.iter().all(|(k, v)| x.contains_key(k) || absent(k, v))
        }
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same_but(opaque, a, b))
        }
        (Value::Null, other) | (other, Value::Null) => match other {
            Value::Null => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        },
        _ => a == b,
    }
}

/// Prints a struct as Go's JSON of a type without tags does: the fields in the order given.
pub fn go_struct(fields: &[(&str, Value)]) -> String {
    let body: Vec<String> = fields.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
    format!("{{{}}}", body.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_print() {
        let spec = Path::root("spec");
        let list = spec.field("containers");
        assert_eq!(list.index(2).field("ports.x").to_string(), "spec.containers[2].ports.x");
        assert_eq!(spec.key("a.b/c").to_string(), "spec[a.b/c]");
        assert_eq!(Path::TOP.field("spec").field("").field("x").to_string(), "spec.x");
    }

    #[test]
    fn errors_are_bounded() {
        let check = |name: &str, want: usize| {
            let (mut errors, path) = (Errors::default(), Path::root(name));
            (0..100_000).for_each(|i| errors.required(&path.index(i), ""));
            assert_eq!(errors.0.len(), want);
        };
        check("list", MAX_ERRORS);
        check(&"x".repeat(MAX_TEXT / 4), 4);
    }

    #[test]
    fn addresses_of_before_may_stay() {
        let check = |text: &str, known: &[&str], want: usize| {
            let (mut errors, path) = (Errors::default(), Path::root("ip"));
            errors.new_ip(&path, text, known);
            errors.new_cidr(&path, text, known);
            assert_eq!(errors.0.len(), want, "{text}");
        };
        check("x", &[], 2);
        check("x", &["y", "x"], 0);
        check("10.0.0.1", &[], 1);
    }

    #[test]
    fn sameness_ignores_emptiness() {
        for (a, b, want) in [
            (json!({"a": []}), json!({}), true),
            (json!({"a": {"b": null}}), json!({"a": {}}), true),
            (json!({"a": 0}), json!({}), false),
            (json!([1]), json!([2]), false),
            (Value::Null, json!({}), true),
        ] {
            assert_eq!(same(&a, &b), want, "{a} {b}");
        }
    }
}
