//! What a definition asks for.

use super::versions::{self, Around, PARTS};
use super::{SPEC, conversion, names};
use crate::field::{Errors, Fields, repeated, same};
use crate::names as rules;
use crate::structural::definition::printed_version;
use api::Object;
use serde_json::Value;
use std::collections::HashMap;

/// What the definition was before.
pub(super) struct Before<'a> {
    versions: HashMap<&'a str, &'a Value>,
    /// Whether it was established: its scope and kind are what objects are stored by.
    pub established: bool,
    /// Whether the certificates of its webhook need not be such.
    any_bundle: bool,
}

impl<'a> Before<'a> {
    /// There was none.
    pub fn nothing() -> Self {
        Self { versions: HashMap::new(), established: false, any_bundle: true }
    }

    /// It was this.
    pub fn of(old: &'a Object) -> Self {
        let conditions = old.at("status").list("conditions");
        let established = conditions.iter().any(|c| c.text("type") == "Established" && c.text("status") == "True");
        let bundle = old.at("spec").at("conversion").at("webhook").at("clientConfig").text("caBundle");
        let was_wrong = !bundle.is_empty() && conversion::bundle_of(bundle).is_err();
        let versions = by_name(old.at("spec").list("versions"));
        Self { versions, established, any_bundle: !established || was_wrong }
    }

    /// Whether a version had this schema before.
    pub fn same_schema(&self, version: &Value) -> bool {
        self.versions.get(version.text("name")).is_some_and(|old| same(old.at("schema"), version.at("schema")))
    }
}

/// Versions by their names; of versions with the same name the first one.
fn by_name(versions: &[Value]) -> HashMap<&str, &Value> {
    versions.iter().rev().map(|version| (version.text("name"), version)).collect()
}

/// Checks the `spec` of a definition.
pub(super) fn definition(errors: &mut Errors, obj: &Object, before: &Before<'_>) {
    let spec = obj.at("spec");
    let (group, path) = (spec.text("group"), SPEC.field("group"));
    if group.is_empty() {
        errors.required(&path, "");
    } else {
        let wrong = rules::dns1123_subdomain(group, false);
        if !wrong.is_empty() {
            errors.invalid(&path, group, &wrong.join(","));
        } else if !group.contains('.') {
            errors.invalid(&path, group, "should be a domain with at least one dot");
        }
    }
    let path = SPEC.field("scope");
    match spec.text("scope") {
        "" => errors.required(&path, ""),
        scope => errors.one_of(&path, scope, &["Cluster", "Namespaced"]),
    }
    each_version(errors, spec, before);
    together(errors, spec);
    names::of_spec(errors, spec.at("names"), &SPEC.field("names"));
    in_common(errors, spec, before);
    conversion::check(errors, spec, &SPEC.field("conversion"), before.any_bundle);
}

fn each_version(errors: &mut Errors, spec: &Value, before: &Before<'_>) {
    let (list, path) = (spec.list("versions"), SPEC.field("versions"));
    for (i, version) in list.iter().enumerate() {
        if !version.at("schema").has("openAPIV3Schema") {
            errors.required(&path.index(i).field("schema.openAPIV3Schema"), "");
        }
    }
    if spec.flag("preserveUnknownFields") && list.iter().any(|v| has_default(v.at("schema"))) {
        let why = "must be false in order to use defaults in the schema";
        errors.invalid(&SPEC.field("preserveUnknownFields"), true, why);
    }
    let (named, schema) = (by_name(list), !common(list, "schema"));
    let parts: Vec<_> = PARTS.iter().filter(|(part, _)| !common(list, part)).collect();
    for (i, version) in list.iter().enumerate() {
        let (item, name) = (path.index(i), version.text("name"));
        let wrong = rules::dns1035_label(name, false);
        if !wrong.is_empty() {
            errors.invalid(&item.field("name"), name, &wrong.join(","));
        }
        versions::deprecation(errors, version, &item);
        let status = named.get(name).is_some_and(|named| named.at("subresources").has("status"));
        for (part, _) in &parts {
            let name = if *part == "schema" { "schema.openAPIV3Schema" } else { part };
            versions::part(errors, version, &item.field(name), part, Around { status, schema, shared: false }, before);
        }
    }
}

/// Whether a schema has a default anywhere.
fn has_default(source: &Value) -> bool {
    match source {
        Value::Object(map) => map.iter().any(|(key, below)| match key.as_str() {
            "default" => !below.is_null(),
            "properties" => below.as_object().is_some_and(|p| p.values().any(has_default)),
            _ => has_default(below),
        }),
        Value::Array(list) => list.iter().any(has_default),
        _ => false,
    }
}

/// What versions must be when they are looked at together.
fn together(errors: &mut Errors, spec: &Value) {
    let (list, path) = (spec.list("versions"), SPEC.field("versions"));
    if repeated(list.iter().map(|v| v.text("name"))).contains(&true) {
        errors.invalid_printed(&path, || printed(spec), "must contain unique version names");
    }
    if list.iter().filter(|v| v.flag("storage")).count() != 1 {
        errors.invalid_printed(&path, || printed(spec), "must have exactly one version marked as storage version");
    }
    if let Some(name) = list.first().map(|v| v.text("name")).filter(|name| !name.is_empty()) {
        // Upstream's internal form has the first version's name at the top, too.
        let wrong = rules::dns1035_label(name, false);
        if !wrong.is_empty() {
            errors.invalid(&SPEC.field("version"), name, &wrong.join(","));
        }
    }
}

/// Whether every version says the same.
pub(super) fn common(versions: &[Value], part: &str) -> bool {
    versions.windows(2).all(|pair| same(pair[0].at(part), pair[1].at(part)))
}

/// What all versions have in common.
fn in_common(errors: &mut Errors, spec: &Value, before: &Before<'_>) {
    let list = spec.list("versions");
    let Some(version) = list.first() else { return };
    let status = list.iter().any(|v| v.at("subresources").has("status"));
    let schema = common(list, "schema");
    for (part, name) in PARTS.iter().filter(|(part, _)| common(list, part)) {
        versions::part(errors, version, &SPEC.field(name), part, Around { status, schema, shared: true }, before);
    }
}

/// Versions as Go prints them, without what they have in common.
fn printed(spec: &Value) -> String {
    if spec.at("versions").is_null() {
        return "null".into();
    }
    let versions = spec.list("versions");
    let own = PARTS.map(|(part, _)| (part, !common(versions, part)));
    let one = |version: &Value| printed_version(version, |part| own.contains(&(part, true)));
    format!("[{}]", versions.iter().map(one).collect::<Vec<_>>().join(","))
}
