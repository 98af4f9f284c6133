//! Bounds of numbers.

use super::Bounds;
use api::Cause;
use serde_json::{Value, json};

/// A whole number, also when it is written with a fraction of zero.
pub(super) fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.is_finite() && n.fract() == 0.0)
}

/// Checks a number.
pub(super) fn validate(bounds: &Bounds, value: &Value, path: &str, out: &mut Vec<Cause>) {
    let Some(number) = value.as_f64() else { return };
    let mut invalid = |value: &Value, text: String| out.push(Cause::invalid(path, value, &text));
    if let Some(factor) = bounds.multiple_of {
        match value.as_i64() {
            // Go divides integers by the factor cut to an integer.
            Some(number) => match factor as i64 {
                whole @ ..=0 => {
                    invalid(&json!(whole), format!("factor MultipleOf declared for {path} must be positive: {whole}"));
                }
                whole if number % whole != 0 => {
                    invalid(value, format!("{path} in body should be a multiple of {}", text(factor)));
                }
                _ => {}
            },
            None if !is_multiple(number, factor) => {
                invalid(value, format!("{path} in body should be a multiple of {}", text(factor)));
            }
            None => {}
        }
    }
    if let Some(max) = bounds.maximum {
        match bounds.exclusive_maximum {
            true if number >= max => invalid(value, format!("{path} in body should be less than {}", text(max))),
            false if number > max => {
                invalid(value, format!("{path} in body should be less than or equal to {}", text(max)));
            }
            _ => {}
        }
    }
    if let Some(min) = bounds.minimum {
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
    let quotient = if factor < 1.0 { 1.0 / factor * number } else { number / factor };
    let (whole, off) = (quotient.round(), (quotient - quotient.round()).abs());
    quotient == whole || off < EPSILON * (quotient.abs() + whole.abs()).min(f64::MAX)
}

fn text(number: f64) -> String {
    number.to_string()
}
