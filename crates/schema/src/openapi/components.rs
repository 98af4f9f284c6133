//! Schemas as OpenAPI v3 components or v2 definitions.

use super::descriptions::Descriptions;
use crate::types::{Field, Kind, Schema, Type};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Which OpenAPI is spoken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    V2,
    V3,
}

impl Flavour {
    pub(super) fn reference(self, name: &str) -> Value {
        let base = if self == Self::V3 { "#/components/schemas/" } else { "#/definitions/" };
        json!({"$ref": format!("{base}{name}")})
    }
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";

/// Name of a definition that is no struct of ours.
fn special_name(kind: Kind) -> Option<String> {
    Some(match kind {
        Kind::Quantity => "io.k8s.apimachinery.pkg.api.resource.Quantity".into(),
        Kind::IntOrString => "io.k8s.apimachinery.pkg.util.intstr.IntOrString".into(),
        Kind::RawExtension => "io.k8s.apimachinery.pkg.runtime.RawExtension".into(),
        Kind::Time => format!("{META}.Time"),
        Kind::MicroTime => format!("{META}.MicroTime"),
        Kind::Duration => format!("{META}.Duration"),
        Kind::FieldsV1 => format!("{META}.FieldsV1"),
        Kind::Json => format!("{EXTENSIONS}.JSON"),
        Kind::SchemaOrArray => format!("{EXTENSIONS}.JSONSchemaPropsOrArray"),
        Kind::SchemaOrBool => format!("{EXTENSIONS}.JSONSchemaPropsOrBool"),
        Kind::SchemaOrStrings => format!("{EXTENSIONS}.JSONSchemaPropsOrStringArray"),
        _ => return None,
    })
}

/// Definitions to write, those they refer to included.
#[derive(Default)]
pub(super) struct Closure {
    pub(super) schemas: BTreeSet<&'static str>,
    pub(super) specials: BTreeSet<String>,
}

impl Closure {
    pub(super) fn add(&mut self, schema: Schema) {
        if !self.schemas.insert(schema.name()) {
            return;
        }
        for field in schema.flat_fields() {
            self.add_type(field.ty());
        }
    }

