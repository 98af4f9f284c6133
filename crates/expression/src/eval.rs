//! Evaluation: walks the operations, charging for each.
//!
//! A failed operation is an error value to `&&` and `||`, which pass over it when the other side decides; a spent budget
//! ends everything.

use crate::bindings::Bindings;
use crate::collection::{Key, Map, Struct};
use crate::cost;
use crate::error::EvalError;
use crate::plan::{Invocation, Op, common_cost, row_for, unfit};
use crate::value::Value;
use crate::{equality, number};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) type Outcome<'a> = Result<Value<'a>, EvalError>;

/// The state of an evaluation.
pub(crate) struct Evaluator<'a, 'b> {
    bindings: &'b Bindings<'a>,
    /// The variables of the macros around.
    pub locals: Vec<Value<'a>>,
    cost: u64,
    /// What fields of `variables` cost: it counts, but not against this expression's budget.
    composed: u64,
    budget: u64,
}

impl<'a, 'b> Evaluator<'a, 'b> {
    pub fn new(bindings: &'b Bindings<'a>, budget: u64) -> Self {
        Self { bindings, locals: Vec::new(), cost: 0, composed: 0, budget }
    }

    pub fn total(&self) -> u64 {
        self.cost.saturating_add(self.composed)
    }

    /// What has been spent of the budget.
    pub fn spent(&self) -> u64 {
        self.cost
    }

