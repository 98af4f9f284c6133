//! Checks of the schemas in a custom resource definition.
//!
//! The order is upstream's: what a status subresource forbids at the root, then the structure, then (of a schema
//! with structure) the defaults, then everything that is said of OpenAPI, and at last the rules in CEL.

mod defaults;
mod formats;
mod openapi;
mod paths;
mod pattern;
mod printed;
mod rules;
mod structure;

pub(crate) use formats::unrecognized;
pub(super) use paths::find;
pub(crate) use paths::selectable;
pub(crate) use printed::version as printed_version;

use crate::field::{Errors, Fields, Path};
use serde_json::Value;

/// What is known of the version that a schema belongs to.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    /// Whether the status is a subresource.
    pub status: bool,
    /// Whether the schema is that of the definition before: its rules may be as expensive as they are.
    pub unchanged: bool,
}

/// Checks a schema.
pub(crate) fn schema(errors: &mut Errors, source: &Value, path: &Path<'_>, options: Options) {
    let mut found = Errors::default();
    if options.status {
        printed::root_of_status(&mut found, source, path);
    }
    if source.flag("nullable") {
        found.forbidden(&path.field("nullable"), "nullable cannot be true at the root");
    }
    let mut structural = Errors::default();
    // What cannot be made into a structure is not looked at as one.
    let unstructured = unstructured(source);
    if unstructured.is_none() {
        structure::check(&mut structural, source, path);
        if structural.is_empty() {
            defaults::check(&mut structural, source, path);
        }
    }
    let mut total = rules::Total::default();
    let scope = (structural.is_empty() && unstructured.is_none()).then(|| rules::Scope::root(source));
    found.0.append(&mut structural.0);
    let checked = openapi::check(source, path, scope, options, &mut total);
    found.0.extend(checked);
    if let (true, Some(why)) = (found.is_empty(), unstructured) {
        found.invalid(path, "", &why);
    }
    total.check(&mut found, path);
    errors.0.append(&mut found.0);
}

/// Why a schema cannot be made into a structure: what it says somewhere that structures cannot say.
pub(crate) fn unstructured(source: &Value) -> Option<String> {
    if !source.is_object() {
        return None;
    }
    let set = |name: &&str| match source.at(name) {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(map) => *name == "additionalItems" || !map.is_empty(),
        _ => true,
    };
    let own = ["id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions"];
    if let Some(name) = own.iter().find(|name| set(name)) {
        let name = if *name == "$schema" { "schema" } else { name };
        return Some(format!("OpenAPIV3Schema '{name}' is not supported"));
    }
    let parts = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|name| source.list(name));
    let nested = std::iter::once(source.at("not")).chain(parts).find_map(unstructured);
    if nested.is_some() {
        return nested;
    }
    if source.at("x-kubernetes-preserve-unknown-fields") == &Value::Bool(false) {
        return Some("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".into());
    }
    if !source.list("items").is_empty() {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".into());
    }
    let below = source.entries("properties").map(|(_, below)| below);
    let ends = [source.at("items"), source.at("additionalProperties")];
    ends.into_iter().take(1).chain(below).chain(ends.into_iter().skip(1)).find_map(unstructured)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors_of(schema: &Value, options: Options) -> Vec<String> {
        let mut errors = Errors::default();
        super::schema(&mut errors, schema, &Path::root("s"), options);
        errors.0.iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
    }

    #[test]
    fn schemas_are_checked() {
        let check = |below: Value, want: &[&str]| {
            let schema = json!({"type": "object", "properties": {"x": below}});
            assert_eq!(errors_of(&schema, Options::default()), want);
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
            json!({"type": "array", "items": {"type": "object", "nullable": true, "properties": {"k": {"type": "string"}}},
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}),
            &[
                "s.properties[x].items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is map",
                "s.properties[x].items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ],
        );
        check(
            json!({"type": "object", "anyOf": [{"properties": {"a": {"minLength": 1, "type": "string"}}}]}),
            &["s.properties[x].anyOf[0].properties[a].type: Forbidden: must be empty to be structural"],
        );
    }

    #[test]
    fn what_has_no_structure_is_not_judged_as_one() {
        let check = |schema: Value, want: &[&str]| assert_eq!(errors_of(&schema, Options::default()), want);
        check(
            json!({"type": "object", "$schema": "x"}),
            &["s: Invalid value: \"\": OpenAPIV3Schema 'schema' is not supported"],
        );
        check(
            json!({"properties": {"a": {"definitions": {"d": {"type": "object"}}}}}),
            &["s.properties[a].definitions: Forbidden: definitions is not supported"],
        );
        check(
            json!({"dependencies": {}, "additionalProperties": {"type": "string"}}),
            &[
                "s.additionalProperties: Forbidden: must not be used at the root",
                "s.type: Required value: must not be empty at the root",
                "s.dependencies: Forbidden: dependencies is not supported",
            ],
        );
    }

    #[test]
    fn the_root_is_special() {
        let check = |schema: Value, status: bool, want: &[&str]| {
            assert_eq!(errors_of(&schema, Options { status, unchanged: false }), want);
        };
        check(
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            false,
            &[
                "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
            ],
        );
        let named = json!({"type": "object", "properties": {"metadata": {"type": "object",
            "properties": {"name": {"type": "string", "maxLength": 3}}}}});
        check(named, false, &[]);
        check(
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            false,
            &["s.additionalProperties: Forbidden: must not be used at the root"],
        );
        check(
            json!({"type": "object", "anyOf": [{"properties": {"a": {"minLength": 1}}}]}),
            false,
            &["s.properties[a]: Required value: because it is defined in s.anyOf[0].properties[a]"],
        );
        let [error] =
            errors_of(&json!({"type": "object", "maxProperties": 3}), Options { status: true, unchanged: false })
                .try_into()
                .expect("one error");
        assert!(error.contains("\"MaxProperties\":3"), "{error}");
        assert!(error.ends_with("fields are allowed at the root of the schema if the status subresource is enabled"));
    }
}
