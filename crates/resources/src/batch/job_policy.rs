//! When a job fails or succeeds before its time, and what its status may say.

use crate::field::{Errors, Fields, Path};
use crate::names;
use api::Cause;
use serde_json::Value;

/// The schema of `successPolicy`.
pub const SUCCESS: &str = "io.k8s.api.batch.v1.SuccessPolicy";
/// As long as the indexes of one rule may be, in bytes.
const INDEXES_MAX: usize = 64 << 10;

/// Errors of `podFailurePolicy`.
pub fn failure(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let rules = spec.at("podFailurePolicy").list("rules");
    let path = path.field("rules");
    if rules.len() > 20 {
        errors.too_many(&path, rules.len(), 20);
    }
    let pod = spec.at("template").at("spec");
    let names: Vec<&str> =
        ["containers", "initContainers"].iter().flat_map(|l| pod.list(l)).map(|c| c.text("name")).collect();
    for (i, rule) in rules.iter().enumerate() {
        failure_rule(errors, rule, &names, spec.has("backoffLimitPerIndex"), &path.index(i));
    }
}

/// A rule is about exit codes or about conditions. `indexed`: whether single indexes can fail.
fn failure_rule(errors: &mut Errors, rule: &Value, names: &[&str], indexed: bool, path: &Path<'_>) {
    match rule.text("action") {
        "FailIndex" if !indexed => {
            errors.invalid(&path.field("action"), "FailIndex", "requires the backoffLimitPerIndex to be set");
        }
        action => known(errors, action, &["Count", "FailIndex", "FailJob", "Ignore"], &path.field("action")),
    }
    let (codes, conditions) = (rule.at("onExitCodes"), rule.list("onPodConditions"));
    if !codes.is_null() {
        exit_codes(errors, codes, names, &path.field("onExitCodes"));
    }
    pod_conditions(errors, conditions, &path.field("onPodConditions"));
    let wrong = match (codes.is_null(), conditions.is_empty()) {
        (false, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (true, true) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    let message = format!("Invalid value: {wrong}");
    errors.add(|| Cause { kind: api::CauseType::FieldValueInvalid, field: path.to_string(), message });
}

/// Errors of a word; one that is missing is told with those that are known.
fn known(errors: &mut Errors, word: &str, words: &[&str], path: &Path<'_>) {
    match word {
        "" => {
            let list: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
            errors.required(path, &format!("valid values: [{}]", list.join(" ")));
        }
        word => errors.one_of(path, word, words),
    }
}

fn exit_codes(errors: &mut Errors, codes: &Value, names: &[&str], path: &Path<'_>) {
    let operator = codes.text("operator");
    known(errors, operator, &["In", "NotIn"], &path.field("operator"));
    if codes.has("containerName") && !names.contains(&codes.text("containerName")) {
        let text = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&path.field("containerName"), codes.text("containerName"), text);
    }
    let (values, path) = (codes.list("values"), path.field("values"));
    match values.len() {
        0 => errors.invalid(&path, codes.at("values").clone(), "at least one value is required"),
        count if count > 255 => errors.too_many(&path, count, 255),
        _ => {}
    }
    let number = |v: &Value| v.as_i64().unwrap_or(0);
    for (i, value) in values.iter().enumerate() {
        if operator == "In" && number(value) == 0 {
            errors.invalid(&path.index(i), 0, "must not be 0 for the In operator");
        }
        if values[..i].contains(value) {
            errors.duplicate(&path.index(i), value.clone());
        }
    }
    if values.windows(2).any(|pair| number(&pair[0]) > number(&pair[1])) {
        errors.invalid(&path, values.to_vec(), "must be ordered");
    }
}

fn pod_conditions(errors: &mut Errors, conditions: &[Value], path: &Path<'_>) {
    if conditions.len() > 20 {
        errors.too_many(path, conditions.len(), 20);
    }
    for (i, pattern) in conditions.iter().enumerate() {
        let (path, kind) = (path.index(i), pattern.text("type"));
        errors.invalid_each(&path.field("type"), kind, names::qualified_name(kind));
        known(errors, pattern.text("status"), &["False", "True", "Unknown"], &path.field("status"));
    }
}

/// Errors of `successPolicy`.
pub fn success(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let policy = spec.at("successPolicy");
    if policy.is_null() {
        return;
    }
    let rules = policy.list("rules");
    if spec.text("completionMode") != "Indexed" {
        return errors.invalid_struct(path, SUCCESS, policy, "requires indexed completion mode");
    }
    let path = path.field("rules");
    match rules.len() {
        0 => errors.required(&path, "at least one rules must be specified when the successPolicy is specified"),
        count if count > 20 => errors.too_many(&path, count, 20),
        _ => {}
    }
    for (i, rule) in rules.iter().enumerate() {
        success_rule(errors, rule, spec.int("completions").unwrap_or(0), &path.index(i));
    }
}

fn success_rule(errors: &mut Errors, rule: &Value, completions: i64, path: &Path<'_>) {
    let (count, indexes) = (rule.int("succeededCount"), rule.at("succeededIndexes").as_str());
    if count.is_none() && indexes.is_none() {
        errors.required(path, "at least one of succeededCount or succeededIndexes must be specified");
    }
    let mut total = 0;
    if let Some(text) = indexes {
        if text.len() > INDEXES_MAX {
            errors.too_long(&path.field("succeededIndexes"), INDEXES_MAX);
        }
        match self::indexes(text, completions) {
            Ok(found) => total = found,
            Err(why) => {
                let text_of = format!("error parsing succeededIndexes: {why}");
                errors.invalid(&path.field("succeededIndexes"), text, &text_of);
            }
        }
    }
    let Some(count) = count else { return };
    let path = path.field("succeededCount");
    errors.non_negative(&path, count);
    if count > completions {
        let text = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.invalid(&path, count, &text);
    }
    if indexes.is_some() && count > total {
        let text = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.invalid(&path, count, &text);
    }
}

/// How many indexes a text such as `1,3-5` names.
pub(super) fn indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last) = (0, -1);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = interval(part, completions)?;
        for number in [first, end].into_iter().take(if part.contains('-') { 2 } else { 1 }) {
            if number <= last {
                return Err(format!("non-increasing order, previous: {last}, current: {number}"));
            }
            last = number;
        }
        total += end - first + 1;
    }
    Ok(total)
}

/// The ends of one interval.
pub(super) fn interval(part: &str, completions: i64) -> Result<(i64, i64), String> {
    let ends: Vec<&str> = part.split('-').collect();
    if ends.len() > 2 {
        return Err(format!(
            "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let number = |end: &str| {
        let number: i64 = end.parse().map_err(|_| format!("cannot convert string to integer for index: {end:?}"))?;
        if number >= completions { Err(format!("too large index: {end:?}")) } else { Ok(number) }
    };
    let (first, last) = (number(ends[0])?, number(ends[ends.len() - 1])?);
    if first > last || (ends.len() > 1 && first == last) {
        return Err(format!("non-increasing order, previous: {first}, current: {last}"));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted() {
        for (text, want) in [
            ("1,3-5", Ok(4)),
            ("", Ok(0)),
            ("0", Ok(1)),
            ("5-2", Err("too large index: \"9\"")),
            ("x", Err("")),
            ("4,3-3", Err("non-increasing order, previous: 3, current: 3")),
        ] {
            let got = indexes(&text.replace('5', if want.is_err() { "9" } else { "5" }), 8);
            match want {
                Ok(want) => assert_eq!(got, Ok(want), "{text}"),
                Err(want) => assert!(got.is_err_and(|e| e.starts_with(want)), "{text}"),
            }
        }
    }
}
