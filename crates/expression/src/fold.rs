//! The macros that go through lists and maps, charged as the loops upstream makes of them.

use crate::ast::FoldKind;
use crate::collection::Map;
use crate::cost::{self, Cost};
use crate::error::EvalError;
use crate::eval::{Evaluator, Outcome, insert};
use crate::library::list_operations;
use crate::plan::{FoldOp, Op};
use crate::value::Value;
use std::collections::BTreeMap;

/// What upstream's loops cost beside their bodies: the condition before each step, the step, the result.
struct Overhead {
    condition: u64,
    step: u64,
    result: u64,
}

fn overhead(kind: FoldKind) -> Overhead {
    let (condition, step, result) = match kind {
        FoldKind::All => (2, 1, 1),
        FoldKind::Exists => (3, 1, 1),
        FoldKind::ExistsOne => (0, 0, 2),
        _ => (0, 0, 1),
    };
    Overhead { condition, step, result }
}

/// What is gone through: pairs of first and second variable.
enum Range<'a> {
    List(crate::collection::List<'a>),
    Map(Map<'a>, Vec<Value<'a>>),
}

impl<'a> Range<'a> {
    fn len(&self) -> usize {
        match self {
            Self::List(list) => list.len(),
            Self::Map(_, keys) => keys.len(),
        }
    }

    /// The variables' values of one step.
    fn step(&self, index: usize, two: bool) -> Result<(Value<'a>, Option<Value<'a>>), EvalError> {
        match self {
            Self::List(list) => {
                let element =
                    list.get(index).unwrap_or_else(|| Err(EvalError::new(format!("index out of bounds: {index}"))))?;
                Ok(if two { (Value::Int(index as i64), Some(element)) } else { (element, None) })
            }
            Self::Map(map, keys) => {
                let key = keys.get(index).cloned().unwrap_or_default();
                let value = if two { Some(map.get(&key)?.unwrap_or_default()) } else { None };
                Ok((key, value))
            }
        }
    }
}

