//! What OpenAPI v3 and Kubernetes' extensions of it allow a schema to say, at every place of it.

use super::rules::{self, Scope, Total};
use super::{Options, paths};
use crate::field::{Errors, Fields, Path, repeated};
use api::Cause;
use serde_json::Value;
use std::collections::HashSet;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const LIST_TYPE: &str = "x-kubernetes-list-type";
const LIST_KEYS: &str = "x-kubernetes-list-map-keys";
const MAP_TYPE: &str = "x-kubernetes-map-type";

/// The errors of a schema: those of what it says, and those of its rules.
#[derive(Default)]
pub(super) struct Found {
    pub schema: Errors,
    pub rules: Errors,
}

/// What the places above a schema mean for it.
#[derive(Clone, Default)]
struct Above {
    /// Why defaults are not allowed.
    no_defaults: Option<String>,
    /// Inside the type or metadata of a whole object.
    object_meta: bool,
    /// The place whose parts cannot be told apart in an old and a new object.
    uncorrelated: Option<String>,
}

/// What the walk carries.
struct Walk<'a> {
    options: Options,
    total: &'a mut Total,
}

/// Checks a schema; `scope`: only a schema with structure has its rules compiled.
pub(super) fn check(
    source: &Value,
    path: &Path<'_>,
    scope: Option<Scope<'_>>,
    options: Options,
    total: &mut Total,
) -> Vec<Cause> {
    let mut walk = Walk { options, total };
    let mut found = walk.schema(source, path, &Above::default(), scope.as_ref(), true);
    found.schema.0.append(&mut found.rules.0);
    found.schema.0
}

impl Walk<'_> {
    fn schema(
        &mut self,
        source: &Value,
        path: &Path<'_>,
        above: &Above,
        scope: Option<&Scope<'_>>,
        root: bool,
    ) -> Found {
        let mut found = Found::default();
        unsupported(&mut found.schema, source, path, above);
        self.values_of_maps(&mut found, source, path, above, scope);
        self.properties(&mut found, source, path, above, scope, root);
        self.parts(&mut found, source, path, above);
        self.items(&mut found, source, path, above, scope);
        extensions(&mut found.schema, source, path);
        keys(&mut found.schema, source, path);
        rules::texts(&mut found.schema, source, path);
        if let Some(scope) = scope.filter(|_| found.schema.is_empty()) {
            rules::check(
                &mut found.rules,
                source,
                path,
                scope,
                above.uncorrelated.as_deref(),
                self.options,
                self.total,
            );
        }
        found
    }

    fn below(&mut self, found: &mut Found, source: &Value, path: &Path<'_>, above: &Above, scope: Option<&Scope<'_>>) {
        let Found { mut schema, mut rules } = self.schema(source, path, above, scope, false);
        found.schema.0.append(&mut schema.0);
        found.rules.0.append(&mut rules.0);
    }

    fn values_of_maps(
        &mut self,
        found: &mut Found,
        source: &Value,
        path: &Path<'_>,
        above: &Above,
        scope: Option<&Scope<'_>>,
    ) {
        let additional = source.at("additionalProperties");
        if additional.is_null() {
            return;
        }
        let at = path.field("additionalProperties");
        if source.entries("properties").next().is_some() && additional != &Value::Bool(true) {
            found.schema.forbidden(&at, "additionalProperties and properties are mutual exclusive");
        }
        if additional.is_object() {
            let mut above = above.clone();
            if above.object_meta {
                above.no_defaults = Some("inside additionalProperties applying to object metadata".into());
            }
            let scope = scope.map(|s| s.child(source, additional));
            self.below(found, additional, &at, &above, scope.as_ref());
        }
    }

    fn properties(
        &mut self,
        found: &mut Found,
        source: &Value,
        path: &Path<'_>,
        above: &Above,
        scope: Option<&Scope<'_>>,
        root: bool,
    ) {
        let (properties, map_type) = (path.field("properties"), source.text(MAP_TYPE));
        let correlated = matches!(map_type, "" | "granular" | "atomic");
        let whole = root || source.flag("x-kubernetes-embedded-resource");
        for (name, below) in source.entries("properties") {
            let mut above = above.clone();
            if !correlated && above.uncorrelated.is_none() {
                above.uncorrelated = Some(path.to_string());
            }
            if whole && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
                above.object_meta = true;
                if root {
                    above.no_defaults = Some(format!("in top-level {name}"));
                }
            }
            let scope = scope.map(|s| s.child(source, below));
            self.below(found, below, &properties.key(name), &above, scope.as_ref());
        }
    }

    /// Schemas that are put together; rules in them are refused as not structural.
    fn parts(&mut self, found: &mut Found, source: &Value, path: &Path<'_>, above: &Above) {
        if source.at("not").is_object() {
            self.below(found, source.at("not"), &path.field("not"), above, None);
        }
        for name in ["allOf", "oneOf", "anyOf"] {
            let list = path.field(name);
            for (i, below) in source.list(name).iter().enumerate() {
                self.below(found, below, &list.index(i), above, None);
            }
        }
        for name in ["definitions", "dependencies"] {
            let map = path.field(name);
            for (key, below) in source.entries(name).filter(|(_, below)| below.is_object()) {
                self.below(found, below, &map.key(key), above, None);
            }
        }
    }

    fn items(&mut self, found: &mut Found, source: &Value, path: &Path<'_>, above: &Above, scope: Option<&Scope<'_>>) {
        let mut above = above.clone();
        if source.text(LIST_TYPE) != "map" && above.uncorrelated.is_none() {
            above.uncorrelated = Some(path.to_string());
        }
        let (items, at) = (source.at("items"), path.field("items"));
        if items.is_object() {
            let scope = scope.map(|s| s.child(source, items));
            self.below(found, items, &at, &above, scope.as_ref());
        }
        for (i, below) in source.list("items").iter().enumerate() {
            self.below(found, below, &at.index(i), &above, None);
        }
    }
}

