//! The parts of a version: deprecation, schema, subresources, columns, selectable fields.

use super::spec::Before;
use crate::field::{Errors, Fields, Path};
use crate::structural::definition as structural;
use serde_json::Value;

/// The parts that versions may have in common: their fields, and their names where they do.
pub(super) const PARTS: [(&str, &str); 4] = [
    ("schema", "validation.openAPIV3Schema"),
    ("subresources", "subresources"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

/// What is known beside a part of a version.
#[derive(Clone, Copy)]
pub(super) struct Around {
    /// The status is a subresource.
    pub status: bool,
    /// The schema stands at the same place: with all versions, or with this one.
    pub schema: bool,
    /// The part is said of all versions.
    pub shared: bool,
}

/// Checks one part of a version.
pub(super) fn part(
    errors: &mut Errors,
    version: &Value,
    path: &Path<'_>,
    name: &str,
    around: Around,
    before: &Before<'_>,
) {
    match name {
        "schema" if version.at("schema").has("openAPIV3Schema") => {
            let unchanged = before.same_schema(version);
            let options = structural::Options { status: around.status, unchanged };
            structural::schema(errors, version.at("schema").at("openAPIV3Schema"), path, options);
        }
        "subresources" => scale(errors, version.at("subresources").at("scale"), &path.field("scale")),
        "additionalPrinterColumns" => columns(errors, version, path),
        "selectableFields" => selectable(errors, version, path, around),
        _ => {}
    }
}

/// Selectable fields come with the schema that they are looked up in.
fn selectable(errors: &mut Errors, version: &Value, path: &Path<'_>, around: Around) {
    if version.list("selectableFields").is_empty() {
        return;
    }
    let schema = version.at("schema").at("openAPIV3Schema");
    match (around.schema && !schema.is_null(), around.shared) {
        (true, _) => match structural::unstructured(schema) {
            Some(why) if around.shared => errors.invalid(&Path::root("spec.schema.openAPIV3Schema"), "", &why),
            Some(_) => {}
            None => structural::selectable(errors, version, path),
        },
        (false, true) => errors.invalid(path, "", "may only be set when validations.schema is included"),
        (false, false) => {
            errors.invalid(path, "", "may only be set when `version.schema.openAPIV3Schema` is not included");
        }
    }
}

/// Checks the warning of a deprecated version.
pub(super) fn deprecation(errors: &mut Errors, version: &Value, path: &Path<'_>) {
    let Some(text) = version.at("deprecationWarning").as_str() else { return };
    let at = path.field("deprecationWarning");
    if !version.flag("deprecated") {
        return errors.invalid(&at, text, "can only be set for deprecated versions");
    }
    if text.len() > 256 {
        errors.invalid(&at, text, "must be <= 256 characters long");
    }
    if text.is_empty() {
        errors.invalid(&at, text, "must not be an empty string");
    }
    if let Some((i, _)) = text.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' ')) {
        let why = format!("must only contain printable UTF-8 characters; non-printable character found at index {i}");
        errors.invalid(&at, text, &why);
    }
}

fn columns(errors: &mut Errors, version: &Value, path: &Path<'_>) {
    let types = ["boolean", "date", "integer", "number", "string"];
    let formats = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    for (i, column) in version.list("additionalPrinterColumns").iter().enumerate() {
        let item = path.index(i);
        if column.text("name").is_empty() {
            errors.required(&item.field("name"), "");
        }
        match column.text("type") {
            "" => errors.required(&item.field("type"), &format!("must be one of {}", types.join(","))),
            kind if !types.contains(&kind) => {
                errors.invalid(&item.field("type"), kind, &format!("must be one of {}", types.join(",")));
            }
            _ => {}
        }
        let format = column.text("format");
        if !format.is_empty() && !formats.contains(&format) {
            errors.invalid(&item.field("format"), format, &format!("must be one of {}", formats.join(",")));
        }
        match column.text("jsonPath") {
            "" => errors.required(&item.field("JSONPath"), ""),
            text => drop(simple_path(errors, text, &item.field("JSONPath"))),
        }
    }
}

fn scale(errors: &mut Errors, scale: &Value, path: &Path<'_>) {
    if scale.is_null() {
        return;
    }
    for (field, roots, where_) in [
        ("specReplicasPath", &[".spec."][..], ".spec"),
        ("statusReplicasPath", &[".status."], ".status"),
        ("labelSelectorPath", &[".spec.", ".status."], "either .spec or .status"),
    ] {
        let (text, at) = (scale.text(field), path.field(field));
        match text {
            "" if field == "labelSelectorPath" => {}
            "" => errors.required(&at, ""),
            text => {
                if simple_path(errors, text, &at) && !roots.iter().any(|root| text.starts_with(root)) {
                    errors.invalid(&at, text, &format!("should be a json path under {where_}"));
                }
            }
        }
    }
}

fn simple_path(errors: &mut Errors, text: &str, path: &Path<'_>) -> bool {
    let simple = text.starts_with('.');
    if !simple {
        errors.invalid(path, text, "must be a simple json path starting with .");
    }
    simple
}
