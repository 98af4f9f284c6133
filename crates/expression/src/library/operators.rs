//! Operators, `size` and `in`: the rows the checker needs and what they do.
//!
//! `&&`, `||`, `?:`, `_[_]` and `.?` are evaluated elsewhere, since they look at their operands one by one.

use super::Overload;
use crate::collection::{List, Map};
use crate::cost::Cost;
use crate::equality;
use crate::error::EvalError;
use crate::number::{self, Arithmetic};
use crate::time;
use crate::value::Value;

pub(super) static TABLE: &[Overload] = &[
    Overload::dynamic("_?_:_", "_?_:_(bool, A, A) -> A", Cost::Free, unplanned),
    Overload::dynamic("_&&_", "_&&_(bool, bool) -> bool", Cost::Free, unplanned),
    Overload::dynamic("_||_", "_||_(bool, bool) -> bool", Cost::Free, unplanned),
    Overload::dynamic("!_", "!_(bool) -> bool", Cost::One, not),
    Overload::dynamic("_==_", "_==_(A, A) -> bool", Cost::Equality, equals),
    Overload::dynamic("_!=_", "_!=_(A, A) -> bool", Cost::Equality, not_equals),
    Overload::dynamic("_+_", "_+_(bytes, bytes) -> bytes", Cost::Join, add),
    Overload::dynamic("_+_", "_+_(double, double) -> double", Cost::One, add),
    Overload::dynamic("_+_", "_+_(duration, duration) -> duration", Cost::One, add),
    Overload::dynamic("_+_", "_+_(duration, timestamp) -> timestamp", Cost::One, add),
    Overload::dynamic("_+_", "_+_(timestamp, duration) -> timestamp", Cost::One, add),
    Overload::dynamic("_+_", "_+_(int, int) -> int", Cost::One, add),
    Overload::dynamic("_+_", "_+_(list(A), list(A)) -> list(A)", Cost::JoinLists, add),
    Overload::dynamic("_+_", "_+_(string, string) -> string", Cost::Join, add),
    Overload::dynamic("_+_", "_+_(uint, uint) -> uint", Cost::One, add),
    Overload::dynamic("_-_", "_-_(double, double) -> double", Cost::One, subtract),
    Overload::dynamic("_-_", "_-_(duration, duration) -> duration", Cost::One, subtract),
    Overload::dynamic("_-_", "_-_(int, int) -> int", Cost::One, subtract),
    Overload::dynamic("_-_", "_-_(timestamp, duration) -> timestamp", Cost::One, subtract),
    Overload::dynamic("_-_", "_-_(timestamp, timestamp) -> duration", Cost::One, subtract),
    Overload::dynamic("_-_", "_-_(uint, uint) -> uint", Cost::One, subtract),
    Overload::dynamic("_*_", "_*_(double, double) -> double", Cost::One, multiply),
    Overload::dynamic("_*_", "_*_(int, int) -> int", Cost::One, multiply),
    Overload::dynamic("_*_", "_*_(uint, uint) -> uint", Cost::One, multiply),
    Overload::dynamic("_/_", "_/_(double, double) -> double", Cost::One, divide),
    Overload::dynamic("_/_", "_/_(int, int) -> int", Cost::One, divide),
    Overload::dynamic("_/_", "_/_(uint, uint) -> uint", Cost::One, divide),
    Overload::dynamic("_%_", "_%_(int, int) -> int", Cost::One, modulo),
    Overload::dynamic("_%_", "_%_(uint, uint) -> uint", Cost::One, modulo),
    Overload::dynamic("-_", "-_(double) -> double", Cost::One, negate),
    Overload::dynamic("-_", "-_(int) -> int", Cost::One, negate),
    Overload::dynamic("_[_]", "_[_](list(A), int) -> A", Cost::One, unplanned),
    Overload::dynamic("_[_]", "_[_](map(A, B), A) -> B", Cost::One, unplanned),
    Overload::dynamic("_[_]", "_[_](optional(list(A)), int) -> optional(A)", Cost::One, unplanned),
    Overload::dynamic("_[_]", "_[_](optional(map(A, B)), A) -> optional(B)", Cost::One, unplanned),
    Overload::dynamic("_[?_]", "_[?_](list(A), int) -> optional(A)", Cost::One, unplanned),
    Overload::dynamic("_[?_]", "_[?_](optional(list(A)), int) -> optional(A)", Cost::One, unplanned),
    Overload::dynamic("_[?_]", "_[?_](map(A, B), A) -> optional(B)", Cost::One, unplanned),
    Overload::dynamic("_[?_]", "_[?_](optional(map(A, B)), A) -> optional(B)", Cost::One, unplanned),
    Overload::dynamic("@in", "@in(A, list(A)) -> bool", Cost::InList, contains),
    Overload::dynamic("@in", "@in(A, map(A, B)) -> bool", Cost::One, contains),
    Overload::dynamic("size", "size(bytes) -> int", Cost::One, size),
    Overload::dynamic("size", "bytes::size() -> int", Cost::One, size),
    Overload::dynamic("size", "size(list(A)) -> int", Cost::One, size),
    Overload::dynamic("size", "list(A)::size() -> int", Cost::One, size),
    Overload::dynamic("size", "size(map(A, B)) -> int", Cost::One, size),
    Overload::dynamic("size", "map(A, B)::size() -> int", Cost::One, size),
    Overload::dynamic("size", "size(string) -> int", Cost::One, size),
    Overload::dynamic("size", "string::size() -> int", Cost::One, size),
];

