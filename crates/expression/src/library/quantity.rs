//! Quantities: `quantity('1Gi')`.

use super::{Overload, int, opaque, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Opaque, Value};
use api::quantity::{Format, Quantity};
use std::any::Any;

pub(super) static TABLE: &[Overload] = &[
    Overload::new("quantity", "quantity(string) -> kubernetes.Quantity", Cost::Traversal(1), quantity),
    Overload::new("isQuantity", "isQuantity(string) -> bool", Cost::Traversal(1), is_quantity),
    Overload::new("sign", "sign(kubernetes.Quantity) -> int", Cost::One, sign),
    Overload::new(
        "isGreaterThan",
        "kubernetes.Quantity::isGreaterThan(kubernetes.Quantity) -> bool",
        Cost::One,
        is_greater_than,
    ),
    Overload::new(
        "isLessThan",
        "kubernetes.Quantity::isLessThan(kubernetes.Quantity) -> bool",
        Cost::One,
        is_less_than,
    ),
    Overload::new("compareTo", "kubernetes.Quantity::compareTo(kubernetes.Quantity) -> int", Cost::One, compare_to),
    Overload::new(
        "asApproximateFloat",
        "kubernetes.Quantity::asApproximateFloat() -> double",
        Cost::One,
        as_approximate_float,
    ),
    Overload::new("asInteger", "kubernetes.Quantity::asInteger() -> int", Cost::One, as_integer),
    Overload::new("isInteger", "kubernetes.Quantity::isInteger() -> bool", Cost::One, is_integer),
    Overload::new("add", "kubernetes.Quantity::add(kubernetes.Quantity) -> kubernetes.Quantity", Cost::One, add),
    Overload::new("add", "kubernetes.Quantity::add(int) -> kubernetes.Quantity", Cost::One, add),
    Overload::new("sub", "kubernetes.Quantity::sub(kubernetes.Quantity) -> kubernetes.Quantity", Cost::One, sub),
    Overload::new("sub", "kubernetes.Quantity::sub(int) -> kubernetes.Quantity", Cost::One, sub),
];

#[derive(Debug)]
struct Amount(Quantity);

impl Opaque for Amount {
    fn type_name(&self) -> &'static str {
        "kubernetes.Quantity"
    }

    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| other.0 == self.0)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn text(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

/// A quantity as a value, for callers whose data hold quantities.
pub fn value(quantity: Quantity) -> Value<'static> {
    Value::opaque(Amount(quantity))
}

fn get(args: &[Value<'_>], index: usize) -> Result<Quantity, EvalError> {
    opaque::<Amount>(args, index).map(|amount| amount.0)
}

fn quantity<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Quantity::parse(text(args, 0)?).map(value).map_err(|error| EvalError::new(error.to_string()))
}

fn is_quantity<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(Quantity::parse(text(args, 0)?).is_ok()))
}

fn sign<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Int(get(args, 0)?.sign().into()))
}

fn is_greater_than<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(get(args, 0)? > get(args, 1)?))
}

fn is_less_than<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(get(args, 0)? < get(args, 1)?))
}

fn compare_to<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Int(get(args, 0)?.cmp(&get(args, 1)?) as i64))
}

fn as_approximate_float<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Double(get(args, 0)?.as_f64()))
}

/// The whole number a quantity is, where it fits. The largest number stands for all that do not.
fn whole(quantity: Quantity) -> Option<i64> {
    let number = quantity.value();
    let exact = quantity.is_whole() && Quantity::from_units(number, quantity.format()) == quantity;
    (exact && number != i64::MAX).then_some(number)
}

fn as_integer<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    whole(get(args, 0)?).map(Value::Int).ok_or_else(|| EvalError::new("cannot convert value to integer"))
}

fn is_integer<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(whole(get(args, 0)?).is_some()))
}

fn other(args: &[Value<'_>]) -> Result<Quantity, EvalError> {
    get(args, 1).or_else(|_| int(args, 1).map(|units| Quantity::from_units(units, Format::DecimalExponent)))
}

fn add<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(value(get(args, 0)?.plus(&other(args)?)))
}

fn sub<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(value(get(args, 0)?.minus(&other(args)?)))
}
