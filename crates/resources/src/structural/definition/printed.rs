//! Schemas as Go prints them, and the error that does so: what a status subresource forbids at the root.

use crate::field::{Errors, Fields, Path};
use serde_json::Value;

/// Fields of a schema in upstream's order, as JSON and as Go name them; whether the root of a schema may have the
/// field when the status is a subresource; and what its zero value is printed as.
const FIELDS: [(&str, &str, bool, &str); 44] = [
    ("id", "ID", false, "\"\""),
    ("$schema", "Schema", false, "\"\""),
    ("$ref", "Ref", false, "null"),
    ("description", "Description", true, "\"\""),
    ("type", "Type", true, "\"\""),
    ("nullable", "Nullable", false, "false"),
    ("format", "Format", true, "\"\""),
    ("title", "Title", true, "\"\""),
    ("default", "Default", false, "null"),
    ("maximum", "Maximum", true, "null"),
    ("exclusiveMaximum", "ExclusiveMaximum", true, "false"),
    ("minimum", "Minimum", true, "null"),
    ("exclusiveMinimum", "ExclusiveMinimum", true, "false"),
    ("maxLength", "MaxLength", true, "null"),
    ("minLength", "MinLength", true, "null"),
    ("pattern", "Pattern", true, "\"\""),
    ("maxItems", "MaxItems", true, "null"),
    ("minItems", "MinItems", true, "null"),
    ("uniqueItems", "UniqueItems", true, "false"),
    ("multipleOf", "MultipleOf", true, "null"),
    ("enum", "Enum", false, "null"),
    ("maxProperties", "MaxProperties", false, "null"),
    ("minProperties", "MinProperties", false, "null"),
    ("required", "Required", true, "null"),
    ("items", "Items", true, "null"),
    ("allOf", "AllOf", false, "null"),
    ("oneOf", "OneOf", false, "null"),
    ("anyOf", "AnyOf", false, "null"),
    ("not", "Not", false, "null"),
    ("properties", "Properties", true, "null"),
    ("additionalProperties", "AdditionalProperties", false, "null"),
    ("patternProperties", "PatternProperties", false, "null"),
    ("dependencies", "Dependencies", false, "null"),
    ("additionalItems", "AdditionalItems", false, "null"),
    ("definitions", "Definitions", false, "null"),
    ("externalDocs", "ExternalDocs", true, "null"),
    ("example", "Example", true, "null"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields", true, "null"),
    ("x-kubernetes-embedded-resource", "XEmbeddedResource", false, "false"),
    ("x-kubernetes-int-or-string", "XIntOrString", false, "false"),
    ("x-kubernetes-list-map-keys", "XListMapKeys", false, "null"),
    ("x-kubernetes-list-type", "XListType", false, "null"),
    ("x-kubernetes-map-type", "XMapType", false, "null"),
    ("x-kubernetes-validations", "XValidations", true, "null"),
];

/// The status of an object is validated by what the root says of its field alone, so the root may say little else.
pub(super) fn root_of_status(errors: &mut Errors, source: &Value, path: &Path<'_>) {
    for (field, _, allowed, zero) in FIELDS {
        let value = source.at(field);
        if value.is_null() || value.to_string() == zero {
            continue;
        }
        if field == "type" && value != "object" {
            let why =
                "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
            return errors.invalid(&path.field("type"), value.clone(), why);
        }
        if !allowed {
            let names: Vec<_> = FIELDS.iter().filter(|f| f.2).map(|f| f.1).collect();
            let why = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                names.join(" ")
            );
            return errors.invalid_printed(path, || schema(source), &why);
        }
    }
}