fn unsupported(errors: &mut Errors, source: &Value, path: &Path<'_>, above: &Above) {
    let kind = source.text("type");
    if !kind.is_empty() {
        errors.one_of(&path.field("type"), kind, &TYPES);
    }
    if let Some(why) = above.no_defaults.as_ref().filter(|_| source.has("default")) {
        errors.forbidden(&path.field("default"), &format!("must not be set {why}"));
    }
    if !source.text("id").is_empty() {
        errors.forbidden(&path.field("id"), "id is not supported");
    }
    if source.has("additionalItems") {
        errors.forbidden(&path.field("additionalItems"), "additionalItems is not supported");
    }
    for name in ["patternProperties", "definitions", "dependencies"] {
        let empty = name == "dependencies" && source.has(name);
        if empty || source.entries(name).next().is_some() {
            errors.forbidden(&path.field(name), &format!("{name} is not supported"));
        }
    }
    if source.has("$ref") {
        errors.forbidden(&path.field("$ref"), "$ref is not supported");
    }
    if kind == "null" {
        errors.forbidden(&path.field("type"), "type cannot be set to null, use nullable as an alternative");
    }
    if !source.list("items").is_empty() {
        errors.forbidden(&path.field("items"), "items must be a schema object and not an array");
    }
    if above.object_meta && source.flag("x-kubernetes-embedded-resource") {
        errors.forbidden(&path.field("x-kubernetes-embedded-resource"), "must not be used inside of resource meta");
    }
    if source.flag("uniqueItems") {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(&path.field("uniqueItems"), why);
    }
}

fn extensions(errors: &mut Errors, source: &Value, path: &Path<'_>) {
    let preserve = "x-kubernetes-preserve-unknown-fields";
    if source.at(preserve) == &Value::Bool(false) {
        errors.invalid(&path.field(preserve), false, "must be true or undefined");
    }
    if source.has(MAP_TYPE) {
        of_type(errors, source, path, "object", MAP_TYPE);
        errors.one_of(&path.field(MAP_TYPE), source.text(MAP_TYPE), &["atomic", "granular"]);
    }
    if !source.has(LIST_TYPE) {
        return;
    }
    let items = path.field("items");
    if of_type(errors, source, path, "array", LIST_TYPE) && source.text(LIST_TYPE) == "set" {
        let (below, why) = (source.at("items"), "must be atomic as item of a list with x-kubernetes-list-type=set");
        let printed = below.at(LIST_TYPE).clone();
        match below.text("type") {
            "array" if !matches!(below.text(LIST_TYPE), "" | "atomic") => {
                errors.invalid(&items.field(LIST_TYPE), printed, why);
            }
            "object" if below.text(MAP_TYPE) != "atomic" => errors.invalid(&items.field(MAP_TYPE), printed, why),
            _ => {}
        }
    }
    errors.one_of(&path.field(LIST_TYPE), source.text(LIST_TYPE), &["atomic", "set", "map"]);
}

