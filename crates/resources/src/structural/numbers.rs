//! Bounds of numbers.

use super::Bounds;
use api::{Cause, CauseType};
use serde_json::{Value, json};

/// Up to here floats tell whole numbers apart.
const EXACT_MAX: f64 = 9_007_199_254_740_991.0;

/// A whole number, also when it is written with a fraction of zero.
pub(super) fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.abs() <= EXACT_MAX && n.fract() == 0.0)
}

/// `Invalid value` with a value as Go's `%v` prints it: a float without a fraction of zero, from 1e6 on with an exponent.
pub(super) fn invalid(path: &str, value: &Value, why: &str) -> Cause {
    match value.as_f64().filter(|_| value.is_f64()) {
        Some(number) => Cause {
            kind: CauseType::FieldValueInvalid,
            field: path.to_owned(),
            message: format!("Invalid value: {}: {why}", go_float(number)),
        },
        None => Cause::invalid(path, value, why),
    }
}

/// A float as Go's `%v` prints it.
pub(super) fn go_float(number: f64) -> String {
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        small @ ..-4 => format!("{digits}e-{:02}", -small),
        large @ 6.. => format!("{digits}e+{large:02}"),
        _ => number.to_string(),
    }
}

/// Checks a number.
pub(super) fn validate(bounds: &Bounds, value: &Value, path: &str, out: &mut Vec<Cause>) {
    let Some(number) = value.as_f64() else { return };
    // A whole number is compared with bounds cut to whole ones.
    let bound = |bound: Option<f64>| bound.map(|b| if value.is_f64() { b } else { b.trunc() });
    let mut invalid = |value: &Value, text: String| out.push(self::invalid(path, value, &text));
    if let Some(factor) = bounds.multiple_of {
        match value.as_i64() {
            // Go divides integers by the factor cut to an integer.
            Some(number) => match factor as i64 {
                whole @ ..=0 => {
                    invalid(&json!(whole), format!("factor MultipleOf declared for {path} must be positive: {whole}"));
                }
                whole if number % whole != 0 => {
                    invalid(value, format!("{path} in body should be a multiple of {whole}"));
                }
                _ => {}
            },
            None if !is_multiple(number, factor) => {
                invalid(value, format!("{path} in body should be a multiple of {}", text(factor)));
            }
            None => {}
        }
    }
    if let Some(max) = bound(bounds.maximum) {
        match bounds.exclusive_maximum {
            true if number >= max => invalid(value, format!("{path} in body should be less than {}", text(max))),
            false if number > max => {
                invalid(value, format!("{path} in body should be less than or equal to {}", text(max)));
            }
            _ => {}
        }
    }
    if let Some(min) = bound(bounds.minimum) {
        match bounds.exclusive_minimum {
            true if number <= min => invalid(value, format!("{path} in body should be greater than {}", text(min))),
            false if number < min => {
                invalid(value, format!("{path} in body should be greater than or equal to {}", text(min)));
            }
            _ => {}
        }
    }
}

/// Whether a quotient is whole but for the noise of floats, as upstream's validator takes it.
fn is_multiple(number: f64, factor: f64) -> bool {
    const EPSILON: f64 = 1e-9;
    // What is too large to tell is no multiple.
    let quotient = if factor < 1.0 { 1.0 / factor * number } else { number / factor };
    let (whole, off) = (quotient.round(), (quotient - quotient.round()).abs());
    quotient.abs() <= EXACT_MAX && (quotient == whole || off < EPSILON * (quotient.abs() + whole.abs()).min(f64::MAX))
}

fn text(number: f64) -> String {
    number.to_string()
}