    pub fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.budget { Err(EvalError::CostLimitExceeded) } else { Ok(()) }
    }

    pub fn run(&mut self, op: &'a Op) -> Outcome<'a> {
        match op {
            Op::Const(value) => Ok(value.clone()),
            Op::Variable { name, charged } => self.variable(name, *charged),
            Op::Local { place, charged } => {
                self.charge(u64::from(*charged))?;
                Ok(self.locals.get(*place).cloned().unwrap_or_default())
            }
            Op::Composed { name, charged } => self.composed(name, *charged),
            Op::Select { operand, field, optional, charged } => self.select(operand, field, *optional, *charged),
            Op::Has { operand, field } => self.has(operand, field),
            Op::Index { operand, index, optional, charged } => self.index(operand, index, *optional, *charged),
            Op::And(terms) => self.logic(terms, false),
            Op::Or(terms) => self.logic(terms, true),
            Op::Conditional(three) => self.conditional(three),
            Op::InConstants { value, list } => {
                let value = self.run(value)?;
                Ok(Value::Bool(list.iter().flatten().any(|item| equality::equal(&item, &value).unwrap_or(false))))
            }
            Op::Call(invocation) => self.call(invocation),
            Op::OptionalOr { first, second, value } => self.optional_or(first, second, *value),
            Op::List(elements) => self.list(elements),
            Op::Map(entries) => self.map(entries),
            Op::Struct { name, fields } => self.object(name, fields),
            Op::Fold(fold) => self.fold(fold),
        }
    }

    fn variable(&mut self, name: &str, charged: bool) -> Outcome<'a> {
        self.charge(u64::from(charged))?;
        let value = self.bindings.get(name);
        value.cloned().ok_or_else(|| EvalError::new(format!("no such attribute(s): {name}")))
    }

    fn composed(&mut self, name: &str, charged: bool) -> Outcome<'a> {
        self.charge(cost::SELECT + u64::from(charged))?;
        let (value, cost) = self.bindings.variable(name);
        self.composed = self.composed.saturating_add(cost);
        value
    }

    fn select(&mut self, operand: &'a Op, field: &'a str, optional: bool, charged: bool) -> Outcome<'a> {
        let target = self.run(operand)?;
        self.charge(u64::from(charged))?;
        match target {
            Value::Map(map) if !optional => {
                self.charge(cost::SELECT)?;
                map.find(field)?.ok_or_else(|| EvalError::no_such_key(field))
            }
            Value::Map(map) => self.maybe(map.find(field)?),
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => self.maybe(present(&inner, field)?),
            _ if optional => Ok(Value::Optional(None)),
            other => {
                self.charge(cost::SELECT)?;
                Err(match other {
                    Value::List(_) => EvalError::new("unsupported index type 'string' in list"),
                    _ => EvalError::no_such_key(field),
                })
            }
        }
    }

    /// What an optional step leads to; a step to nothing is free.
    fn maybe(&mut self, found: Option<Value<'a>>) -> Outcome<'a> {
        self.charge(if found.is_some() { cost::SELECT } else { 0 })?;
        Ok(Value::optional(found))
    }

    fn has(&mut self, operand: &'a Op, field: &str) -> Outcome<'a> {
        let found = match self.run(operand)? {
            Value::Map(map) => map.find(field)?.is_some(),
            Value::Optional(Some(inner)) => present(&inner, field)?.is_some(),
            _ => false,
        };
        self.charge(cost::SELECT)?;
        Ok(Value::Bool(found))
    }

    fn index(&mut self, operand: &'a Op, index: &'a Op, optional: bool, charged: bool) -> Outcome<'a> {
        let target = self.run(operand)?;
        let index = self.run(index)?;
        self.charge(u64::from(charged))?;
        match target {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => self.maybe(element(&inner, &index)?),
            other if optional => self.maybe(element(&other, &index)?),
            other => {
                self.charge(cost::SELECT)?;
                element(&other, &index)?.ok_or_else(|| missing(&other, &index))
            }
        }
    }

    /// `&&` (an operand `false` decides) and `||` (`true` does).
    fn logic(&mut self, terms: &'a [Op], decisive: bool) -> Outcome<'a> {
        let mut failed = None;
        for term in terms {
            match self.run(term) {
                Ok(Value::Bool(b)) if b == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or(Some(EvalError::no_such_overload())),
                Err(error) if error.is_absorbable() => failed = failed.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn conditional(&mut self, three: &'a [Op; 3]) -> Outcome<'a> {
        match self.run(&three[0])? {
            Value::Bool(true) => self.run(&three[1]),
            Value::Bool(false) => self.run(&three[2]),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn call(&mut self, invocation: &'a Invocation) -> Outcome<'a> {
        match invocation.args.as_slice() {
            [] => self.invoke(invocation, &[]),
            [a] => match self.run(a) {
                Ok(a) => self.invoke(invocation, &[a]),
                Err(error) => self.failed(invocation, error, Ok(Value::Null)),
            },
            [a, b] => match (self.run(a), self.run(b)) {
                (Ok(a), Ok(b)) => self.invoke(invocation, &[a, b]),
                (Err(error), other) | (other, Err(error)) => self.failed(invocation, error, other),
            },
            more => {
                let args = more.iter().map(|arg| self.run(arg)).collect::<Result<Vec<_>, _>>()?;
                self.invoke(invocation, &args)
            }
        }
    }

    /// A call with an operand that failed. It is charged, as if that operand had no size.
    fn failed(&mut self, invocation: &'a Invocation, error: EvalError, other: Outcome<'a>) -> Outcome<'a> {
        match (error.is_absorbable(), other) {
            (true, Err(EvalError::CostLimitExceeded)) => Err(EvalError::CostLimitExceeded),
            (false, _) => Err(error),
            (true, other) => {
                let args = [other.unwrap_or_default(), Value::Null];
                self.charge(cost::charge(common_cost(&invocation.rows), &args, Some(&Value::Null)))?;
                Err(error)
            }
        }
    }

    fn invoke(&mut self, invocation: &'a Invocation, args: &[Value<'a>]) -> Outcome<'a> {
        let (call, rule) = match invocation.direct {
            Some(call) => (call, common_cost(&invocation.rows)),
            None => {
                let row = row_for(&invocation.rows, args).ok_or_else(|| unfit(invocation, args))?;
                (row.overload.call, row.overload.cost)
            }
        };
        if cost::is_late(rule) {
            let value = call(args)?;
            self.charge(cost::charge(rule, args, Some(&value)))?;
            return Ok(value);
        }
        // Charged first, so that no work is done that the budget does not cover.
        self.charge(cost::charge(rule, args, None))?;
        call(args)
    }

    fn optional_or(&mut self, first: &'a Op, second: &'a Op, value: bool) -> Outcome<'a> {
        match self.run(first)? {
            Value::Optional(Some(inner)) if value => Ok(Value::clone(&inner)),
            some @ Value::Optional(Some(_)) => Ok(some),
            Value::Optional(None) => self.run(second),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn list(&mut self, elements: &'a [(Op, bool)]) -> Outcome<'a> {
        let mut values = Vec::with_capacity(elements.len());
        for (op, optional) in elements {
            match (self.run(op)?, optional) {
                (value, false) => values.push(value),
                (Value::Optional(None), true) => {}
                (Value::Optional(Some(value)), true) => values.push(Value::clone(&value)),
                (value, true) => return Err(not_optional("element", &value)),
            }
        }
        self.charge(cost::LIST)?;
        Ok(Value::list(values))
    }

    fn map(&mut self, entries: &'a [(Op, Op, bool)]) -> Outcome<'a> {
        let mut out = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.run(key)?;
            let value = match (self.run(value)?, optional) {
                (value, false) => value,
                (Value::Optional(None), true) => continue,
                (Value::Optional(Some(value)), true) => Value::clone(&value),
                (value, true) => return Err(not_optional("entry", &value)),
            };
            // Of entries with one key the last counts.
            out.insert(map_key(&key)?, value);
        }
        self.charge(cost::MAP)?;
        Ok(Value::Map(Map::values(out)))
    }

    fn object(&mut self, name: &Arc<str>, fields: &'a [(Arc<str>, Op, bool)]) -> Outcome<'a> {
        let mut out = BTreeMap::new();
        for (field, op, optional) in fields {
            match (self.run(op)?, optional) {
                (value, false) => drop(out.insert(Arc::clone(field), value)),
                (Value::Optional(None), true) => {}
                (Value::Optional(Some(value)), true) => drop(out.insert(Arc::clone(field), Value::clone(&value))),
                (value, true) => return Err(not_optional("field", &value)),
            }
        }
        self.charge(cost::STRUCT)?;
        Ok(Value::Map(Map::Struct(Arc::new(Struct { name: Arc::clone(name), fields: out }))))
    }
}

fn map_key<'a>(key: &Value<'a>) -> Result<Key<'a>, EvalError> {
    Key::new(key).ok_or_else(|| EvalError::new(format!("unsupported key type: {}", key.type_name())))
}

/// Puts an entry into a map that a macro makes.
pub(crate) fn insert<'a>(
    map: &mut BTreeMap<Key<'a>, Value<'a>>,
    key: &Value<'a>,
    value: Value<'a>,
) -> Result<(), EvalError> {
    match map.insert(map_key(key)?, value) {
        None => Ok(()),
        Some(_) => Err(EvalError::new(format!("insert failed: key {} already exists", shown(key)))),
    }
}

fn not_optional(what: &str, value: &Value<'_>) -> EvalError {
    EvalError::new(format!("cannot initialize optional {what} from non-optional value {}", shown(value)))
}

/// A field that may be absent.
fn present<'a>(value: &Value<'a>, field: &str) -> Result<Option<Value<'a>>, EvalError> {
    match value {
        Value::Map(map) => map.find(field),
        Value::Optional(Some(inner)) => present(inner, field),
        _ => Ok(None),
    }
}

fn element<'a>(target: &Value<'a>, index: &Value<'_>) -> Result<Option<Value<'a>>, EvalError> {
    match target {
        Value::Map(map) => map.get(index),
        Value::List(list) => {
            let place = match index {
                Value::Int(i) => *i,
                Value::Uint(u) => i64::try_from(*u).unwrap_or(-1),
                Value::Double(d) => number::exact_int(*d)
                    .ok_or_else(|| EvalError::new(format!("unsupported index value {d} in list")))?,
                other => return Err(EvalError::new(format!("unsupported index type '{}' in list", other.type_name()))),
            };
            usize::try_from(place).ok().and_then(|place| list.get(place)).transpose()
        }
        Value::Optional(Some(inner)) => element(inner, index),
        _ => Ok(None),
    }
}

fn missing(target: &Value<'_>, index: &Value<'_>) -> EvalError {
    match target {
        Value::List(_) => EvalError::new(format!("index out of bounds: {}", shown(index))),
        _ => EvalError::no_such_key(shown(index)),
    }
}

/// A scalar as error texts show it.
pub(crate) fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Uint(u) => u.to_string(),
        Value::Double(d) => number::show_double(*d),
        Value::String(text) => text.to_string(),
        other => other.type_name().to_owned(),
    }
}
