//! Protobuf to JSON.

use super::to::is_wrapped_list;
use crate::decode::is_empty;
use crate::types::{Field, Kind, Schema, Type};
use crate::weight::Weight;
use crate::wire::{Reader, Wire};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::cell::Cell;

type Result<T> = std::result::Result<T, String>;

pub(super) const JSON_SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
/// Deeper messages than any object needs come from nobody honest.
const MAX_DEPTH: usize = 100;

pub(super) fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| "invalid UTF-8".to_owned())
}

/// How deep the walk is, and what may still be read.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    depth: usize,
    left: &'a Cell<Weight>,
}

impl Place<'_> {
    fn deeper(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }

    fn take(self, weight: Weight) -> Result<()> {
        let left = self.left.get().without(weight).ok_or("its many small values would take too much memory")?;
        self.left.set(left);
        Ok(())
    }
}

/// Reads a whole object.
pub(super) fn object(schema: Schema, bytes: &[u8]) -> Result<Map<String, Value>> {
    let (mut map, left) = (Map::new(), Cell::new(Weight::MOST));
    structure(&mut map, schema, bytes, Place { depth: 0, left: &left })?;
    Ok(map)
}

/// Reads a message's fields into a JSON object; fields nobody knows are passed over.
fn structure(out: &mut Map<String, Value>, schema: Schema, bytes: &[u8], at: Place<'_>) -> Result<()> {
    if at.depth > MAX_DEPTH {
        return Err("exceeded max depth".into());
    }
    at.take(Weight::MAP)?;
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next_field()? {
        let Some(f) = schema.fields().find(|f| f.number() == number) else { continue };
        match (f.ty().schema().filter(|_| f.is_inline()), wire) {
            (Some(embedded), Wire::Bytes(inner)) => structure(out, embedded, inner, at.deeper())?,
            (Some(_), _) => return Err(wrong_wire()),
            (None, wire) => field(out, f, wire, at)?,
        }
    }
    for f in schema.fields().filter(|f| f.is_omitempty() || f.is_omitzero()) {
        if out.get(f.name()).is_some_and(|value| is_empty(f, value)) {
            out.remove(f.name());
        }
    }
    Ok(())
}

fn wrong_wire() -> String {
    "proto: wrong wireType".into()
}

fn field(out: &mut Map<String, Value>, f: Field, wire: Wire<'_>, at: Place<'_>) -> Result<()> {
    let (ty, name) = (f.ty(), f.name());
    match (ty.kind(), ty.element(), wire) {
        // Packed numbers come as bytes.
        (Kind::List, Some(element), Wire::Bytes(packed))
            if matches!(element.kind(), Kind::Bool | Kind::Int32 | Kind::Int64) =>
        {
            unpack(list_of(out, name), element, packed, at)
        }
        (Kind::List, Some(element), wire) if !is_wrapped_list(ty) => {
            let item = one(element, wire, at)?;
            list_of(out, name).push(item);
            Ok(())
        }
        (Kind::Map, Some(element), Wire::Bytes(entry)) => {
            let (key, value) = map_entry(element, entry, at)?;
            if let Value::Object(map) = out.entry(name).or_insert_with(|| Value::Object(Map::new())) {
                map.insert(key, value);
            }
            Ok(())
        }
        (_, _, wire) => {
            match one(ty, wire, at)? {
                // The zero time: Go writes an empty message.
                Value::Null if !matches!(ty.kind(), Kind::Json | Kind::RawExtension) => drop(out.remove(name)),
                value => drop(out.insert(name.to_owned(), value)),
            }
            Ok(())
        }
    }
}

fn list_of<'a>(out: &'a mut Map<String, Value>, name: &str) -> &'a mut Vec<Value> {
    match out.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
        Value::Array(items) => items,
        _ => unreachable!("only lists are put under a list's name"),
    }
}

fn unpack(out: &mut Vec<Value>, element: Type, packed: &[u8], at: Place<'_>) -> Result<()> {
    // A packed run has the form of values without tags: each gets one to be read by.
    let mut start = 0;
    for (i, byte) in packed.iter().enumerate() {
        if byte & 0x80 == 0 {
            let tagged = [&[0x08][..], &packed[start..=i]].concat();
            if let Some((_, wire)) = Reader::new(&tagged).next_field()? {
                out.push(one(element, wire, at)?);
            }
            start = i + 1;
        }
    }
    if start == packed.len() { Ok(()) } else { Err("unexpected EOF".into()) }
}

