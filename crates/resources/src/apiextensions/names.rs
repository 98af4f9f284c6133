//! The names of a definition.

use super::STATUS;
use crate::field::{Errors, Fields, Path};
use crate::names;
use api::Object;
use serde_json::Value;

/// Checks the names that a definition asks for.
pub(super) fn of_spec(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    for field in ["plural", "singular", "kind", "listKind"] {
        if of.text(field).is_empty() {
            errors.required(&path.field(field), "");
        }
    }
    check(errors, of, path);
}

/// Checks the names that were accepted.
pub(super) fn of_status(errors: &mut Errors, obj: &Object) {
    check(errors, obj.at("status").at("acceptedNames"), &STATUS.field("acceptedNames"));
}

fn check(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    for field in ["plural", "singular"] {
        let text = of.text(field);
        let wrong = if text.is_empty() { Vec::new() } else { names::dns1035_label(text, false) };
        if !wrong.is_empty() {
            errors.invalid(&path.field(field), text, &wrong.join(","));
        }
    }
    for field in ["kind", "listKind"] {
        let text = of.text(field);
        let wrong = if text.is_empty() { Vec::new() } else { names::dns1035_label(&text.to_lowercase(), false) };
        if !wrong.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
            errors.invalid(&path.field(field), text, &detail);
        }
    }
    labels(errors, of, path, "shortNames");
    let (kind, list_kind) = (of.text("kind"), of.text("listKind"));
    if !kind.is_empty() && kind == list_kind {
        errors.invalid(&path.field("listKind"), list_kind, "kind and listKind may not be the same");
    }
    labels(errors, of, path, "categories");
}

fn labels(errors: &mut Errors, of: &Value, path: &Path<'_>, field: &str) {
    let list = path.field(field);
    for (i, text) in of.texts(field).into_iter().enumerate() {
        let wrong = names::dns1035_label(text, false);
        if !wrong.is_empty() {
            errors.invalid(&list.index(i), text, &wrong.join(","));
        }
    }
}
