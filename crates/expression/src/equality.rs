//! Equality and order of values.

use crate::collection::{List, Map, identity};
use crate::decl::ListType;
use crate::error::EvalError;
use crate::number;
use crate::value::Value;
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Shared parts make a small expression stand for a huge value: so many comparisons are made, no more.
const MAX_STEPS: u32 = 1_000_000;

/// `a == b`
pub(crate) fn equal(a: &Value<'_>, b: &Value<'_>) -> Result<bool, EvalError> {
    Steps(MAX_STEPS).equal(a, b)
}

struct Steps(u32);

impl Steps {
    fn equal(&mut self, a: &Value<'_>, b: &Value<'_>) -> Result<bool, EvalError> {
        self.0 = self.0.checked_sub(1).ok_or(EvalError::CostLimitExceeded)?;
        Ok(match (a, b) {
            (Value::Null, _) | (_, Value::Null) => a.is_null() && b.is_null(),
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::String(a), Value::String(b)) => **a == **b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Type(a), Value::Type(b)) => a == b,
            (Value::Opaque(a), Value::Opaque(b)) => a.equals(b.as_ref()),
            (Value::Optional(None), Value::Optional(None)) => true,
            (Value::Optional(Some(a)), Value::Optional(Some(b))) => return self.equal(a, b),
            (Value::List(a), Value::List(b)) => return self.lists(a, b),
            (Value::Map(a), Value::Map(b)) => return self.maps(a, b),
            (Value::List(a), _) if a.is_declared() => return Err(EvalError::no_such_overload()),
            (Value::Map(a), _) if a.is_declared() => return Err(EvalError::no_such_overload()),
            _ => number::compare(a, b) == Some(Ordering::Equal),
        })
    }

    fn lists(&mut self, a: &List<'_>, b: &List<'_>) -> Result<bool, EvalError> {
        if a.len() != b.len() {
            return Ok(false);
        }
        match a.list_type() {
            ListType::Atomic => {
                for (a, b) in a.iter().zip(b.iter()) {
                    if !self.equal(&a?, &b?)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            ListType::Set => {
                let all = a.iter().map(|item| identity(&item?, &ListType::Set)).collect::<Result<BTreeSet<_>, _>>()?;
                for item in b.iter() {
                    if !all.contains(&identity(&item?, &ListType::Set)?) {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            list_type => self.map_lists(a, b, list_type),
        }
    }

    fn map_lists(&mut self, a: &List<'_>, b: &List<'_>, list_type: &ListType) -> Result<bool, EvalError> {
        let mut all = std::collections::BTreeMap::new();
        for item in a.iter() {
            let item = item?;
            all.insert(identity(&item, list_type)?, item);
        }
        for item in b.iter() {
            let item = item?;
            match all.get(&identity(&item, list_type)?) {
                Some(same) if self.equal(same, &item)? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    fn maps(&mut self, a: &Map<'_>, b: &Map<'_>) -> Result<bool, EvalError> {
        if a.len() != b.len() || (a.type_name() != b.type_name()) {
            return Ok(false);
        }
        for key in a.keys() {
            match (a.get(&key)?, b.get(&key)?) {
                (Some(a), Some(b)) if self.equal(&a, &b)? => {}
                (None, None) => {}
                _ => return Ok(false),
            }
        }
        Ok(unknown_fields_equal(a, b))
    }
}

/// Fields that the schema does not know count for equality too.
fn unknown_fields_equal(a: &Map<'_>, b: &Map<'_>) -> bool {
    let (Map::Json(a, decl), Map::Json(b, _)) = (a, b) else { return true };
    let crate::decl::Kind::Object(object) = &decl.kind else { return true };
    let unknown = a.iter().filter(|(name, _)| {
        crate::escape::escape(name).is_none_or(|ident| !object.fields.contains_key(ident.as_ref()))
    });
    unknown.into_iter().all(|(name, value)| b.get(name).is_none_or(|other| other == value))
}

/// The order of two values that have one; `None` with NaN.
pub(crate) fn compare(a: &Value<'_>, b: &Value<'_>) -> Result<Option<Ordering>, EvalError> {
    Ok(Some(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => (**a).cmp(&**b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        _ if number::is_number(a) && number::is_number(b) => return Ok(number::compare(a, b)),
        _ => return Err(EvalError::no_such_overload()),
    }))
}
