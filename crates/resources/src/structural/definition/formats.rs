//! Formats that schemas name and this server does not check: accepted with a warning.

use crate::field::Fields;
use crate::structural::formats;
use serde_json::Value;

/// The formats of a schema that are not known, in the order of its walk.
pub(crate) fn unrecognized(source: &Value) -> Vec<String> {
    let mut out = Vec::new();
    walk(source, &mut out);
    out
}

fn walk(source: &Value, out: &mut Vec<String>) {
    let (format, kind) = (source.text("format"), source.text("type"));
    let known = match kind {
        "" | "string" => formats::is_known(format),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    };
    if !format.is_empty() && !known {
        out.push(format.to_owned());
    }
    if source.at("items").is_object() {
        walk(source.at("items"), out);
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        source.list(name).iter().for_each(|below| walk(below, out));
    }
    if source.at("not").is_object() {
        walk(source.at("not"), out);
    }
    source.entries("properties").for_each(|(_, below)| walk(below, out));
    if source.at("additionalProperties").is_object() {
        walk(source.at("additionalProperties"), out);
    }
}
