//! Conditions of a status, as `meta/v1` has them.

use crate::field::{Errors, Fields, Path, repeated};
use crate::names;
use serde_json::Value;

const REASON_FORM: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// Errors of a list of conditions, of which no two are of one type.
pub fn conditions(errors: &mut Errors, list: &[Value], path: &Path<'_>) {
    let twice = repeated(list.iter().map(|condition| condition.text("type")));
    for (i, condition) in list.iter().enumerate() {
        let path = path.index(i);
        if twice[i] {
            errors.duplicate(&path.field("type"), condition.text("type"));
        }
        self::condition(errors, condition, &path);
    }
}

/// Errors of one condition.
pub fn condition(errors: &mut Errors, condition: &Value, path: &Path<'_>) {
    const REASON_MAX: usize = 1024;
    const MESSAGE_MAX: usize = 32 * 1024;
    let kind = condition.text("type");
    errors.invalid_each(&path.field("type"), kind, names::qualified_name(kind));
    errors.one_of(&path.field("status"), condition.text("status"), &["False", "True", "Unknown"]);
    if let Some(generation) = condition.int("observedGeneration").filter(|generation| *generation < 0) {
        errors.invalid(&path.field("observedGeneration"), generation, "must be greater than or equal to zero");
    }
    if condition.text("lastTransitionTime").is_empty() {
        errors.required(&path.field("lastTransitionTime"), "");
    }
    let (reason, at) = (condition.text("reason"), path.field("reason"));
    match reason {
        "" => errors.required(&at, ""),
        reason if !is_reason(reason) => errors.invalid(&at, reason, REASON_FORM),
        _ => {}
    }
    if reason.len() > REASON_MAX {
        errors.too_long(&at, REASON_MAX);
    }
    if condition.text("message").len() > MESSAGE_MAX {
        errors.too_long(&path.field("message"), MESSAGE_MAX);
    }
}

fn is_reason(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(word)
        && text.chars().all(|c| word(c) || c == ',' || c == ':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_are_whole_and_of_different_types() {
        let check = |list: Value, want: &[&str]| {
            let mut errors = Errors::default();
            conditions(&mut errors, list.as_array().map_or(&[], Vec::as_slice), &Path::root("c"));
            assert_eq!(errors.0.iter().map(|cause| cause.field.as_str()).collect::<Vec<_>>(), want);
        };
        let good = json!({"type": "A", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z", "reason": "R"});
        check(json!([good]), &[]);
        check(json!([good, good]), &["c[1].type"]);
        check(json!([{"type": "-"}]), &["c[0].type", "c[0].status", "c[0].lastTransitionTime", "c[0].reason"]);
    }
}
