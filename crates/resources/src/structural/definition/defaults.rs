//! Defaults must be valid, and have no fields that would be pruned.

use crate::field::{Errors, Fields, Path};
use crate::structural::Schema;
use crate::structural::rules::Budget;
use api::Cause;
use serde_json::{Value, json};

/// Where a schema stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// Inside the type or metadata of a whole object.
    object_meta: bool,
    /// The schema of the whole object, and the way from there.
    whole: &'a Value,
    way: &'a [&'a str],
}

/// Checks every default of a schema, but for those of maps' values, which have none.
pub(super) fn check(errors: &mut Errors, source: &Value, path: &Path<'_>) {
    let mut budget = Budget::of_object();
    node(errors, source, path, Place { object_meta: false, whole: source, way: &[] }, true, &mut budget);
}

fn node<'a>(
    errors: &mut Errors,
    source: &'a Value,
    path: &Path<'_>,
    mut place: Place<'a>,
    root: bool,
    budget: &mut Budget,
) {
    let whole = root || source.flag("x-kubernetes-embedded-resource");
    if whole {
        place = Place { object_meta: false, whole: source, way: &[] };
    }
    if let Some(default) = source.get("default").filter(|d| !d.is_null()) {
        let at = path.field("default");
        match place.object_meta {
            true => of_metadata(errors, source, default, place, &at, budget),
            false => of_value(errors, source, default, whole, &at, budget),
        }
    }
    if source.at("items").is_object() {
        node(errors, source.at("items"), &path.field("items"), place, false, budget);
    }
    let properties = path.field("properties");
    for (name, below) in source.entries("properties") {
        let mut way = place.way.to_vec();
        way.push(name);
        let inside = whole && matches!(name.as_str(), "metadata" | "apiVersion" | "kind");
        let place = Place { object_meta: place.object_meta || inside, whole: place.whole, way: &way };
        node(errors, below, &properties.key(name), place, false, budget);
    }
}

fn of_value(errors: &mut Errors, source: &Value, default: &Value, whole: bool, at: &Path<'_>, budget: &mut Budget) {
    let mut schema = Schema::of(source, whole);
    schema.set_embedded(whole);
    let mut pruned = default.clone();
    if !schema.prune_value(0, &mut pruned).is_empty() {
        errors.invalid(at, default.clone(), "must not have unknown fields");
    }
    let mut found = Vec::from_iter(schema.uncoerced(&mut default.clone(), &mut Vec::new()));
    if found.is_empty() {
        schema.embedded_errors(default, &mut found);
    }
    without_dots(&mut found);
    if found.is_empty() {
        schema.check(0, default, "", &mut found);
    }
    if found.is_empty() {
        schema.rules_of_default(default, budget, &mut found);
        without_dots(&mut found);
    }
    errors.0.extend(found.into_iter().map(|cause| below(at, cause)));
}

/// A default of a part of a whole object's type or metadata is judged as the object that it makes.
fn of_metadata(
    errors: &mut Errors,
    source: &Value,
    default: &Value,
    place: Place<'_>,
    at: &Path<'_>,
    budget: &mut Budget,
) {
    let mut object = default.clone();
    for name in place.way.iter().rev() {
        object = json!({*name: object});
    }
    for field in ["apiVersion", "kind"] {
        if !object.has(field) {
            object[field] = if field == "kind" { "Validation".into() } else { "validation/v1".into() };
        }
    }
    let mut whole = Schema::of(place.whole, true);
    whole.set_embedded(true);
    let mut found = Vec::new();
    whole.embedded_errors(&object, &mut found);
    if !found.is_empty() {
        let texts: Vec<_> = found.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let all = if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) };
        return errors.invalid(at, default.clone(), &format!("must result in valid metadata: {all}"));
    }
    let schema = Schema::of(source, false);
    schema.check(0, default, "", &mut found);
    if found.is_empty() {
        schema.rules_of_default(default, budget, &mut found);
    }
    errors.0.extend(found.into_iter().map(|cause| below(at, cause)));
}

/// Marks errors whose places are paths, not the names that the validator of values gives.
fn without_dots(found: &mut [Cause]) {
    for cause in found.iter_mut().filter(|cause| cause.field.starts_with('[')) {
        cause.field.insert_str(0, NO_DOT);
    }
}

/// Begins the field of an error that goes on from its default without a dot.
const NO_DOT: &str = "\u{0}";

/// The error of a default at its place in the schema.
fn below(at: &Path<'_>, mut cause: Cause) -> Cause {
    cause.field = match cause.field.as_str() {
        "" | "<nil>" => at.to_string(),
        below if below.starts_with(NO_DOT) => format!("{at}{}", &below[NO_DOT.len()..]),
        below => format!("{at}.{below}"),
    };
    cause
}
