//! Checks of the schemas in a custom resource definition: they must be structural.

use super::{Schema, compile};
use crate::field::{Errors, Fields, Path};
use serde_json::Value;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
    /// Inside `allOf`, `anyOf`, `oneOf` and `not`: only bounds are given there.
    Bounds,
}

/// Checks a schema.
pub(crate) fn schema(errors: &mut Errors, source: &Value, path: &Path<'_>) {
    let before = errors.0.len();
    walk(errors, source, path, Place::Root);
    if errors.0.len() == before {
        defaults(errors, source, path);
    }
}

fn walk(errors: &mut Errors, source: &Value, path: &Path<'_>, place: Place) {
    forbidden(errors, source, path);
    kinds(errors, source, path, place);
    let pattern = source.text("pattern");
    if let Err(error) = compile(pattern) {
        let why = format!(
            "must be a valid regular expression, but isn't: error parsing regexp: {}",
            go_regex(pattern, &error)
        );
        errors.invalid(&path.field("pattern"), pattern, &why);
    }
    extensions(errors, source, path);
    let properties = path.field("properties");
    for (name, below) in source.entries("properties") {
        walk(errors, below, &properties.key(name), if place == Place::Bounds { place } else { Place::Field });
    }
    let additional = source.at("additionalProperties");
    if additional.is_object() {
        let place = if place == Place::Bounds { place } else { Place::Field };
        walk(errors, additional, &path.field("additionalProperties"), place);
    }
    if source.at("items").is_object() {
        let place = if place == Place::Bounds { place } else { Place::Item };
        walk(errors, source.at("items"), &path.field("items"), place);
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        let list = path.field(name);
        for (i, below) in source.list(name).iter().enumerate() {
            walk(errors, below, &list.index(i), Place::Bounds);
        }
    }
    if source.at("not").is_object() {
        walk(errors, source.at("not"), &path.field("not"), Place::Bounds);
    }
}

fn forbidden(errors: &mut Errors, source: &Value, path: &Path<'_>) {
    if source.flag("uniqueItems") {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(&path.field("uniqueItems"), why);
    }
    if source.has("additionalProperties") {
        let at = path.field("additionalProperties");
        if source.entries("properties").next().is_some() {
            errors.forbidden(&at, "additionalProperties and properties are mutual exclusive");
        } else if source.at("additionalProperties") == &Value::Bool(false) {
            errors.forbidden(&at, "additionalProperties cannot be set to false");
        }
    }
    if !source.text("$ref").is_empty() {
        errors.forbidden(&path.field("$ref"), "$ref is not supported");
    }
    for name in ["definitions", "dependencies", "patternProperties"] {
        if source.entries(name).next().is_some() {
            errors.forbidden(&path.field(name), &format!("{name} is not supported"));
        }
    }
    if source.has("id") {
        errors.forbidden(&path.field("id"), "id is not supported");
    }
    rules(errors, source, &path.field("x-kubernetes-validations"));
}

/// Upstream evaluates rules in CEL; until this server does, accepting them would be a lie.
fn rules(errors: &mut Errors, source: &Value, path: &Path<'_>) {
    let reasons = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    let mut known = true;
    for (i, rule) in source.list("x-kubernetes-validations").iter().enumerate() {
        let (item, reason) = (path.index(i), rule.text("reason"));
        if rule.text("rule").is_empty() {
            errors.required(&item.field("rule"), "rule is not specified");
            known = false;
        }
        known &= reason.is_empty() || errors.supported(&item.field("reason"), reason, &reasons);
    }
    if known && !source.list("x-kubernetes-validations").is_empty() {
        errors.forbidden(path, "validation rules in CEL are not supported by this server");
    }
}

fn kinds(errors: &mut Errors, source: &Value, path: &Path<'_>, place: Place) {
    let kind = source.text("type");
    let loose = source.flag("x-kubernetes-int-or-string") || source.flag("x-kubernetes-preserve-unknown-fields");
    let at = path.field("type");
    match (kind, place) {
        ("", Place::Root) => errors.required(&at, "must not be empty at the root"),
        ("", Place::Field) if !loose => errors.required(&at, "must not be empty for specified object fields"),
        ("", Place::Item) if !loose => errors.required(&at, "must not be empty for specified array items"),
        ("", _) => {}
        (kind, Place::Root) if kind != "object" => errors.invalid(&at, kind, "must be object at the root"),
        (kind, _) => drop(errors.supported(&at, kind, &TYPES)),
    }
    if kind == "array" && place != Place::Bounds && !source.has("items") {
        errors.required(&path.field("items"), "must be specified");
    }
    if place == Place::Root && source.flag("nullable") {
        errors.forbidden(&path.field("nullable"), "nullable cannot be true at the root");
    }
}

