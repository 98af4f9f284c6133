//! Decoding a JSON body the way Go decodes it into a typed struct (`sigs.k8s.io/json`).
//!
//! One pass over bytes or over a value: types are checked, unknown and duplicate fields are
//! dropped and named, nulls and empty `omitempty` fields vanish, quantities, times and base64
//! take their canonical form. As in Go the first error wins and the walk goes on.

mod convert;
mod scalar;
mod shape;
mod syntax;

use crate::types::{Field, Kind, Schema, Type};
pub use convert::convert;
use serde::de::DeserializeSeed;
use serde_json::{Map, Value};

/// Gives a quantity's canonical form, `None` when it is none.
pub type Canonical = fn(&str) -> Option<String>;

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object without unknown fields.
    pub object: Value,
    /// Strict errors in document order: `unknown field "spec.foo"`, `duplicate field "metadata.name"`.
    pub strict: Vec<String>,
}

/// As many strict errors as Go reports.
const MAX_STRICT: usize = 100;

/// Decodes a JSON body; the error has Go's text (syntax errors included).
pub fn decode_slice(schema: &str, json: &[u8], quantity: Canonical) -> Result<Decoded, String> {
    let mut de = serde_json::Deserializer::from_slice(json);
    let mut state = State::new(quantity);
    let decoded = Seed { ty: Slot::Schema(find(schema)?), state: &mut state }.deserialize(&mut de);
    match decoded.and_then(|value| de.end().map(|()| value)) {
        Err(e) => Err(syntax::go_text(json, &e)),
        Ok(value) => state.finish(value),
    }
}

/// Decodes a value in place, for what a patch or YAML has made; keys are visited in sorted order.
/// Returns the strict errors; on an error the value is left empty.
pub fn decode(schema: &str, obj: &mut Value, quantity: Canonical) -> Result<Vec<String>, String> {
    let schema = find(schema)?;
    let mut state = State::new(quantity);
    let value =
        Seed { ty: Slot::Schema(schema), state: &mut state }.deserialize(obj.take()).map_err(|e| e.to_string())?;
    let decoded = state.finish(value)?;
    *obj = decoded.object;
    Ok(decoded.strict)
}

/// Gives an object the form it has when Go has written and read it: empty structs and the zero
/// values of fields without `omitempty` are there, and empty lists and maps are null (the store
/// keeps protobuf, which has no empty ones).
pub fn complete(schema: &str, obj: &mut Value) {
    complete_with(schema, obj, Empty::Null);
}

/// As [`complete`] before the object was stored: empty lists and maps stay what they are.
pub fn complete_unstored(schema: &str, obj: &mut Value) {
    complete_with(schema, obj, Empty::Kept);
}

/// Drops the empty lists and maps that decoding has kept because they are told from absent ones: what Go writes.
pub fn drop_empty(schema: &str, obj: &mut Value) {
    complete_with(schema, obj, Empty::Omitted);
}

/// What becomes of empty lists and maps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empty {
    /// Gone where Go omits them, else null.
    Null,
    /// Gone where Go omits them.
    Omitted,
    Kept,
}

fn complete_with(schema: &str, obj: &mut Value, empty: Empty) {
    if let (Some(schema), Value::Object(map)) = (Schema::find(schema), obj) {
        complete_struct(schema, map, empty);
    }
}

fn complete_struct(schema: Schema, map: &mut Map<String, Value>, empty: Empty) {
    for field in schema.flat_fields() {
        if empty != Empty::Kept && field.tells_empty() && map.get(field.name()).is_some_and(holds_nothing) {
            map.remove(field.name());
        }
        match map.get_mut(field.name()) {
            Some(value) if empty == Empty::Null && is_empty_collection(schema, field, value) => *value = Value::Null,
            Some(value) => complete_value(field.ty(), value, empty),
            None if is_always_written(field) => {
                let mut zero = zero(field.ty());
                complete_value(field.ty(), &mut zero, empty);
                map.insert(field.name().to_owned(), zero);
            }
            None => {}
        }
    }
}

/// Lists of objects are never stored: their items stay.
fn is_empty_collection(schema: Schema, field: Field, value: &Value) -> bool {
    holds_nothing(value)
        && matches!(field.ty().kind(), Kind::List | Kind::Map)
        && !field.is_omitempty()
        && !(field.name() == "items" && schema.name().ends_with("List"))
}

/// An empty list or map.
pub(crate) fn holds_nothing(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
}

/// `omitempty` never leaves out a struct that is not behind a pointer.
fn is_always_written(field: Field) -> bool {
    let ty = field.ty();
    let go_struct = !matches!(
        ty.kind(),
        Kind::String | Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Float64 | Kind::Bytes | Kind::List | Kind::Map
    );
    !field.is_omitzero() && (!field.is_omitempty() || (go_struct && !ty.is_pointer())) && ty.kind() != Kind::Json
}

fn complete_value(ty: Type, value: &mut Value, empty: Empty) {
    match (ty.kind(), value) {
        (Kind::Struct, Value::Object(map)) => {
            if let Some(schema) = ty.schema() {
                complete_struct(schema, map, empty);
            }
        }
        (Kind::List, Value::Array(items)) => {
            let Some(element) = ty.element() else { return };
            items.iter_mut().for_each(|item| complete_value(element, item, empty));
        }
        (Kind::Map, Value::Object(map)) => {
            let Some(element) = ty.element() else { return };
            map.values_mut().for_each(|item| complete_value(element, item, empty));
        }
        _ => {}
    }
}