fn of_type(errors: &mut Errors, source: &Value, path: &Path<'_>, wanted: &str, extension: &str) -> bool {
    let (kind, why) = (source.text("type"), format!("must be {wanted} if {extension} is specified"));
    match kind {
        "" => errors.required(&path.field("type"), &why),
        kind if kind != wanted => errors.invalid(&path.field("type"), kind, &why),
        _ => return true,
    }
    false
}

/// The keys of lists that are maps.
fn keys(errors: &mut Errors, source: &Value, path: &Path<'_>) {
    let (list_type, keys) = (source.text(LIST_TYPE), source.texts(LIST_KEYS));
    let (at, items) = (path.field(LIST_KEYS), path.field("items"));
    if !keys.is_empty() && list_type != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        match source.has(LIST_TYPE) {
            false => errors.required(&path.field(LIST_TYPE), why),
            true => errors.invalid(&path.field(LIST_TYPE), list_type, why),
        }
    }
    if list_type == "map" {
        if keys.is_empty() {
            errors.required(&at, "must not be empty if x-kubernetes-list-type is map");
        }
        if !source.has("items") {
            errors.required(&items, "must have a schema if x-kubernetes-list-type is map");
        } else if source.at("items").text("type") != "object" {
            let why = "must be object if parent array's x-kubernetes-list-type is map";
            errors.invalid(&items.field("type"), source.at("items").text("type"), why);
        } else {
            named_keys(errors, source, &keys, path);
        }
    }
    if matches!(list_type, "set" | "map") && source.at("items").is_object() {
        keys_are_present(errors, source, &keys, path);
    }
}

fn named_keys(errors: &mut Errors, source: &Value, keys: &[&str], path: &Path<'_>) {
    let (at, items) = (path.field(LIST_KEYS), path.field("items"));
    let (below, properties) = (source.at("items"), items.field("properties"));
    let twice = repeated(keys.iter());
    for (key, twice) in keys.iter().zip(twice) {
        let kind = below.at("properties").at(key).text("type");
        if !below.at("properties").has(key) {
            errors.add(|| {
                Cause::invalid(at.to_string(), &keys.to_vec().into(), "entries must all be names of item properties")
            });
        } else if matches!(kind, "array" | "object") {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.invalid(&properties.key(key).field("type"), below.text("type"), why);
        }
        if twice {
            errors.add(|| Cause::invalid(at.to_string(), &keys.to_vec().into(), "must not contain duplicate entries"));
        }
    }
}

fn keys_are_present(errors: &mut Errors, source: &Value, keys: &[&str], path: &Path<'_>) {
    let (below, items) = (source.at("items"), path.field("items"));
    if below.flag("nullable") {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {}", source.text(LIST_TYPE));
        errors.forbidden(&items.field("nullable"), &why);
    }
    if source.text(LIST_TYPE) != "map" {
        return;
    }
    let properties = items.field("properties");
    let required: HashSet<&str> = below.texts("required").into_iter().collect();
    for key in keys.iter().filter(|key| below.at("properties").has(key)) {
        let (property, at) = (below.at("properties").at(key), properties.key(key));
        if !required.contains(key) && !property.has("default") {
            let why =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&at.field("default"), why);
        }
        if property.flag("nullable") {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.forbidden(&at.field("nullable"), why);
        }
    }
}

/// Whether a rule may blame a field of a structural schema.
pub(super) fn is_path(source: &Value, path: &str) -> bool {
    paths::find(source, path, true).is_ok()
}
