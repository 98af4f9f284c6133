//! `<`, `<=`, `>`, `>=`: of values of one type, and of numbers of any.

use super::Overload;
use super::operators::{pair, untraited};
use crate::cost::Cost;
use crate::equality;
use crate::error::EvalError;
use crate::value::Value;
use std::cmp::Ordering;

macro_rules! rows {
    ($function:literal, $call:ident) => {
        &[
            Overload::dynamic($function, concat!($function, "(bool, bool) -> bool"), Cost::One, $call),
            Overload::dynamic($function, concat!($function, "(int, int) -> bool"), Cost::One, $call),
            Overload::dynamic($function, concat!($function, "(int, double) -> bool"), Cost::One, $call),
            Overload::dynamic($function, concat!($function, "(int, uint) -> bool"), Cost::One, $call),
            Overload::dynamic($function, concat!($function, "(uint, uint) -> bool"), Cost::One, $call),
            Overload::dynamic($function, concat!($function, "(uint, double) -> bool"), Cost::One, $call),
            Overload::dynamic($function, concat!($function, "(uint, int) -> bool"), Cost::One, $call),
            Overload::dynamic($function, concat!($function, "(double, double) -> bool"), Cost::One, $call),
            Overload::dynamic($function, concat!($function, "(double, int) -> bool"), Cost::One, $call),
            Overload::dynamic($function, concat!($function, "(double, uint) -> bool"), Cost::One, $call),
            Overload::dynamic($function, concat!($function, "(string, string) -> bool"), Cost::Order, $call),
            Overload::dynamic($function, concat!($function, "(bytes, bytes) -> bool"), Cost::Order, $call),
            Overload::dynamic($function, concat!($function, "(timestamp, timestamp) -> bool"), Cost::One, $call),
            Overload::dynamic($function, concat!($function, "(duration, duration) -> bool"), Cost::One, $call),
        ]
    };
}

pub(super) static LESS: &[Overload] = rows!("_<_", less);
pub(super) static LESS_EQUALS: &[Overload] = rows!("_<=_", less_equals);
pub(super) static GREATER: &[Overload] = rows!("_>_", greater);
pub(super) static GREATER_EQUALS: &[Overload] = rows!("_>=_", greater_equals);

fn ordered<'a>(args: &[Value<'a>], function: &str, holds: fn(Ordering) -> bool) -> Result<Value<'a>, EvalError> {
    let (a, b) = pair(args)?;
    if matches!(
        a,
        Value::Null | Value::List(_) | Value::Map(_) | Value::Type(_) | Value::Optional(_) | Value::Opaque(_)
    ) {
        return Err(untraited(function));
    }
    let order = equality::compare(a, b)?.ok_or_else(|| EvalError::new("NaN values cannot be ordered"))?;
    Ok(Value::Bool(holds(order)))
}

fn less<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    ordered(args, "_<_", Ordering::is_lt)
}

fn less_equals<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    ordered(args, "_<=_", Ordering::is_le)
}

fn greater<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    ordered(args, "_>_", Ordering::is_gt)
}

fn greater_equals<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    ordered(args, "_>=_", Ordering::is_ge)
}