fn map_entry(element: Type, bytes: &[u8], at: Place<'_>) -> Result<(String, Value)> {
    let (mut key, mut value) = (String::new(), None);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next_field()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?.to_owned(),
            (2, wire) => value = Some(one(element, wire, at)?),
            _ => {}
        }
    }
    let zero = || match element.kind() {
        Kind::String | Kind::Bytes => "".into(),
        Kind::Struct => json!({}),
        Kind::Quantity => "0".into(),
        _ => Value::Null,
    };
    Ok((key, value.unwrap_or_else(zero)))
}

/// Reads one value.
fn one(ty: Type, wire: Wire<'_>, at: Place<'_>) -> Result<Value> {
    at.take(Weight::VALUE)?;
    Ok(match (ty.kind(), wire) {
        (Kind::Bool, Wire::Varint(n)) => (n != 0).into(),
        (Kind::Int32, Wire::Varint(n)) => (n as i32).into(),
        (Kind::Int64, Wire::Varint(n)) => (n as i64).into(),
        (Kind::Float64, Wire::Fixed64(bits)) => f64::from_bits(bits).into(),
        (Kind::String, Wire::Bytes(bytes)) => text(bytes)?.into(),
        (Kind::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Kind::Struct, Wire::Bytes(bytes)) => {
            let mut map = Map::new();
            if let Some(schema) = ty.schema() {
                structure(&mut map, schema, bytes, at.deeper())?;
            }
            map.into()
        }
        (Kind::List, Wire::Bytes(bytes)) => {
            let (mut items, mut reader) = (Vec::new(), Reader::new(bytes));
            while let (Some((_, wire)), Some(element)) = (reader.next_field()?, ty.element()) {
                items.push(one(element, wire, at)?);
            }
            items.into()
        }
        (kind, Wire::Bytes(bytes)) => special(kind, bytes, at)?,
        _ => return Err(wrong_wire()),
    })
}

/// Reads the message of a type that is no plain struct.
fn special(kind: Kind, bytes: &[u8], at: Place<'_>) -> Result<Value> {
    let mut fields = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field()? {
        fields.push(field);
    }
    let number = |n: u32| {
        fields.iter().rev().find_map(|(f, wire)| match wire {
            Wire::Varint(value) if *f == n => Some(*value as i64),
            _ => None,
        })
    };
    let inner = |n: u32| {
        fields.iter().rev().find_map(|(f, wire)| match wire {
            Wire::Bytes(value) if *f == n => Some(*value),
            _ => None,
        })
    };
    Ok(match kind {
        Kind::Quantity => text(inner(1).unwrap_or(b"0"))?.into(),
        Kind::IntOrString if number(1) == Some(1) => text(inner(3).unwrap_or_default())?.into(),
        Kind::IntOrString => (number(2).unwrap_or(0) as i32).into(),
        Kind::Time | Kind::MicroTime if fields.is_empty() => Value::Null,
        Kind::Time | Kind::MicroTime => time(number(1).unwrap_or(0), number(2).unwrap_or(0), kind == Kind::MicroTime)?,
        Kind::Duration => format!("{}ns", number(1).unwrap_or(0)).into(),
        Kind::RawExtension | Kind::FieldsV1 | Kind::Json => match inner(1) {
            None | Some([]) => Value::Null,
            Some(raw) => {
                at.take(Weight::of_json(raw))?;
                serde_json::from_slice(raw).map_err(|e| e.to_string())?
            }
        },
        Kind::SchemaOrBool => match inner(2) {
            Some(schema) => json_schema(schema, at)?,
            None => (number(1) == Some(1)).into(),
        },
        Kind::SchemaOrArray | Kind::SchemaOrStrings => match inner(1) {
            Some(schema) => json_schema(schema, at)?,
            None => {
                let all = fields.iter().filter_map(|(n, wire)| match wire {
                    Wire::Bytes(bytes) if *n == 2 => Some(*bytes),
                    _ => None,
                });
                let items: Result<Vec<Value>> = all
                    .map(|b| if kind == Kind::SchemaOrArray { json_schema(b, at) } else { Ok(text(b)?.into()) })
                    .collect();
                items?.into()
            }
        },
        _ => return Err(wrong_wire()),
    })
}

fn json_schema(bytes: &[u8], at: Place<'_>) -> Result<Value> {
    let mut map = Map::new();
    if let Some(schema) = Schema::find(JSON_SCHEMA) {
        structure(&mut map, schema, bytes, at.deeper())?;
    }
    Ok(map.into())
}

fn time(seconds: i64, nanos: i64, micro: bool) -> Result<Value> {
    let nanos = i32::try_from(nanos).map_err(|e| e.to_string())?;
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|e| e.to_string())?;
    let format = if micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(time.strftime(format).to_string().into())
}
