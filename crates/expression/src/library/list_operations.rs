//! cel-go's functions that make lists of lists: `slice`, `flatten`, `sort`, `reverse`, `distinct`, `lists.range`.

use super::lists::list;
use super::{Overload, int};
use crate::collection::List;
use crate::cost::Cost;
use crate::equality;
use crate::error::EvalError;
use crate::value::Value;
use std::cmp::Ordering;

macro_rules! sorts {
    ([$($element:literal),*]) => {
        &[$(
            Overload::new("sort", concat!("list(", $element, ")::sort() -> list(", $element, ")"), Cost::Pairs(0), sort),
            Overload::new(
                "@sortByAssociatedKeys",
                concat!("list(T)::@sortByAssociatedKeys(list(", $element, ")) -> list(T)"),
                Cost::Pairs(1),
                sort_by_keys,
            ),
        )*]
    };
}

pub(super) static SORTS: &[Overload] =
    sorts!(["int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes"]);
pub(super) static TABLE: &[Overload] = &[
    Overload::new("slice", "list(T)::slice(int, int) -> list(T)", Cost::Slice, slice),
    Overload::new("flatten", "list(list(T))::flatten() -> list(T)", Cost::Flatten, flatten),
    Overload::new("flatten", "list(dyn)::flatten(int) -> list(dyn)", Cost::Flatten, flatten),
    Overload::new("lists.range", "lists.range(int) -> list(int)", Cost::Range, range),
    Overload::new("reverse", "list(T)::reverse() -> list(T)", Cost::Copy, reverse),
    Overload::new("distinct", "list(T)::distinct() -> list(T)", Cost::Pairs(0), distinct),
];

/// The longest list that is made at once; longer ones cost more than any budget.
const MAX_LENGTH: usize = 2_000_000;

fn slice<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let list = list(args, 0)?;
    let (start, end) = (int(args, 1)?, int(args, 2)?);
    let wrong = |why: &str| EvalError::new(format!("cannot slice({start}, {end}), {why}"));
    let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end)) else {
        return Err(wrong("negative indexes not supported"));
    };
    if from > to {
        return Err(wrong("start index must be less than or equal to end index"));
    }
    if list.len() < to {
        return Err(wrong(&format!("list is length {}", list.len())));
    }
    (from..to).filter_map(|index| list.get(index)).collect::<Result<_, _>>().map(Value::list)
}

fn flatten<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let depth = if args.len() > 1 { int(args, 1)? } else { 1 };
    if depth < 0 {
        return Err(EvalError::new("level must be non-negative"));
    }
    let mut out = Vec::new();
    flatten_into(&mut out, list(args, 0)?, depth)?;
    Ok(Value::list(out))
}

fn flatten_into<'a>(out: &mut Vec<Value<'a>>, list: &List<'a>, depth: i64) -> Result<(), EvalError> {
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => flatten_into(out, &inner, depth - 1)?,
            other => out.push(other),
        }
        if out.len() > MAX_LENGTH {
            return Err(EvalError::CostLimitExceeded);
        }
    }
    Ok(())
}

fn range<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let length = int(args, 0)?.max(0);
    if usize::try_from(length).map_or(true, |length| length > MAX_LENGTH) {
        return Err(EvalError::CostLimitExceeded);
    }
    Ok(Value::list((0..length).map(Value::Int).collect()))
}

fn reverse<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let list = list(args, 0)?;
    (0..list.len()).rev().filter_map(|index| list.get(index)).collect::<Result<_, _>>().map(Value::list)
}

fn sort<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let list = list(args, 0)?;
    by_keys(list, list)
}

pub(crate) fn sort_by_keys<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    by_keys(list(args, 0)?, list(args, 1)?)
}

fn by_keys<'a>(list: &List<'a>, keys: &List<'a>) -> Result<Value<'a>, EvalError> {
    if list.len() != keys.len() {
        let (items, keys) = (list.len(), keys.len());
        return Err(EvalError::new(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {items} and {keys} elements respectively"
        )));
    }
    let mut pairs =
        keys.iter().zip(list.iter()).map(|(key, item)| Ok((key?, item?))).collect::<Result<Vec<_>, EvalError>>()?;
    if let Some((first, _)) = pairs.first()
        && pairs.iter().any(|(key, _)| key.type_name() != first.type_name())
    {
        return Err(EvalError::new("list elements must have the same type"));
    }
    let mut failed = None;
    pairs.sort_by(|(a, _), (b, _)| match equality::compare(a, b) {
        Ok(order) => order.unwrap_or(Ordering::Equal),
        Err(_) => {
            failed = Some(EvalError::new("list elements must be comparable"));
            Ordering::Equal
        }
    });
    failed.map_or_else(|| Ok(Value::list(pairs.into_iter().map(|(_, item)| item).collect())), Err)
}

fn distinct<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let mut out: Vec<Value<'a>> = Vec::new();
    for item in list(args, 0)?.iter() {
        let item = item?;
        if !out.iter().any(|known| equality::equal(&item, known).unwrap_or(false)) {
            out.push(item);
        }
    }
    Ok(Value::list(out))
}
