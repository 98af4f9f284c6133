//! Conversions between types: `int(x)`, `string(x)`, `timestamp(x)` ...

use super::{Overload, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::number;
use crate::time;
use crate::value::Value;

pub(super) static TABLE: &[Overload] = &[
    Overload::new("type", "type(A) -> type(A)", Cost::One, type_of),
    Overload::new("dyn", "dyn(A) -> dyn", Cost::One, same),
    Overload::new("bool", "bool(bool) -> bool", Cost::One, same),
    Overload::new("bool", "bool(string) -> bool", Cost::One, bool_of_text),
    Overload::new("bytes", "bytes(bytes) -> bytes", Cost::One, same),
    Overload::new("bytes", "bytes(string) -> bytes", Cost::Traversal(1), bytes_of_text),
    Overload::new("double", "double(double) -> double", Cost::One, same),
    Overload::new("double", "double(int) -> double", Cost::One, double_of),
    Overload::new("double", "double(string) -> double", Cost::One, double_of_text),
    Overload::new("double", "double(uint) -> double", Cost::One, double_of),
    Overload::new("duration", "duration(duration) -> duration", Cost::One, same),
    Overload::new("duration", "duration(int) -> duration", Cost::One, duration_of_int),
    Overload::new("duration", "duration(string) -> duration", Cost::One, duration_of_text),
    Overload::new("int", "int(int) -> int", Cost::One, same),
    Overload::new("int", "int(double) -> int", Cost::One, int_of),
    Overload::new("int", "int(duration) -> int", Cost::One, int_of),
    Overload::new("int", "int(string) -> int", Cost::One, int_of_text),
    Overload::new("int", "int(timestamp) -> int", Cost::One, int_of),
    Overload::new("int", "int(uint) -> int", Cost::One, int_of),
    Overload::new("string", "string(string) -> string", Cost::One, same),
    Overload::new("string", "string(bool) -> string", Cost::One, text_of),
    Overload::new("string", "string(bytes) -> string", Cost::Traversal(1), text_of_bytes),
    Overload::new("string", "string(double) -> string", Cost::One, text_of),
    Overload::new("string", "string(duration) -> string", Cost::One, text_of),
    Overload::new("string", "string(int) -> string", Cost::One, text_of),
    Overload::new("string", "string(timestamp) -> string", Cost::One, text_of),
    Overload::new("string", "string(uint) -> string", Cost::One, text_of),
    Overload::new("timestamp", "timestamp(timestamp) -> timestamp", Cost::One, same),
    Overload::new("timestamp", "timestamp(int) -> timestamp", Cost::One, timestamp_of_int),
    Overload::new("timestamp", "timestamp(string) -> timestamp", Cost::One, timestamp_of_text),
    Overload::new("uint", "uint(uint) -> uint", Cost::One, same),
    Overload::new("uint", "uint(double) -> uint", Cost::One, uint_of),
    Overload::new("uint", "uint(int) -> uint", Cost::One, uint_of),
    Overload::new("uint", "uint(string) -> uint", Cost::One, uint_of_text),
];

fn first<'a>(args: &[Value<'a>]) -> Value<'a> {
    args.first().cloned().unwrap_or_default()
}

fn same<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(first(args))
}

fn type_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Type(first(args).type_name().into()))
}

fn failed(from: &str, to: &str) -> EvalError {
    EvalError::new(format!("type conversion error from '{from}' to '{to}'"))
}

fn bool_of_text<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match text(args, 0)? {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
        _ => Err(failed("string", "bool")),
    }
}

fn bytes_of_text<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bytes(text(args, 0)?.as_bytes().into()))
}

fn double_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match first(args) {
        Value::Int(i) => Ok(Value::Double(i as f64)),
        Value::Uint(u) => Ok(Value::Double(u as f64)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn double_of_text<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let text = text(args, 0)?;
    let special =
        ["inf", "infinity", "nan"].contains(&text.trim_start_matches(['+', '-']).to_ascii_lowercase().as_str());
    let value: f64 = text.parse().map_err(|_| failed("string", "double"))?;
    if value.is_infinite() && !special { Err(failed("string", "double")) } else { Ok(Value::Double(value)) }
}

fn duration_of_int<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    super::int(args, 0).map(Value::Duration)
}

fn duration_of_text<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    time::parse_duration(text(args, 0)?)
        .map(Value::Duration)
        .ok_or_else(|| failed("string", "google.protobuf.Duration"))
}

fn int_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match first(args) {
        Value::Double(d) => number::double_to_int(d).map(Value::Int),
        Value::Uint(u) => i64::try_from(u).map(Value::Int).map_err(|_| EvalError::new("integer overflow")),
        Value::Timestamp(t) => Ok(Value::Int(t.seconds())),
        Value::Duration(d) => Ok(Value::Int(d)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn int_of_text<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    text(args, 0)?.parse().map(Value::Int).map_err(|_| failed("string", "int"))
}

fn uint_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match first(args) {
        Value::Double(d) => number::double_to_uint(d).map(Value::Uint),
        Value::Int(i) => u64::try_from(i).map(Value::Uint).map_err(|_| EvalError::new("unsigned integer overflow")),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn uint_of_text<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    text(args, 0)?.parse().map(Value::Uint).map_err(|_| failed("string", "uint"))
}

fn text_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::text(match first(args) {
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Uint(u) => u.to_string(),
        Value::Double(d) => number::show_double(d),
        Value::Timestamp(t) => time::show_timestamp(&t),
        Value::Duration(d) => time::show_duration(d),
        _ => return Err(EvalError::no_such_overload()),
    }))
}

fn text_of_bytes<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let Value::Bytes(bytes) = first(args) else { return Err(EvalError::no_such_overload()) };
    let text =
        std::str::from_utf8(&bytes).map_err(|_| EvalError::new("invalid UTF-8 in bytes, cannot convert to string"))?;
    Ok(Value::text(text))
}

fn timestamp_of_int<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    time::from_seconds(super::int(args, 0)?).map(Value::Timestamp)
}

fn timestamp_of_text<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    time::parse_timestamp(text(args, 0)?)
        .map(Value::Timestamp)
        .ok_or_else(|| failed("string", "google.protobuf.Timestamp"))
}
