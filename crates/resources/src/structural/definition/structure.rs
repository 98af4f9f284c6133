//! The structure of a schema: every value has a type outside of `allOf`, `anyOf`, `oneOf` and `not`, and these
//! say nothing but bounds of values that the structure knows.

use super::pattern;
use crate::field::{Errors, Fields, Path};
use serde_json::Value;

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
}

/// The errors of a schema's structure, sorted by their texts as upstream sorts them.
pub(super) fn check(errors: &mut Errors, source: &Value, path: &Path<'_>) {
    let mut found = Errors::default();
    node(&mut found, source, path, Place::Root);
    complete(&mut found, source, Some(source), path, path);
    found.0.sort_by_key(|cause| format!("{}: {}", cause.field, cause.message));
    errors.0.append(&mut found.0);
}

fn node(errors: &mut Errors, source: &Value, path: &Path<'_>, place: Place) {
    if source.text("type") == "array" && !source.has("items") {
        errors.required(&path.field("items"), "must be specified");
    }
    if source.at("items").is_object() {
        node(errors, source.at("items"), &path.field("items"), Place::Item);
    }
    let properties = path.field("properties");
    for (name, below) in source.entries("properties") {
        node(errors, below, &properties.key(name), Place::Field);
    }
    let additional = path.field("additionalProperties");
    if source.has("additionalProperties") {
        if place == Place::Root {
            errors.forbidden(&additional, "must not be used at the root");
        }
        if source.at("additionalProperties").is_object() {
            node(errors, source.at("additionalProperties"), &additional, Place::Field);
        }
    }
    extensions(errors, source, path);
    bounds(errors, source, path, Skip::of(source));
    kind(errors, source, path, place);
    object_meta(errors, source, path, place);
}

fn extensions(errors: &mut Errors, source: &Value, path: &Path<'_>) {
    const EMBEDDED: &str = "x-kubernetes-embedded-resource";
    const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
    let embedded = source.flag(EMBEDDED);
    if source.flag("x-kubernetes-int-or-string") {
        for name in [PRESERVE, EMBEDDED] {
            if source.flag(name) {
                errors.invalid(&path.field(name), true, "must be false if x-kubernetes-int-or-string is true");
            }
        }
    }
    if embedded && source.has("additionalProperties") {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        errors.forbidden(&path.field("additionalProperties"), why);
    }
    if embedded && !source.flag(PRESERVE) && source.entries("properties").next().is_none() {
        let why =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.required(&path.field("properties"), why);
    }
}

fn kind(errors: &mut Errors, source: &Value, path: &Path<'_>, place: Place) {
    let (kind, at) = (source.text("type"), path.field("type"));
    let embedded = source.flag("x-kubernetes-embedded-resource");
    let loose = source.flag("x-kubernetes-int-or-string") || source.flag("x-kubernetes-preserve-unknown-fields");
    match (kind, place) {
        ("object", _) => {}
        ("", _) if embedded => errors.required(&at, "must be object if x-kubernetes-embedded-resource is true"),
        (kind, _) if embedded => {
            errors.invalid(&at, kind, "must be object if x-kubernetes-embedded-resource is true");
        }
        ("", _) if loose => {}
        ("", Place::Root) => errors.required(&at, "must not be empty at the root"),
        ("", Place::Item) => errors.required(&at, "must not be empty for specified array items"),
        ("", Place::Field) => errors.required(&at, "must not be empty for specified object fields"),
        _ => {}
    }
    if place == Place::Root && !matches!(kind, "" | "object") {
        errors.invalid(&at, kind, "must be object at the root");
    }
}

