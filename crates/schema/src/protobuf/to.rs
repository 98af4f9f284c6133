//! JSON to protobuf.

use crate::types::{Field, Kind, Schema, Type};
use crate::wire::Writer;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

type Result<T = ()> = std::result::Result<T, String>;

/// Writes the fields of a struct in the order of their numbers.
pub(super) fn structure(w: &mut Writer, schema: Schema, map: &Map<String, Value>) -> Result {
    let mut fields: Vec<Field> = schema.fields().filter(|f| f.number() != 0).collect();
    fields.sort_by_key(|f| f.number());
    for f in fields {
        match f.ty().schema().filter(|_| f.is_inline()) {
            Some(embedded) => nested(w, f.number(), |w| structure(w, embedded, map))?,
            None => field(w, f, map.get(f.name())).map_err(|e| format!("{}: {e}", f.name()))?,
        }
    }
    Ok(())
}

fn nested(w: &mut Writer, number: u32, fill: impl FnOnce(&mut Writer) -> Result) -> Result {
    let mut result = Ok(());
    w.message(number, |w| result = fill(w));
    result
}

/// Named Go lists that are messages of their own.
pub(super) fn is_wrapped_list(ty: Type) -> bool {
    ty.kind() == Kind::List && matches!(ty.go().as_str(), "v1.ExtraValue" | "v1.Verbs")
}

fn field(w: &mut Writer, f: Field, value: Option<&Value>) -> Result {
    let (ty, number) = (f.ty(), f.number());
    match (ty.kind(), ty.element(), value.filter(|v| !v.is_null())) {
        (Kind::List, Some(element), Some(Value::Array(items))) if !is_wrapped_list(ty) => {
            items.iter().try_for_each(|item| one(w, number, element, item))
        }
        (Kind::Map, Some(element), Some(Value::Object(map))) => map.iter().try_for_each(|(key, item)| {
            nested(w, number, |w| {
                w.bytes(1, key.as_bytes());
                one(w, 2, element, item)
            })
        }),
        (_, _, Some(value)) => one(w, number, ty, value),
        // Go writes no nil pointers, lists, maps or bytes.
        (Kind::List | Kind::Map | Kind::Bytes, ..) => Ok(()),
        (_, _, None) if ty.is_pointer() => Ok(()),
        (_, _, None) => one(w, number, ty, &Value::Null),
    }
}

/// Writes one value; null stands for Go's zero value.
fn one(w: &mut Writer, number: u32, ty: Type, value: &Value) -> Result {
    let mismatch = || Err(format!("unexpected {value} for {}", ty.go()));
    match (ty.kind(), value) {
        (Kind::String, Value::String(s)) => w.bytes(number, s.as_bytes()),
        (Kind::String, Value::Null) => w.bytes(number, b""),
        (Kind::Bool, Value::Bool(b)) => w.varint(number, u64::from(*b)),
        (Kind::Int32 | Kind::Int64, Value::Number(n)) => match n.as_i64() {
            Some(n) => w.varint(number, n as u64),
            None => return mismatch(),
        },
        (Kind::Bool | Kind::Int32 | Kind::Int64, Value::Null) => w.varint(number, 0),
        (Kind::Float64, value) => w.double(number, value.as_f64().unwrap_or_default()),
        (Kind::Bytes, Value::String(s)) => {
            let bytes = STANDARD.decode(s).map_err(|e| e.to_string())?;
            w.bytes(number, &bytes);
        }
        (Kind::Bytes, Value::Null) => w.bytes(number, b""),
        (Kind::Struct, Value::Object(map)) => {
            if let Some(schema) = ty.schema() {
                return nested(w, number, |w| structure(w, schema, map));
            }
        }
        (Kind::Struct, Value::Null) => {
            if let Some(schema) = ty.schema() {
                return nested(w, number, |w| structure(w, schema, &Map::new()));
            }
        }
        (Kind::List, Value::Array(items)) => {
            let Some(element) = ty.element() else { return mismatch() };
            return nested(w, number, |w| items.iter().try_for_each(|item| one(w, 1, element, item)));
        }
        (Kind::List, Value::Null) => w.bytes(number, b""),
        (
            Kind::String | Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Bytes | Kind::Struct | Kind::List | Kind::Map,
            _,
        ) => {
            return mismatch();
        }
        (special, value) => return nested(w, number, |w| self::special(w, special, value)),
    }
    Ok(())
}

/// The inside of the message of a type that is no plain struct.
fn special(w: &mut Writer, kind: Kind, value: &Value) -> Result {
    match (kind, value) {
        (Kind::Quantity, value) => w.bytes(1, value.as_str().unwrap_or("0").as_bytes()),
        (Kind::IntOrString, value) => {
            w.varint(1, u64::from(value.is_string()));
            w.varint(2, value.as_i64().unwrap_or(0) as u64);
            w.bytes(3, value.as_str().unwrap_or("").as_bytes());
        }
        (Kind::Time | Kind::MicroTime, Value::String(text)) => {
            let time: jiff::Timestamp = text.parse().map_err(|_| format!("{text:?} is no time"))?;
            let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
            let nanos = if kind == Kind::MicroTime { nanos } else { 0 };
            // Before 1970 the fraction counts forwards.
            let (seconds, nanos) = if nanos < 0 { (seconds - 1, nanos + 1_000_000_000) } else { (seconds, nanos) };
            w.varint(1, seconds as u64);
            w.varint(2, nanos as u64);
        }
        (Kind::Time | Kind::MicroTime, _) => {}
        (Kind::Duration, Value::String(text)) => w.varint(1, nanoseconds(text)? as u64),
        (Kind::Duration, _) => w.varint(1, 0),
        (Kind::RawExtension | Kind::FieldsV1 | Kind::Json, Value::Null) => {}
        (Kind::RawExtension | Kind::FieldsV1 | Kind::Json, raw) => w.bytes(1, raw.to_string().as_bytes()),
        (Kind::SchemaOrArray, Value::Array(items)) => return items.iter().try_for_each(|item| json_schema(w, 2, item)),
        (Kind::SchemaOrStrings, Value::Array(items)) => {
            items.iter().filter_map(Value::as_str).for_each(|s| w.bytes(2, s.as_bytes()));
        }
        (Kind::SchemaOrArray | Kind::SchemaOrStrings, value) => return json_schema(w, 1, value),
        // Allows is true for a schema too.
        (Kind::SchemaOrBool, value) => {
            w.varint(1, u64::from(*value != Value::Bool(false) && !value.is_null()));
            if value.is_object() {
                return json_schema(w, 2, value);
            }
        }
        _ => return Err(format!("unexpected {value}")),
    }
    Ok(())
}

fn json_schema(w: &mut Writer, number: u32, value: &Value) -> Result {
    let schema = Schema::find(super::from::JSON_SCHEMA).ok_or("no JSONSchemaProps")?;
    let empty = Map::new();
    nested(w, number, |w| structure(w, schema, value.as_object().unwrap_or(&empty)))
}

/// Parses a Go duration, `1h2m3.5s`.
fn nanoseconds(text: &str) -> Result<i64> {
    let bad = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let mut total = 0f64;
    while !rest.is_empty() && rest != "0" {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(bad()),
        };
        total += number.parse::<f64>().map_err(|_| bad())? * scale;
        rest = tail;
    }
    Ok(if negative { -total as i64 } else { total as i64 })
}
