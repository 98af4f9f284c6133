//! How much of a shared device's capacity a request may ask for.

use crate::core::quantities::quantity;
use crate::field::{Errors, Fields, Path, repeated};
use api::quantity::Quantity;
use serde_json::Value;

const OPTIONS_MAX: usize = 10;

/// Errors of the policy of a capacity; only a device that can be allocated several times has one.
pub(super) fn check(errors: &mut Errors, capacity: &Value, shared: bool, path: &Path<'_>) {
    let policy = capacity.at("requestPolicy");
    match (policy.is_null(), shared) {
        (true, _) => {}
        (false, false) => errors.forbidden(path, "allowMultipleAllocations must be true"),
        (false, true) => self::policy(errors, policy, &quantity(capacity.at("value")), path),
    }
}

fn policy(errors: &mut Errors, policy: &Value, capacity: &Quantity, path: &Path<'_>) {
    let (values, range) = (policy.list("validValues"), policy.at("validRange"));
    let default = policy.has("default").then(|| quantity(policy.at("default")));
    match (values.is_empty(), range.is_null(), default) {
        (true, true, _) => {}
        (false, false, _) => {
            let text = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
            errors.forbidden(path, text);
        }
        (false, true, None) => errors.required(&path.field("default"), "required when validValues is defined"),
        (true, false, None) => errors.required(&path.field("default"), "required when validRange is defined"),
        (false, true, Some(default)) => options(errors, values, &default, capacity, &path.field("validValues")),
        (true, false, Some(default)) => self::range(errors, range, &default, capacity, &path.field("validRange")),
    }
}

fn options(errors: &mut Errors, values: &[Value], default: &Quantity, capacity: &Quantity, path: &Path<'_>) {
    let values: Vec<Quantity> = values.iter().map(quantity).collect();
    for (i, pair) in values.windows(2).enumerate().filter(|(_, pair)| pair[0] > pair[1]) {
        errors.invalid(&path.index(i + 1), pair[1].to_string(), "values must be sorted in ascending order");
    }
    let mut has_default = false;
    if values.len() > OPTIONS_MAX {
        errors.too_many(path, values.len(), OPTIONS_MAX);
    } else {
        for (i, value) in values.iter().enumerate().filter(|(_, value)| *value > capacity) {
            let text = format!("option is larger than capacity value: {capacity}");
            errors.invalid(&path.index(i), value.to_string(), &text);
        }
        has_default = values.contains(default);
        let twice = repeated(values.iter().map(Quantity::value));
        for (i, value) in values.iter().enumerate().filter(|(i, _)| twice[*i]) {
            errors.duplicate(&path.index(i), value.value().to_string());
        }
    }
    if !has_default {
        errors.invalid(path, default.to_string(), "default value is not valid according to the requestPolicy");
    }
}

fn range(errors: &mut Errors, range: &Value, default: &Quantity, capacity: &Quantity, path: &Path<'_>) {
    let bound = |field: &str| range.has(field).then(|| quantity(range.at(field)));
    let (least, most) = (path.field("min"), path.field("max"));
    let Some(min) = bound("min") else {
        return errors.required(&least, "required when validRange is defined");
    };
    if min > *capacity {
        errors.invalid(&least, min.to_string(), &format!("min is larger than capacity value: {capacity}"));
    }
    if *default < min {
        errors.invalid(&least, default.to_string(), &format!("default is less than min: {min}"));
    }
    let max = bound("max");
    if let Some(max) = &max {
        if min > *max {
            errors.invalid(&most, min.to_string(), &format!("min is larger than max: {max}"));
        }
        if max > capacity {
            errors.invalid(&most, max.to_string(), &format!("max is larger than capacity value: {capacity}"));
        }
        if default > max {
            errors.invalid(&most, default.to_string(), &format!("default is more than max: {max}"));
        }
    }
    let Some(step) = bound("step") else { return };
    let (path, one) = (path.field("step"), min.plus(&step));
    if one > *capacity {
        let text = format!("one step {one} is larger than capacity value: {capacity}");
        errors.invalid(&path, step.to_string(), &text);
    }
    for value in std::iter::once(default).chain(&max) {
        // A step of nothing is where upstream panics.
        if value.value().wrapping_sub(min.value()).checked_rem(step.value()) != Some(0) {
            let text = format!("value is not a multiple of a given step ({step}) from ({min})");
            errors.invalid(&path, value.to_string(), &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies_fit_the_capacity() {
        let check = |policy: Value, want: &[&str]| {
            let mut errors = Errors::default();
            let capacity = json!({"value": "10", "requestPolicy": policy});
            super::check(&mut errors, &capacity, true, &Path::root("p"));
            let got: Vec<String> = errors.0.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
            assert_eq!(got, want);
        };
        check(json!({}), &[]);
        check(json!({"validValues": ["1"]}), &["p.default: Required value: required when validValues is defined"]);
        check(
            json!({"default": "3", "validValues": ["2", "1", "20"]}),
            &[
                "p.validValues[1]: Invalid value: \"1\": values must be sorted in ascending order",
                "p.validValues[2]: Invalid value: \"20\": option is larger than capacity value: 10",
                "p.validValues: Invalid value: \"3\": default value is not valid according to the requestPolicy",
            ],
        );
        check(
            json!({"default": "4", "validRange": {"min": "1", "max": "9", "step": "2"}}),
            &["p.validRange.step: Invalid value: \"4\": value is not a multiple of a given step (2) from (1)"],
        );
    }
}