/// A version of a definition as Go prints it; `shown`: whether a part is said of the version alone.
pub(crate) fn version(version: &Value, shown: impl Fn(&str) -> bool) -> String {
    let part = |name: &str| if shown(name) { version.at(name) } else { &Value::Null };
    let openapi = match part("schema") {
        Value::Null => "null".to_owned(),
        of => format!("{{\"OpenAPIV3Schema\":{}}}", or_null(of.at("openAPIV3Schema"), schema)),
    };
    format!(
        "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":{openapi},\"Subresources\":{},\"AdditionalPrinterColumns\":{},\"SelectableFields\":{}}}",
        text(version, "name"),
        version.flag("served"),
        version.flag("storage"),
        version.flag("deprecated"),
        go_json(version.at("deprecationWarning")),
        or_null(part("subresources"), subresources),
        list(part("additionalPrinterColumns"), column),
        list(part("selectableFields"), |of| format!("{{\"JSONPath\":{}}}", text(of, "jsonPath"))),
    )
}

fn text(of: &Value, name: &str) -> String {
    go_json(&of.text(name).into())
}

fn or_null(of: &Value, print: impl Fn(&Value) -> String) -> String {
    if of.is_null() { "null".into() } else { print(of) }
}

/// A list of none prints as such.
fn list(of: &Value, item: impl Fn(&Value) -> String) -> String {
    match of.as_array() {
        Some(items) if !items.is_empty() => format!("[{}]", items.iter().map(item).collect::<Vec<_>>().join(",")),
        _ => "null".to_owned(),
    }
}

fn subresources(of: &Value) -> String {
    let scale = |scale: &Value| {
        format!(
            "{{\"SpecReplicasPath\":{},\"StatusReplicasPath\":{},\"LabelSelectorPath\":{}}}",
            text(scale, "specReplicasPath"),
            text(scale, "statusReplicasPath"),
            go_json(scale.at("labelSelectorPath"))
        )
    };
    let status = if of.has("status") { "{}" } else { "null" };
    format!("{{\"Status\":{status},\"Scale\":{}}}", or_null(of.at("scale"), scale))
}

fn column(of: &Value) -> String {
    format!(
        "{{\"Name\":{},\"Type\":{},\"Format\":{},\"Description\":{},\"Priority\":{},\"JSONPath\":{}}}",
        text(of, "name"),
        text(of, "type"),
        text(of, "format"),
        text(of, "description"),
        of.int("priority").unwrap_or(0),
        text(of, "jsonPath")
    )
}

/// A schema as Go prints it.
fn schema(source: &Value) -> String {
    let field = |(name, go, _, zero): &(&str, &str, bool, &str)| {
        let value = source.at(name);
        let text = match (*name, value) {
            (_, Value::Null) => (*zero).to_owned(),
            ("items", items) => format!("{{\"Schema\":{},\"JSONSchemas\":null}}", schema(items)),
            ("additionalProperties" | "additionalItems", Value::Bool(allows)) => {
                format!("{{\"Allows\":{allows},\"Schema\":null}}")
            }
            ("additionalProperties" | "additionalItems", below) => {
                format!("{{\"Allows\":true,\"Schema\":{}}}", schema(below))
            }
            ("allOf" | "oneOf" | "anyOf", Value::Array(list)) => {
                format!("[{}]", list.iter().map(schema).collect::<Vec<_>>().join(","))
            }
            ("not", below) => schema(below),
            ("properties" | "patternProperties" | "definitions", Value::Object(map)) => {
                let entries = map.iter().map(|(key, below)| format!("{}:{}", Value::from(key.as_str()), schema(below)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
            }
            ("x-kubernetes-validations", Value::Array(list)) => {
                format!("[{}]", list.iter().map(rule).collect::<Vec<_>>().join(","))
            }
            ("externalDocs", docs) => {
                let (text, url) = (Value::from(docs.text("description")), Value::from(docs.text("url")));
                format!("{{\"Description\":{text},\"URL\":{url}}}")
            }
            (_, value) => go_json(value),
        };
        format!("\"{go}\":{text}")
    };
    format!("{{{}}}", FIELDS.iter().map(field).collect::<Vec<_>>().join(","))
}

/// A rule as Go prints it.
pub(super) fn rule(rule: &Value) -> String {
    let text = |name: &str| go_json(&rule.text(name).into());
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        text("rule"),
        text("message"),
        text("messageExpression"),
        go_json(rule.at("reason")),
        text("fieldPath"),
        rule.at("optionalOldSelf")
    )
}

/// JSON with Go's escapes for what HTML reads.
fn go_json(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}