/// Go's zero value as JSON.
fn zero(ty: Type) -> Value {
    if ty.is_pointer() {
        return Value::Null;
    }
    match ty.kind() {
        Kind::String => "".into(),
        Kind::Bool => false.into(),
        Kind::Int32 | Kind::Int64 | Kind::Float64 | Kind::IntOrString => 0.into(),
        Kind::Struct => Value::Object(Map::new()),
        Kind::Quantity => "0".into(),
        Kind::Duration => "0s".into(),
        Kind::FieldsV1 => Value::Object(Map::new()),
        _ => Value::Null,
    }
}

/// Whether Go leaves the value out under `omitempty`.
pub(crate) fn is_empty(field: Field, value: &Value) -> bool {
    if field.ty().is_pointer() || matches!(field.ty().kind(), Kind::Json | Kind::RawExtension) {
        return false;
    }
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0) && field.ty().kind() != Kind::IntOrString,
        Value::String(s) => s.is_empty() && matches!(field.ty().kind(), Kind::String | Kind::Bytes),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty() && (field.ty().kind() == Kind::Map || field.is_omitzero()),
    }
}

fn find(schema: &str) -> Result<Schema, String> {
    Schema::find(schema).ok_or_else(|| format!("no schema {schema}"))
}

/// What a place in the document holds.
#[derive(Clone, Copy)]
enum Slot {
    /// The whole document.
    Schema(Schema),
    /// A field, element or map value.
    Type(Type),
}

impl Slot {
    fn kind(self) -> Kind {
        match self {
            Self::Schema(_) => Kind::Struct,
            Self::Type(ty) => ty.kind(),
        }
    }

    fn go(self) -> String {
        match self {
            Self::Schema(schema) => schema.go_name().to_owned(),
            Self::Type(ty) => ty.go(),
        }
    }

    fn schema(self) -> Option<Schema> {
        match self {
            Self::Schema(schema) => Some(schema),
            Self::Type(ty) => ty.schema(),
        }
    }
}

/// What the walk has gathered and where it is.
struct State {
    quantity: Canonical,
    error: Option<String>,
    /// The error came from a type that decodes itself: Go stops there, whatever was found before.
    stopped: bool,
    strict: Vec<String>,
    /// Path of strict errors, with indices and map keys.
    path: String,
    /// The fields under way, each with the struct it was looked for in.
    fields: Vec<(Schema, Field)>,
    /// Struct of the field under way, empty at the top.
    within: &'static str,
    /// Inside a type that decodes itself Go reports no strict errors.
    lenient: bool,
}

impl State {
    fn new(quantity: Canonical) -> Self {
        let (path, fields) = (String::new(), Vec::new());
        Self { quantity, error: None, stopped: false, strict: Vec::new(), path, fields, within: "", lenient: false }
    }

    fn finish(self, value: Option<Value>) -> Result<Decoded, String> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(Decoded { object: value.unwrap_or_else(|| Value::Object(Map::new())), strict: self.strict }),
        }
    }

    fn fail(&mut self, error: impl FnOnce() -> String) {
        if self.error.is_none() {
            self.error = Some(error());
        }
    }

    /// The error of a type that decodes itself.
    fn stop(&mut self, error: impl FnOnce() -> String) {
        if !self.stopped {
            self.error = Some(error());
            self.stopped = true;
        }
    }

    /// Saves Go's `UnmarshalTypeError`.
    fn mismatch(&mut self, found: &str, wanted: &str) {
        if self.error.is_none() {
            self.error = Some(self.type_error(found, wanted));
        }
    }

    /// Go's `UnmarshalTypeError` from a type that decodes itself.
    fn stop_at(&mut self, found: &str, wanted: &str) {
        let error = self.type_error(found, wanted);
        self.stop(|| error);
    }

    fn type_error(&self, found: &str, wanted: &str) -> String {
        // Without indices, with the names of embedded structs.
        let names = |(owner, field): &(Schema, Field)| owner.embedded_path(*field).into_iter().chain([field.name()]);
        let (within, path) = (self.within, self.fields.iter().flat_map(names).collect::<Vec<_>>().join("."));
        match path.is_empty() {
            true => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
            false => format!("json: cannot unmarshal {found} into Go struct field {within}.{path} of type {wanted}"),
        }
    }

    fn strict(&mut self, what: &str, field: &str) {
        if self.lenient || self.strict.len() >= MAX_STRICT {
            return;
        }
        let dot = if self.path.is_empty() { "" } else { "." };
        let message = format!("{what} field \"{}{dot}{field}\"", self.path);
        if !self.strict.contains(&message) {
            self.strict.push(message);
        }
    }

    /// Goes one step down for the time of `inner`.
    fn at<T>(&mut self, step: Step<'_>, inner: impl FnOnce(&mut Self) -> T) -> T {
        let (len, within, depth) = (self.path.len(), self.within, self.fields.len());
        match step {
            Step::Index(i) => self.path.push_str(&format!("[{i}]")),
            Step::Key(key) => self.push(key),
            Step::Field(owner, field) => {
                self.push(field.name());
                self.fields.push((owner, field));
                self.within = owner.kind_name();
            }
        }
        let result = inner(self);
        self.fields.truncate(depth);
        self.within = within;
        self.path.truncate(len);
        result
    }

    fn push(&mut self, key: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
    }
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Index(usize),
    Key(&'a str),
    Field(Schema, Field),
}

/// Decodes one place; `None` is Go's zero value.
struct Seed<'a> {
    ty: Slot,
    state: &'a mut State,
}

#[cfg(test)]
mod tests;
