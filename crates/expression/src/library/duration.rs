//! Parts of lengths of time, each the whole length in that unit, cut off.

use super::Overload;
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::Value;

pub(super) static TABLE: &[Overload] = &[
    Overload::new("getHours", "duration::getHours() -> int", Cost::One, |args| whole(args, 3_600_000_000_000)),
    Overload::new("getMinutes", "duration::getMinutes() -> int", Cost::One, |args| whole(args, 60_000_000_000)),
    Overload::new("getSeconds", "duration::getSeconds() -> int", Cost::One, |args| whole(args, 1_000_000_000)),
    Overload::new("getMilliseconds", "duration::getMilliseconds() -> int", Cost::One, |args| whole(args, 1_000_000)),
];

fn whole<'a>(args: &[Value<'a>], unit: i64) -> Result<Value<'a>, EvalError> {
    match args.first() {
        Some(Value::Duration(nanos)) => Ok(Value::Int(nanos / unit)),
        _ => Err(EvalError::no_such_overload()),
    }
}
