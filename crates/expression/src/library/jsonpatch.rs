//! `jsonpatch.escapeKey`, for paths of JSON patches in mutations.

use super::{Overload, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::Value;

pub(super) static TABLE: &[Overload] =
    &[Overload::new("jsonpatch.escapeKey", "jsonpatch.escapeKey(string) -> string", Cost::Transform(1), escape_key)];

fn escape_key<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::text(text(args, 0)?.replace('~', "~0").replace('/', "~1")))
}