/// Operators that the planner turns into operations of their own.
fn unplanned<'a>(_: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Err(EvalError::no_such_overload())
}

pub(super) fn pair<'v, 'a>(args: &'v [Value<'a>]) -> Result<(&'v Value<'a>, &'v Value<'a>), EvalError> {
    match args {
        [a, b] => Ok((a, b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn one<'v, 'a>(args: &'v [Value<'a>]) -> Result<&'v Value<'a>, EvalError> {
    args.first().ok_or_else(EvalError::no_such_overload)
}

fn not<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    one(args)?.as_bool().map(|b| Value::Bool(!b)).ok_or_else(EvalError::no_such_overload)
}

fn equals<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (a, b) = pair(args)?;
    equality::equal(a, b).map(Value::Bool)
}

fn not_equals<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (a, b) = pair(args)?;
    equality::equal(a, b).map(|same| Value::Bool(!same))
}

fn add<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match pair(args)? {
        (Value::String(a), Value::String(b)) => {
            let mut joined = String::with_capacity(a.len() + b.len());
            joined.push_str(a);
            joined.push_str(b);
            Ok(Value::text(joined))
        }
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes([&**a, &**b].concat().into())),
        (Value::List(a), Value::List(b)) => a.join(b).map(Value::List),
        (Value::Duration(a), Value::Duration(b)) => a.checked_add(*b).map(Value::Duration).ok_or_else(overflow),
        (Value::Timestamp(t), Value::Duration(d)) | (Value::Duration(d), Value::Timestamp(t)) => {
            time::add(*t, *d).map(Value::Timestamp)
        }
        (Value::Null | Value::Bool(_) | Value::Map(_) | Value::Type(_) | Value::Optional(_) | Value::Opaque(_), _) => {
            Err(untraited("_+_"))
        }
        (a, b) => number::compute(Arithmetic::Add, a, b),
    }
}

fn overflow() -> EvalError {
    EvalError::new("integer overflow")
}

/// The error of an operand that the operator knows nothing about.
pub(super) fn untraited(function: &str) -> EvalError {
    EvalError::new(format!("no such overload: {function}"))
}

fn subtract<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match pair(args)? {
        (Value::Duration(a), Value::Duration(b)) => a.checked_sub(*b).map(Value::Duration).ok_or_else(overflow),
        (Value::Timestamp(t), Value::Duration(d)) => {
            time::add(*t, d.checked_neg().ok_or_else(overflow)?).map(Value::Timestamp)
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => time::between(*a, *b).map(Value::Duration),
        (a, b) if number::is_number(a) => number::compute(Arithmetic::Subtract, a, b),
        (Value::Duration(_) | Value::Timestamp(_), _) => Err(EvalError::no_such_overload()),
        _ => Err(untraited("_-_")),
    }
}

fn arithmetic<'a>(args: &[Value<'a>], op: Arithmetic, function: &str) -> Result<Value<'a>, EvalError> {
    match pair(args)? {
        (a, b) if number::is_number(a) => number::compute(op, a, b),
        _ => Err(untraited(function)),
    }
}

fn multiply<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    arithmetic(args, Arithmetic::Multiply, "_*_")
}

fn divide<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    arithmetic(args, Arithmetic::Divide, "_/_")
}

fn modulo<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    arithmetic(args, Arithmetic::Modulo, "_%_")
}

fn negate<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    number::negate(one(args)?)
}

fn contains<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match pair(args)? {
        (value, Value::List(list)) => in_list(value, list),
        (key, Value::Map(map)) => in_map(key, map),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn in_list<'a>(value: &Value<'a>, list: &List<'a>) -> Result<Value<'a>, EvalError> {
    let mut failed = None;
    for item in list.iter() {
        match item.and_then(|item| equality::equal(&item, value)) {
            Ok(true) => return Ok(Value::Bool(true)),
            Ok(false) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(Value::Bool(false)), Err)
}

fn in_map<'a>(key: &Value<'a>, map: &Map<'a>) -> Result<Value<'a>, EvalError> {
    map.get(key).map(|found| Value::Bool(found.is_some()))
}

fn size<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match one(args)? {
        value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_)) => {
            Ok(Value::Int(i64::try_from(value.size()).unwrap_or(i64::MAX)))
        }
        _ => Err(untraited("size")),
    }
}
