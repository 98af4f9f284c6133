//! Optional values. `or` and `orValue` are evaluated elsewhere, since they may not need their argument.

use super::Overload;
use crate::collection::List;
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::Value;

pub(super) static TABLE: &[Overload] = &[
    Overload::new("optional.of", "optional.of(V) -> optional(V)", Cost::One, of),
    Overload::new("optional.ofNonZeroValue", "optional.ofNonZeroValue(V) -> optional(V)", Cost::One, of_non_zero),
    Overload::new("optional.none", "optional.none() -> optional(V)", Cost::One, none),
    Overload::new("value", "optional(V)::value() -> V", Cost::One, value),
    Overload::new("hasValue", "optional(V)::hasValue() -> bool", Cost::One, has_value),
    Overload::new("or", "optional(V)::or(optional(V)) -> optional(V)", Cost::One, none),
    Overload::new("orValue", "optional(V)::orValue(V) -> V", Cost::One, none),
    Overload::new("last", "list(V)::last() -> optional(V)", Cost::One, last),
    Overload::new("first", "list(V)::first() -> optional(V)", Cost::One, first),
    Overload::new("optional.unwrap", "optional.unwrap(list(optional(V))) -> list(V)", Cost::One, unwrap),
    Overload::new("unwrapOpt", "list(optional(V))::unwrapOpt() -> list(V)", Cost::One, unwrap),
];

fn of<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::optional(args.first().cloned()))
}

fn of_non_zero<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::optional(args.first().filter(|value| !is_zero(value)).cloned()))
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null
        | Value::Bool(false)
        | Value::Int(0)
        | Value::Uint(0)
        | Value::Duration(0)
        | Value::Optional(None) => true,
        Value::Double(d) => *d == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Timestamp(t) => t.is_zero(),
        _ => false,
    }
}

fn none<'a>(_: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Optional(None))
}

fn value<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match args.first() {
        Some(Value::Optional(Some(value))) => Ok(Value::clone(value)),
        _ => Err(EvalError::new("optional.none() dereference")),
    }
}

fn has_value<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(matches!(args.first(), Some(Value::Optional(Some(_))))))
}

fn list<'v, 'a>(args: &'v [Value<'a>]) -> Result<&'v List<'a>, EvalError> {
    if let Some(Value::List(list)) = args.first() { Ok(list) } else { Err(EvalError::no_such_overload()) }
}

fn last<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let list = list(args)?;
    let place = list.len().checked_sub(1);
    place.and_then(|place| list.get(place)).transpose().map(Value::optional)
}

fn first<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    list(args)?.get(0).transpose().map(Value::optional)
}

fn unwrap<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let mut out = Vec::new();
    for item in list(args)?.iter() {
        match item? {
            Value::Optional(Some(value)) => out.push(Value::clone(&value)),
            Value::Optional(None) => {}
            other => return Err(EvalError::new(format!("value {} is not optional", crate::eval::shown(&other)))),
        }
    }
    Ok(Value::list(out))
}
