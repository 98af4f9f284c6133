//! The walk: which JSON form meets which type.

use super::{Seed, Slot, State, Step, holds_nothing, is_empty, scalar, zero};
use crate::types::{Field, Kind, Schema, Type};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(scalar::from_bool(self.ty, value, self.state))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(scalar::from_number(self.ty, value.into(), self.state))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(scalar::from_number(self.ty, value.into(), self.state))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(serde_json::Number::from_f64(value).and_then(|n| scalar::from_number(self.ty, n, self.state)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(scalar::from_str(self.ty, value, self.state))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        match (self.ty.kind(), self.ty) {
            (Kind::List, Slot::Type(ty)) => list(ty, seq, self.state).map(Some),
            (Kind::Json | Kind::RawExtension, _) => any_list(seq).map(Some),
            (Kind::SchemaOrStrings | Kind::SchemaOrArray, _) => or_list(self.ty.kind(), seq, self.state).map(Some),
            _ => {
                mismatch(self.ty, "array", self.state);
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(None)
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        match (self.ty.kind(), self.ty) {
            (Kind::Struct, slot) => match slot.schema() {
                Some(schema) => structure(schema, map, self.state).map(Some),
                None => any_map(map).map(Some),
            },
            (Kind::Map, Slot::Type(ty)) => entries(ty, map, self.state).map(Some),
            (Kind::Json | Kind::RawExtension | Kind::FieldsV1, _) => any_map(map).map(Some),
            (Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings, _) => {
                lenient(self.state, |state| match json_schema() {
                    Some(schema) => structure(schema, map, state).map(Some),
                    None => any_map(map).map(Some),
                })
            }
            _ => {
                mismatch(self.ty, "object", self.state);
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(None)
            }
        }
    }
}

fn json_schema() -> Option<Schema> {
    Schema::find("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
}

/// Saves the error of a list or object where the type wants something else.
fn mismatch(slot: Slot, found: &str, state: &mut State) {
    match slot.kind() {
        Kind::Quantity => state.stop(|| scalar::BAD_QUANTITY.into()),
        Kind::IntOrString => state.stop_at(found, "int32"),
        Kind::Time | Kind::MicroTime | Kind::Duration => state.stop_at(found, "string"),
        Kind::SchemaOrBool => state.stop(|| "boolean or JSON schema expected".into()),
        _ => state.mismatch(found, &slot.go()),
    }
}

fn lenient<T>(state: &mut State, inner: impl FnOnce(&mut State) -> T) -> T {
    let before = std::mem::replace(&mut state.lenient, true);
    let result = inner(state);
    state.lenient = before;
    result
}

fn structure<'de, A: MapAccess<'de>>(schema: Schema, mut map: A, state: &mut State) -> Result<Value, A::Error> {
    let mut out = Map::new();
    let mut seen: Vec<Field> = Vec::new();
    while let Some(key) = map.next_key::<String>()? {
        let Some(field) = schema.field(&key) else {
            state.strict("unknown", &key);
            map.next_value::<IgnoredAny>()?;
            continue;
        };
        if seen.contains(&field) {
            state.strict("duplicate", &key);
        } else {
            seen.push(field);
        }
        let value = state
            .at(Step::Field(schema, field), |state| map.next_value_seed(Seed { ty: Slot::Type(field.ty()), state }))?;
        let told = asks_for_reset(&state.path, field);
        match value.filter(|v| told || !is_left_out(field, v)) {
            Some(value) => out.insert(key, value),
            None => out.remove(&key),
        };
    }
    Ok(Value::Object(out))
}

/// Whether a field is the managedFields of the object itself: an empty list asks that they begin anew.
pub(super) fn asks_for_reset(path: &str, field: Field) -> bool {
    path == "metadata" && field.name() == "managedFields"
}

/// Whether Go, writing what it has read, leaves the value out and nothing before that misses it.
pub(super) fn is_left_out(field: Field, value: &Value) -> bool {
    let told = field.tells_empty() && holds_nothing(value);
    (field.is_omitempty() || field.is_omitzero()) && is_empty(field, value) && !told
}

fn list<'de, A: SeqAccess<'de>>(ty: Type, mut seq: A, state: &mut State) -> Result<Value, A::Error> {
    let mut out = Vec::new();
    let Some(element) = ty.element() else { return any_list(seq) };
    loop {
        let next =
            state.at(Step::Index(out.len()), |state| seq.next_element_seed(Seed { ty: Slot::Type(element), state }))?;
        match next {
            Some(value) => out.push(value.unwrap_or_else(|| zero(element))),
            None => return Ok(Value::Array(out)),
        }
    }
}

fn entries<'de, A: MapAccess<'de>>(ty: Type, mut map: A, state: &mut State) -> Result<Value, A::Error> {
    let mut out = Map::new();
    let Some(element) = ty.element() else { return any_map(map) };
    while let Some(key) = map.next_key::<String>()? {
        if out.contains_key(&key) {
            state.strict("duplicate", &key);
        }
        let value = state.at(Step::Key(&key), |state| map.next_value_seed(Seed { ty: Slot::Type(element), state }))?;
        out.insert(key, value.unwrap_or_else(|| zero(element)));
    }
    Ok(Value::Object(out))
}

fn any_list<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Value, A::Error> {
    let mut out = Vec::new();
    while let Some(value) = seq.next_element()? {
        out.push(value);
    }
    Ok(Value::Array(out))
}

fn any_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<Value, A::Error> {
    let mut out = Map::new();
    while let Some((key, value)) = map.next_entry()? {
        out.insert(key, value);
    }
    Ok(Value::Object(out))
}

/// The list form of a schema-or-list: strings stay, schemas are decoded.
fn or_list<'de, A: SeqAccess<'de>>(kind: Kind, mut seq: A, state: &mut State) -> Result<Value, A::Error> {
    let Some(schema) = json_schema().filter(|_| kind == Kind::SchemaOrArray) else { return any_list(seq) };
    let mut out = Vec::new();
    while let Some(next) = lenient(state, |state| seq.next_element_seed(Seed { ty: Slot::Schema(schema), state }))? {
        out.push(next.unwrap_or_else(|| Value::Object(Map::new())));
    }
    Ok(Value::Array(out))
}