fn extensions(errors: &mut Errors, source: &Value, path: &Path<'_>) {
    let preserve = "x-kubernetes-preserve-unknown-fields";
    if source.at(preserve) == &Value::Bool(false) {
        errors.invalid(&path.field(preserve), false, "must be true or undefined");
    }
    let map_type = source.text("x-kubernetes-map-type");
    if !map_type.is_empty() {
        errors.supported(&path.field("x-kubernetes-map-type"), map_type, &["atomic", "granular"]);
    }
    let list_type = source.text("x-kubernetes-list-type");
    if list_type.is_empty() {
        return;
    }
    if source.text("type") != "array" {
        let why = "must be array if x-kubernetes-list-type is specified";
        errors.invalid(&path.field("type"), source.text("type"), why);
    }
    errors.supported(&path.field("x-kubernetes-list-type"), list_type, &["atomic", "map", "set"]);
    let keys = path.field("x-kubernetes-list-map-keys");
    if list_type == "map" && source.list("x-kubernetes-list-map-keys").is_empty() {
        errors.required(&keys, "must not be empty if x-kubernetes-list-type is map");
    }
    for (i, key) in source.texts("x-kubernetes-list-map-keys").into_iter().enumerate() {
        if list_type == "map" && !source.at("items").at("properties").has(key) {
            let why = "entries must all be names of item properties";
            errors.invalid(&keys.index(i), key, why);
        }
    }
}

/// Defaults must be valid and have no fields that would be pruned.
fn defaults(errors: &mut Errors, source: &Value, path: &Path<'_>) {
    if let Some(default) = source.get("default").filter(|d| !d.is_null()) {
        let at = path.field("default");
        let schema = Schema::new(source);
        let mut pruned = default.clone();
        if schema.prune_value(0, &mut pruned).is_empty() {
            let mut found = Vec::new();
            schema.check(0, default, "", &mut found);
            for mut cause in found {
                cause.field = match cause.field.as_str() {
                    "" | "<nil>" => at.to_string(),
                    below => format!("{at}.{below}"),
                };
                errors.0.push(cause);
            }
        } else {
            errors.invalid(&at, default.clone(), "must not have unknown fields");
        }
    }
    let properties = path.field("properties");
    for (name, below) in source.entries("properties") {
        defaults(errors, below, &properties.key(name));
    }
    for name in ["items", "additionalProperties"] {
        if source.at(name).is_object() {
            defaults(errors, source.at(name), &path.field(name));
        }
    }
}

/// The error of a pattern in Go's words, where it is one of the frequent ones.
fn go_regex(pattern: &str, error: &regex::Error) -> String {
    let text = error.to_string();
    if text.contains("unclosed character class") {
        let from = pattern.rfind('[').unwrap_or(0);
        return format!("missing closing ]: `{}`", &pattern[from..]);
    }
    if text.contains("unclosed group") {
        return format!("missing closing ): `{pattern}`");
    }
    if text.contains("unopened group") {
        return format!("unexpected ): `{pattern}`");
    }
    text.lines().last().unwrap_or("").trim().to_owned()
}

/// Checks the selectable fields of a version.
pub(crate) fn selectable(errors: &mut Errors, version: &Value, path: &Path<'_>) {
    let root = version.at("schema").at("openAPIV3Schema");
    let mut seen: Vec<&str> = Vec::new();
    for (i, field) in version.list("selectableFields").iter().enumerate() {
        let (item, text) = (path.index(i), field.text("jsonPath"));
        let at = item.field("jsonPath");
        if text.is_empty() {
            errors.required(&at, "");
            continue;
        }
        match find(root, text).map(|s| (s.text("type"), s)) {
            None => errors.invalid(&at, text, "is an invalid path: does not refer to a valid field"),
            Some(("string" | "boolean" | "integer", _)) => {}
            Some(_) => {
                let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
                errors.invalid(&at, text, why);
            }
        }
        if seen.contains(&text) {
            errors.duplicate(&at, text);
        }
        seen.push(text);
    }
}

/// The schema of a simple path (`.spec.color`).
fn find<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    let mut at = root;
    for name in path.strip_prefix('.')?.split('.') {
        at = at.at("properties").get(name)?;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_are_checked() {
        let check = |below: Value, want: &[&str]| {
            let mut errors = Errors::default();
            schema(&mut errors, &json!({"type": "object", "properties": {"x": below}}), &Path::root("s"));
            let got: Vec<_> = errors.0.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
            assert_eq!(got, want);
        };
        check(json!({"type": "string"}), &[]);
        check(json!({"x-kubernetes-int-or-string": true}), &[]);
        check(json!({}), &["s.properties[x].type: Required value: must not be empty for specified object fields"]);
        check(json!({"type": "array"}), &["s.properties[x].items: Required value: must be specified"]);
        check(
            json!({"type": "string", "pattern": "["}),
            &[
                "s.properties[x].pattern: Invalid value: \"[\": must be a valid regular expression, but isn't: error parsing regexp: missing closing ]: `[`",
            ],
        );
        check(
            json!({"type": "integer", "default": "s"}),
            &["s.properties[x].default: Invalid value: \"string\":  in body must be of type integer: \"string\""],
        );
        check(
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "default": {"zz": 1}}),
            &["s.properties[x].default: Invalid value: {\"zz\":1}: must not have unknown fields"],
        );
        check(
            json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self > 1"}]}),
            &[
                "s.properties[x].x-kubernetes-validations: Forbidden: validation rules in CEL are not supported by this server",
            ],
        );
    }
}
