//! Lists as sets: `sets.contains`, `sets.equivalent`, `sets.intersects`.

use super::Overload;
use super::lists::list;
use crate::collection::List;
use crate::cost::Cost;
use crate::equality;
use crate::error::EvalError;
use crate::value::Value;

pub(super) static TABLE: &[Overload] = &[
    Overload::new("sets.contains", "sets.contains(list(T), list(T)) -> bool", Cost::Product(1), contains),
    Overload::new("sets.equivalent", "sets.equivalent(list(T), list(T)) -> bool", Cost::Product(2), equivalent),
    Overload::new("sets.intersects", "sets.intersects(list(T), list(T)) -> bool", Cost::Product(1), intersects),
];

fn holds<'a>(list: &List<'a>, wanted: &Value<'a>) -> Result<bool, EvalError> {
    for item in list.iter() {
        if equality::equal(&item?, wanted)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn holds_all<'a>(list: &List<'a>, part: &List<'a>) -> Result<bool, EvalError> {
    for item in part.iter() {
        if !holds(list, &item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn contains<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    holds_all(list(args, 0)?, list(args, 1)?).map(Value::Bool)
}

fn equivalent<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (a, b) = (list(args, 0)?, list(args, 1)?);
    Ok(Value::Bool(holds_all(a, b)? && holds_all(b, a)?))
}

fn intersects<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (a, b) = (list(args, 0)?, list(args, 1)?);
    for item in a.iter() {
        if holds(b, &item?)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}