impl<'a> Evaluator<'a, '_> {
    pub(crate) fn fold(&mut self, fold: &'a FoldOp) -> Outcome<'a> {
        let before = self.spent();
        let range = self.run(&fold.range)?;
        match fold.kind {
            FoldKind::Bind => return self.with(range, None, &fold.body),
            FoldKind::OptMap | FoldKind::OptFlatMap => {
                let again = self.spent() - before;
                return self.optional_map(fold, range, again);
            }
            _ => {}
        }
        let range = match range {
            Value::List(list) => Range::List(list),
            Value::Map(map) => {
                let keys = map.keys();
                Range::Map(map, keys)
            }
            other => return Err(not_iterable(&other, fold.two)),
        };
        let value = match fold.kind {
            FoldKind::All => self.quantify(fold, &range, false),
            FoldKind::Exists => self.quantify(fold, &range, true),
            FoldKind::ExistsOne => self.exists_one(fold, &range),
            FoldKind::Map | FoldKind::Filter => self.collect(fold, &range),
            FoldKind::SortBy => self.sort_by(fold, &range),
            _ => self.collect_map(fold, &range),
        }?;
        self.charge(overhead(fold.kind).result)?;
        Ok(value)
    }

    /// Runs an operation with variables bound.
    fn with(&mut self, first: Value<'a>, second: Option<Value<'a>>, op: &'a Op) -> Outcome<'a> {
        let depth = self.locals.len();
        self.locals.push(first);
        self.locals.extend(second);
        let outcome = self.run(op);
        self.locals.truncate(depth);
        outcome
    }

    /// `all` (an element `false` decides) and `exists` (`true` does).
    fn quantify(&mut self, fold: &'a FoldOp, range: &Range<'a>, decisive: bool) -> Outcome<'a> {
        let overhead = overhead(fold.kind);
        let mut failed = None;
        for index in 0..range.len() {
            self.charge(overhead.condition + overhead.step)?;
            let outcome = range.step(index, fold.two).and_then(|(first, second)| self.with(first, second, &fold.body));
            match outcome {
                Ok(Value::Bool(b)) if b == decisive => {
                    // Upstream looks at the condition once more before it stops.
                    let more = index + 1 < range.len();
                    self.charge(if more { overhead.condition } else { 0 })?;
                    return Ok(Value::Bool(decisive));
                }
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or(Some(EvalError::no_such_overload())),
                Err(error) if error.is_absorbable() => failed = failed.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn exists_one(&mut self, fold: &'a FoldOp, range: &Range<'a>) -> Outcome<'a> {
        let mut count = 0u64;
        for index in 0..range.len() {
            let (first, second) = range.step(index, fold.two)?;
            match self.with(first, second, &fold.body)? {
                Value::Bool(true) => {
                    self.charge(2)?;
                    count += 1;
                }
                Value::Bool(false) => {}
                _ => return Err(EvalError::no_such_overload()),
            }
        }
        Ok(Value::Bool(count == 1))
    }

    /// Whether the element is taken, for macros with a filter.
    fn taken(&mut self, fold: &'a FoldOp, first: &Value<'a>, second: Option<&Value<'a>>) -> Result<bool, EvalError> {
        let Some(filter) = &fold.filter else { return Ok(true) };
        match self.with(first.clone(), second.cloned(), filter)? {
            Value::Bool(taken) => Ok(taken),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn collect(&mut self, fold: &'a FoldOp, range: &Range<'a>) -> Outcome<'a> {
        let mut out = Vec::new();
        // The list of one element that each step makes is free where it is constant.
        let made = if fold.kind != FoldKind::Filter && matches!(fold.body, Op::Const(_)) { 0 } else { cost::LIST };
        for index in 0..range.len() {
            let (first, second) = range.step(index, fold.two)?;
            if fold.kind == FoldKind::Filter {
                match self.with(first.clone(), None, &fold.body)? {
                    Value::Bool(true) => {
                        self.charge(made + 3)?;
                        out.push(first);
                    }
                    Value::Bool(false) => {}
                    _ => return Err(EvalError::no_such_overload()),
                }
            } else if self.taken(fold, &first, second.as_ref())? {
                self.charge(made + 2)?;
                out.push(self.with(first, second, &fold.body)?);
            }
        }
        Ok(Value::list(out))
    }

    fn sort_by(&mut self, fold: &'a FoldOp, range: &Range<'a>) -> Outcome<'a> {
        let Range::List(list) = range else { return Err(EvalError::no_such_overload()) };
        let keys = self.collect(fold, range)?;
        // The list is named twice, the result of the loop once.
        self.charge(2)?;
        let args = [Value::List(list.clone()), keys];
        self.charge(cost::charge(Cost::Pairs(1), &args, None))?;
        list_operations::sort_by_keys(&args)
    }

    fn collect_map(&mut self, fold: &'a FoldOp, range: &Range<'a>) -> Outcome<'a> {
        let mut out = BTreeMap::new();
        for index in 0..range.len() {
            let (first, second) = range.step(index, fold.two)?;
            if !self.taken(fold, &first, second.as_ref())? {
                continue;
            }
            let value = self.with(first.clone(), second, &fold.body)?;
            if fold.kind == FoldKind::TransformMap {
                self.charge(3)?;
                insert(&mut out, &first, value)?;
                continue;
            }
            self.charge(2)?;
            let Value::Map(entries) = value else { return Err(EvalError::no_such_overload()) };
            for key in entries.keys() {
                let value = entries.get(&key)?.unwrap_or_default();
                insert(&mut out, &key, value)?;
            }
        }
        Ok(Value::Map(Map::values(out)))
    }

    /// `optMap` and `optFlatMap`; `again` is the price of the target, which upstream evaluates twice.
    fn optional_map(&mut self, fold: &'a FoldOp, target: Value<'a>, again: u64) -> Outcome<'a> {
        // `hasValue()`, then `optional.none()` or `value()` and `optional.of()`.
        self.charge(2)?;
        match target {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => {
                self.charge(again)?;
                let flat = fold.kind == FoldKind::OptFlatMap;
                self.charge(u64::from(!flat))?;
                let value = self.with(Value::clone(&inner), None, &fold.body)?;
                Ok(if flat { value } else { Value::optional(Some(value)) })
            }
            _ => Err(EvalError::no_such_overload()),
        }
    }
}

fn not_iterable(value: &Value<'_>, two: bool) -> EvalError {
    let name = match value {
        Value::Null => "types.Null",
        Value::Bool(_) => "types.Bool",
        Value::Int(_) => "types.Int",
        Value::Uint(_) => "types.Uint",
        Value::Double(_) => "types.Double",
        Value::String(_) => "types.String",
        Value::Bytes(_) => "types.Bytes",
        Value::Timestamp(_) => "types.Timestamp",
        Value::Duration(_) => "types.Duration",
        Value::Optional(_) => "*types.Optional",
        other => other.type_name(),
    };
    match two {
        true => EvalError::new(format!("unsupported comprehension range type: {name}")),
        false => EvalError::new(format!("got '{name}', expected iterable type")),
    }
}