/// Of the metadata of a whole object only the names can be restricted.
fn object_meta(errors: &mut Errors, source: &Value, path: &Path<'_>, place: Place) {
    let (fields, properties) = (source.at("properties"), path.field("properties"));
    let whole = place == Place::Root || source.flag("x-kubernetes-embedded-resource");
    for name in ["kind", "apiVersion"] {
        if whole && fields.has(name) && fields.at(name).text("type") != "string" {
            let kind = fields.at(name).text("type");
            errors.invalid(&properties.key(name).field("type"), kind, "must be string");
        }
    }
    if !fields.has("metadata") {
        return;
    }
    let (metadata, at) = (fields.at("metadata"), properties.key("metadata"));
    if whole && metadata.text("type") != "object" {
        errors.invalid(&at.field("type"), metadata.text("type"), "must be object");
    }
    let named = |key: &String| matches!(key.as_str(), "name" | "generateName");
    let says_more = metadata.as_object().into_iter().flatten().any(|(key, value)| match key.as_str() {
        "type" | "default" => false,
        "properties" => !value.as_object().is_some_and(|p| p.keys().all(named)),
        _ => !is_zero(value),
    });
    if place == Place::Root && says_more {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.forbidden(&at, why);
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// The two places where types may be said of a value that is an integer or a string.
#[derive(Clone, Copy, Default)]
struct Skip {
    any_of: bool,
    any_of_of_first_all_of: bool,
}

impl Skip {
    fn of(source: &Value) -> Self {
        let pattern = |list: &[Value]| {
            let is = |at: usize, kind: &str| {
                list[at].as_object().is_some_and(|m| m.len() == 1) && list[at].text("type") == kind
            };
            list.len() == 2 && is(0, "integer") && is(1, "string")
        };
        Self {
            any_of: pattern(source.list("anyOf")),
            any_of_of_first_all_of: source.list("allOf").first().is_some_and(|first| pattern(first.list("anyOf"))),
        }
    }
}

/// What is said of values: the pattern, and the schemas that are put together.
fn bounds(errors: &mut Errors, source: &Value, path: &Path<'_>, skip: Skip) {
    for name in ["anyOf", "allOf", "oneOf"] {
        let list = path.field(name);
        for (i, below) in source.list(name).iter().enumerate() {
            if name == "anyOf" && skip.any_of {
                continue;
            }
            let any_of = name == "allOf" && i == 0 && skip.any_of_of_first_all_of;
            nested(errors, below, &list.index(i), Skip { any_of, any_of_of_first_all_of: false });
        }
    }
    if source.at("not").is_object() {
        nested(errors, source.at("not"), &path.field("not"), Skip::default());
    }
    let pattern = source.text("pattern");
    if let Err(why) = pattern::check(pattern) {
        let why = format!("must be a valid regular expression, but isn't: {why}");
        errors.invalid(&path.field("pattern"), pattern, &why);
    }
}

fn nested(errors: &mut Errors, source: &Value, path: &Path<'_>, skip: Skip) {
    bounds(errors, source, path, skip);
    if source.at("items").is_object() {
        nested(errors, source.at("items"), &path.field("items"), Skip::default());
    }
    let properties = path.field("properties");
    for (name, below) in source.entries("properties") {
        nested(errors, below, &properties.key(name), Skip::default());
    }
    let additional = source.at("additionalProperties");
    if additional.is_object() || additional == &Value::Bool(true) {
        errors.forbidden(&path.field("additionalProperties"), "must be undefined to be structural");
    }
    for (name, why) in [
        ("type", "must be empty to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ] {
        let said = if name == "default" { source.has(name) } else { !is_zero(source.at(name)) };
        if said {
            errors.forbidden(&path.field(name), why);
        }
    }
    if source.at("properties").has("metadata") {
        errors.forbidden(&properties.key("metadata"), "must not be specified in a nested context");
    }
}

/// Whether the structure knows what bounds are given of; as upstream, only those at the root are followed.
fn complete(errors: &mut Errors, bounds: &Value, structure: Option<&Value>, known: &Path<'_>, path: &Path<'_>) {
    for name in ["allOf", "anyOf", "oneOf"] {
        let list = path.field(name);
        for (i, below) in bounds.list(name).iter().enumerate() {
            complete_nested(errors, below, structure, known, &list.index(i));
        }
    }
    if bounds.at("not").is_object() {
        complete_nested(errors, bounds.at("not"), structure, known, &path.field("not"));
    }
}

fn complete_nested(errors: &mut Errors, bounds: &Value, structure: Option<&Value>, known: &Path<'_>, path: &Path<'_>) {
    let Some(source) = structure else {
        return errors.required(known, &format!("because it is defined in {path}"));
    };
    complete(errors, bounds, structure, known, path);
    if bounds.at("items").is_object() {
        let below = source.get("items").filter(|i| i.is_object());
        complete_nested(errors, bounds.at("items"), below, &known.field("items"), &path.field("items"));
    }
    let (properties, said) = (known.field("properties"), path.field("properties"));
    for (name, below) in bounds.entries("properties") {
        let structure = source.at("properties").get(name);
        complete_nested(errors, below, structure, &properties.key(name), &said.key(name));
    }
}