    fn add_type(&mut self, ty: Type) {
        if let Some(element) = ty.element() {
            self.add_type(element);
        } else if let Some(schema) = ty.schema() {
            self.add(schema);
        } else {
            self.specials.extend(special_name(ty.kind()));
        }
    }
}

/// A definition that is no struct.
pub(super) fn special(name: &str, flavour: Flavour, texts: &Descriptions) -> Value {
    let mut form = special_form(name, flavour == Flavour::V3);
    if let Some(map) = form.as_object_mut() {
        describe(map, texts.of_special(name));
    }
    form
}

fn special_form(name: &str, v3: bool) -> Value {
    match name.rsplit('.').next().unwrap_or(name) {
        "Quantity" if v3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        "IntOrString" if v3 => json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        "IntOrString" => json!({"type": "string", "format": "int-or-string"}),
        "Time" | "MicroTime" => json!({"type": "string", "format": "date-time"}),
        "Quantity" | "Duration" => json!({"type": "string"}),
        "RawExtension" | "FieldsV1" | "Patch" => json!({"type": "object"}),
        _ => json!({}),
    }
}

/// A struct's definition. `groups` are the group versions whose documents name it as a kind.
pub(super) fn definition(schema: Schema, flavour: Flavour, texts: &Descriptions, groups: &[(&str, &str)]) -> Value {
    let mut out = Map::new();
    describe(&mut out, texts.of_schema(schema));
    out.insert("type".into(), "object".into());
    let fields = schema.flat_fields();
    let required: Vec<&str> = fields.iter().filter(|f| f.is_required()).map(|f| f.name()).collect();
    if !required.is_empty() {
        out.insert("required".into(), json!(required));
    }
    if !fields.is_empty() {
        let properties: Map<String, Value> =
            fields.iter().map(|f| (f.name().to_owned(), property(*f, flavour, texts))).collect();
        out.insert("properties".into(), properties.into());
    }
    let kinds = kinds(schema, groups);
    if !kinds.is_empty() {
        out.insert("x-kubernetes-group-version-kind".into(), kinds.into());
    }
    if schema.is_atomic() {
        out.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    out.into()
}

fn kinds(schema: Schema, groups: &[(&str, &str)]) -> Vec<Value> {
    let gvk = |group: &str, version: &str| json!({"group": group, "version": version, "kind": schema.kind_name()});
    match schema.gvk() {
        "" => Vec::new(),
        "(many)" => groups.iter().map(|(g, v)| gvk(g, v)).collect(),
        one => {
            let mut parts = one.splitn(3, '/');
            vec![gvk(parts.next().unwrap_or_default(), parts.next().unwrap_or_default())]
        }
    }
}

fn describe(out: &mut Map<String, Value>, text: String) {
    if !text.is_empty() {
        out.insert("description".into(), text.into());
    }
}

fn property(field: Field, flavour: Flavour, texts: &Descriptions) -> Value {
    let mut out = match value(field.ty(), flavour) {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let mut text = texts.of_field(field);
    let values = field.enumeration();
    if !values.is_empty() {
        match out.get_mut("items") {
            Some(items) => items["enum"] = json!(values),
            None => {
                // Upstream adds a sentence for each value; those are not ours to repeat.
                let list: Vec<String> = values.iter().map(|value| format!(" - `{:?}`", value)).collect();
                text.push_str(&format!("\n\nPossible enum values:\n{}", list.join("\n")));
                out.insert("enum".into(), json!(values));
            }
        }
    }
    describe(&mut out, text);
    if let Some(default) = default(field, flavour) {
        out.insert("default".into(), default);
    }
    let facts = field.facts();
    for (key, fact) in [
        ("x-kubernetes-patch-strategy", facts.patch_strategy),
        ("x-kubernetes-patch-merge-key", facts.patch_merge_key),
        ("x-kubernetes-list-type", facts.list_type),
        ("x-kubernetes-map-type", facts.map_type),
    ] {
        if !fact.is_empty() {
            out.insert(key.into(), fact.into());
        }
    }
    if !facts.list_map_keys.is_empty() {
        out.insert("x-kubernetes-list-map-keys".into(), json!(facts.list_map_keys));
    }
    // In v3 nothing may stand beside a $ref.
    if flavour == Flavour::V3
        && out.len() > 1
        && let Some(reference) = out.remove("$ref")
    {
        out.insert("allOf".into(), json!([{"$ref": reference}]));
    }
    out.into()
}

fn default(field: Field, flavour: Flavour) -> Option<Value> {
    if flavour == Flavour::V2 {
        return None;
    }
    field.default().or_else(|| {
        let ty = field.ty();
        match ty.kind() {
            Kind::Struct if !ty.is_pointer() && !field.is_omitzero() => Some(json!({})),
            Kind::String if !ty.is_pointer() && !field.is_omitempty() => Some("".into()),
            _ => None,
        }
    })
}

fn value(ty: Type, flavour: Flavour) -> Value {
    if let Some(name) = special_name(ty.kind()) {
        return flavour.reference(&name);
    }
    let element = || ty.element().map_or(json!({}), |e| value(e, flavour));
    match ty.kind() {
        Kind::String => json!({"type": "string"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Int32 => json!({"type": "integer", "format": "int32"}),
        Kind::Int64 => json!({"type": "integer", "format": "int64"}),
        Kind::Float64 => json!({"type": "number", "format": "double"}),
        Kind::Bytes => json!({"type": "string", "format": "byte"}),
        Kind::List => json!({"type": "array", "items": element()}),
        Kind::Map => json!({"type": "object", "additionalProperties": element()}),
        _ => ty.schema().map_or(json!({}), |s| flavour.reference(s.name())),
    }
}
