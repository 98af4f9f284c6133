//! Arithmetic and comparison of numbers: overflow is an error, types mix in comparisons only.

use crate::error::EvalError;
use crate::value::Value;
use std::cmp::Ordering;

/// The two ends of `i64` as doubles: the lower is exact, the upper is one too many.
const TWO_63: f64 = 9_223_372_036_854_775_808.0;
const TWO_64: f64 = 18_446_744_073_709_551_616.0;

/// The whole number a double is.
pub(crate) fn exact_int(d: f64) -> Option<i64> {
    (d.fract() == 0.0 && (-TWO_63..TWO_63).contains(&d)).then_some(d as i64)
}

/// Compares two numbers of any types; `None` for what is no number, or is NaN.
pub(crate) fn compare(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Double(a), Value::Int(b)) => double_with(*a, i128::from(*b)),
        (Value::Double(a), Value::Uint(b)) => double_with(*a, i128::from(*b)),
        (Value::Int(a), Value::Double(b)) => double_with(*b, i128::from(*a)).map(Ordering::reverse),
        (Value::Uint(a), Value::Double(b)) => double_with(*b, i128::from(*a)).map(Ordering::reverse),
        _ => None,
    }
}

fn double_with(d: f64, i: i128) -> Option<Ordering> {
    match d {
        d if d.is_nan() => None,
        d if d < -TWO_63 => Some(Ordering::Less),
        d if d >= TWO_64 => Some(Ordering::Greater),
        d => Some((d.trunc() as i128).cmp(&i).then(d.fract().partial_cmp(&0.0)?)),
    }
}

/// A value that is a number.
pub(crate) fn is_number(value: &Value<'_>) -> bool {
    matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_))
}

/// An operation of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// Computes with two numbers of one type.
pub(crate) fn compute(op: Arithmetic, a: &Value<'_>, b: &Value<'_>) -> Result<Value<'static>, EvalError> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => int(op, *a, *b).map(Value::Int),
        (Value::Uint(a), Value::Uint(b)) => uint(op, *a, *b).map(Value::Uint),
        (Value::Double(a), Value::Double(b)) => double(op, *a, *b).map(Value::Double),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn int(op: Arithmetic, a: i64, b: i64) -> Result<i64, EvalError> {
    let result = match op {
        Arithmetic::Add => a.checked_add(b),
        Arithmetic::Subtract => a.checked_sub(b),
        Arithmetic::Multiply => a.checked_mul(b),
        Arithmetic::Divide if b == 0 => return Err(EvalError::new("division by zero")),
        Arithmetic::Divide => a.checked_div(b),
        Arithmetic::Modulo if b == 0 => return Err(EvalError::new("modulus by zero")),
        Arithmetic::Modulo => a.checked_rem(b),
    };
    result.ok_or_else(|| EvalError::new("integer overflow"))
}

fn uint(op: Arithmetic, a: u64, b: u64) -> Result<u64, EvalError> {
    let result = match op {
        Arithmetic::Add => a.checked_add(b),
        Arithmetic::Subtract => a.checked_sub(b),
        Arithmetic::Multiply => a.checked_mul(b),
        Arithmetic::Divide => return a.checked_div(b).ok_or_else(|| EvalError::new("division by zero")),
        Arithmetic::Modulo => return a.checked_rem(b).ok_or_else(|| EvalError::new("modulus by zero")),
    };
    result.ok_or_else(|| EvalError::new("unsigned integer overflow"))
}

fn double(op: Arithmetic, a: f64, b: f64) -> Result<f64, EvalError> {
    match op {
        Arithmetic::Add => Ok(a + b),
        Arithmetic::Subtract => Ok(a - b),
        Arithmetic::Multiply => Ok(a * b),
        Arithmetic::Divide => Ok(a / b),
        Arithmetic::Modulo => Err(EvalError::no_such_overload()),
    }
}

/// `-a`
pub(crate) fn negate(a: &Value<'_>) -> Result<Value<'static>, EvalError> {
    match a {
        Value::Int(i) => i.checked_neg().map(Value::Int).ok_or_else(|| EvalError::new("integer overflow")),
        Value::Double(d) => Ok(Value::Double(-d)),
        Value::Duration(d) => d.checked_neg().map(Value::Duration).ok_or_else(|| EvalError::new("integer overflow")),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// A double as a whole number, cut off; an error outside the range.
pub(crate) fn double_to_int(d: f64) -> Result<i64, EvalError> {
    // The end points cannot be told from what overflows, so they do.
    if d.is_nan() || d <= -TWO_63 || d >= TWO_63 { Err(EvalError::new("integer overflow")) } else { Ok(d as i64) }
}

/// A double as an unsigned whole number.
pub(crate) fn double_to_uint(d: f64) -> Result<u64, EvalError> {
    if (0.0..TWO_64).contains(&d) { Ok(d as u64) } else { Err(EvalError::new("unsigned integer overflow")) }
}

/// A double as Go prints it with `%g` and the fewest digits that keep it.
pub(crate) fn show_double(d: f64) -> String {
    if d.is_nan() {
        return "NaN".into();
    }
    if d.is_infinite() {
        return if d > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let scientific = format!("{d:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..21).contains(&exponent) {
        return format!("{d}");
    }
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons() {
        #[track_caller]
        fn check(a: &Value<'_>, b: &Value<'_>, expect: Option<Ordering>) {
            assert_eq!(compare(a, b), expect);
            assert_eq!(compare(b, a), expect.map(Ordering::reverse));
        }
        check(&Value::Int(-1), &Value::Uint(u64::MAX), Some(Ordering::Less));
        check(&Value::Double(1.5), &Value::Int(1), Some(Ordering::Greater));
        check(&Value::Double(-1.5), &Value::Int(-1), Some(Ordering::Less));
        check(&Value::Double(2.0), &Value::Uint(2), Some(Ordering::Equal));
        check(&Value::Double(1e300), &Value::Uint(u64::MAX), Some(Ordering::Greater));
        check(&Value::Double(f64::NAN), &Value::Int(0), None);
    }

    #[test]
    fn doubles_as_text() {
        for (d, expect) in
            [(1.0, "1"), (0.1, "0.1"), (1e21, "1e+21"), (1e-5, "1e-05"), (123456789.0, "123456789"), (-2.5, "-2.5")]
        {
            assert_eq!(show_double(d), expect);
        }
    }
}
