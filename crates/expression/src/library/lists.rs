//! Kubernetes' functions on lists: `sum`, `min`, `max`, `isSorted`, `indexOf`, `lastIndexOf`.

use super::Overload;
use crate::collection::List;
use crate::cost::Cost;
use crate::equality;
use crate::error::EvalError;
use crate::number::Arithmetic;
use crate::value::Value;
use std::cmp::Ordering;

macro_rules! ordered {
    ($name:literal, $result:literal, $call:ident, [$($element:literal),*]) => {
        &[$(Overload::new($name, concat!("list(", $element, ")::", $name, "() -> ", $result), Cost::Elements, $call)),*]
    };
}

macro_rules! picked {
    ($name:literal, $call:ident, [$($element:literal),*]) => {
        &[$(Overload::new($name, concat!("list(", $element, ")::", $name, "() -> ", $element), Cost::Elements, $call)),*]
    };
}

pub(super) static IS_SORTED: &[Overload] = ordered!(
    "isSorted",
    "bool",
    is_sorted,
    ["int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes"]
);
pub(super) static MIN: &[Overload] =
    picked!("min", min, ["int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes"]);
pub(super) static MAX: &[Overload] =
    picked!("max", max, ["int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes"]);
pub(super) static TABLE: &[Overload] = &[
    Overload::new("sum", "list(int)::sum() -> int", Cost::Elements, |args| sum(args, Value::Int(0))),
    Overload::new("sum", "list(uint)::sum() -> uint", Cost::Elements, |args| sum(args, Value::Uint(0))),
    Overload::new("sum", "list(double)::sum() -> double", Cost::Elements, |args| sum(args, Value::Double(0.0))),
    Overload::new("sum", "list(duration)::sum() -> duration", Cost::Elements, |args| sum(args, Value::Duration(0))),
    Overload::new("indexOf", "list(A)::indexOf(A) -> int", Cost::Elements, index_of),
    Overload::new("lastIndexOf", "list(A)::lastIndexOf(A) -> int", Cost::Elements, last_index_of),
];

/// The list argument at a place.
pub(super) fn list<'v, 'a>(args: &'v [Value<'a>], index: usize) -> Result<&'v List<'a>, EvalError> {
    if let Some(Value::List(list)) = args.get(index) { Ok(list) } else { Err(EvalError::no_such_overload()) }
}

fn is_sorted<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let mut before: Option<Value<'a>> = None;
    for item in list(args, 0)?.iter() {
        let item = item?;
        if let Some(before) = &before
            && equality::compare(before, &item)? == Some(Ordering::Greater)
        {
            return Ok(Value::Bool(false));
        }
        before = Some(item);
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(args: &[Value<'a>], zero: Value<'a>) -> Result<Value<'a>, EvalError> {
    let mut total = zero;
    for item in list(args, 0)?.iter() {
        total = match (&total, item?) {
            // An empty sum does not say what it is a sum of where the elements' type is unknown.
            (Value::Int(0), first @ (Value::Uint(_) | Value::Double(_) | Value::Duration(_))) => first,
            (Value::Duration(a), Value::Duration(b)) => {
                Value::Duration(a.checked_add(b).ok_or_else(|| EvalError::new("integer overflow"))?)
            }
            (a, b) => crate::number::compute(Arithmetic::Add, a, &b)?,
        };
    }
    Ok(total)
}

fn pick<'a>(args: &[Value<'a>], name: &str, better: Ordering) -> Result<Value<'a>, EvalError> {
    let mut best: Option<Value<'a>> = None;
    for item in list(args, 0)?.iter() {
        let item = item?;
        let replace = match &best {
            None => true,
            Some(best) => equality::compare(&item, best)? == Some(better),
        };
        if replace {
            best = Some(item);
        }
    }
    best.ok_or_else(|| EvalError::new(format!("{name} called on empty list")))
}

fn min<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    pick(args, "min", Ordering::Less)
}

fn max<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    pick(args, "max", Ordering::Greater)
}

fn is_at<'a>(list: &List<'a>, index: usize, wanted: &Value<'a>) -> bool {
    matches!(list.get(index), Some(Ok(item)) if equality::equal(&item, wanted).unwrap_or(false))
}

fn place<'a>(found: Option<usize>) -> Value<'a> {
    Value::Int(found.and_then(|place| i64::try_from(place).ok()).unwrap_or(-1))
}

fn index_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (list, wanted) = (list(args, 0)?, args.get(1).ok_or_else(EvalError::no_such_overload)?);
    Ok(place((0..list.len()).find(|index| is_at(list, *index, wanted))))
}

fn last_index_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (list, wanted) = (list(args, 0)?, args.get(1).ok_or_else(EvalError::no_such_overload)?);
    Ok(place((0..list.len()).rev().find(|index| is_at(list, *index, wanted))))
}
