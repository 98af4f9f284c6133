//! What merging needs to know of built-in kinds, looked up in `schema`.

use merge::{FieldFact, ListType, Scalar, Shape};
use schema::{Field, Kind, Schema, Type};
use serde_json::Value;
use std::borrow::Cow;

/// The facts of built-in kinds; schema names are those of their definitions.
pub struct BuiltIn;

impl merge::Facts for BuiltIn {
    fn field(&self, schema: &str, field: &str) -> Option<FieldFact> {
        Schema::find(schema)?.field(field).map(fact)
    }

    fn scalar(&self, schema: &str, field: &str) -> Option<Scalar> {
        scalar(Schema::find(schema)?.field(field)?.ty())
    }

    fn empty(&self, schema: &str) -> Value {
        super::meta::zero(schema)
    }

    fn reset_fields(&self, schema: &str, subresource: &str) -> &'static [&'static [&'static str]] {
        let has_status = Schema::find(schema).is_some_and(|s| s.field("status").is_some());
        match subresource {
            "" if schema == "io.k8s.api.certificates.v1.CertificateSigningRequest" => &[&["spec"], &["status"]],
            "" if has_status => &[&["status"]],
            "status" => &[&["spec"]],
            _ => &[],
        }
    }

    fn is_atomic(&self, schema: &str) -> bool {
        Schema::find(schema).is_some_and(Schema::is_atomic)
    }

    fn key_default(&self, schema: &str, key: &str) -> Option<Value> {
        key_default(Schema::find(schema)?.field(key)?)
    }
}

/// The default of a key: a field that Go always writes has its type's zero value.
fn key_default(field: Field) -> Option<Value> {
    let zero = || {
        let ty = field.ty();
        let written = !field.is_omitempty() && !field.is_omitzero() && !ty.is_pointer();
        match ty.kind() {
            _ if !written => None,
            Kind::String => Some("".into()),
            Kind::Int32 | Kind::Int64 => Some(0.into()),
            Kind::Bool => Some(false.into()),
            _ => None,
        }
    };
    field.default().or_else(zero)
}

fn fact(field: Field) -> FieldFact {
    let (ty, facts) = (field.ty(), field.facts());
    let strategies = || facts.patch_strategy.split(',');
    let schema = ty.innermost_schema();
    FieldFact {
        shape: shape(ty),
        schema: Cow::Borrowed(match ty.kind() {
            // Strategic merge looks for fields in it and finds none.
            Kind::RawExtension => "runtime.RawExtension",
            _ => schema.map_or("", Schema::name),
        }),
        patch_merge: strategies().any(|s| s == "merge"),
        patch_retain_keys: strategies().any(|s| s == "retainKeys"),
        patch_replace: strategies().any(|s| s == "replace"),
        patch_merge_key: Cow::Borrowed(facts.patch_merge_key),
        list_type: match facts.list_type {
            "set" => ListType::Set,
            "map" => ListType::Map,
            _ => ListType::Atomic,
        },
        list_map_keys: facts.list_map_keys.iter().map(|k| Cow::Borrowed(*k)).collect(),
        atomic: matches!(ty.kind(), Kind::RawExtension | Kind::Json)
            || facts.map_type == "atomic"
            || (facts.map_type != "granular" && ty.kind() == Kind::Struct && schema.is_some_and(Schema::is_atomic)),
    }
}

/// The type of a scalar, or of the scalars that a list or map holds.
fn scalar(ty: Type) -> Option<Scalar> {
    match ty.kind() {
        Kind::List | Kind::Map => scalar(ty.element()?),
        Kind::String | Kind::Duration | Kind::Bytes => Some(Scalar::String),
        Kind::Int32 | Kind::Int64 | Kind::Float64 => Some(Scalar::Numeric),
        Kind::Bool => Some(Scalar::Boolean),
        // An integer or a string is of no type that is checked before it is decoded.
        Kind::Quantity | Kind::Time | Kind::MicroTime => Some(Scalar::Any),
        _ => None,
    }
}

fn shape(ty: Type) -> Shape {
    match ty.kind() {
        // What declares no field may have any.
        Kind::Struct if ty.schema().is_some_and(|schema| schema.flat_fields().is_empty()) => Shape::Untyped,
        Kind::Struct => Shape::Struct,
        Kind::List => Shape::List,
        Kind::Map => Shape::Map,
        Kind::RawExtension | Kind::Json => Shape::Untyped,
        _ => Shape::Scalar,
    }
}

/// Forgets managers whose entries are of versions that objects of the resource do not have, as those of the other group
/// of events: what they own cannot be told.
pub fn forget_foreign(resource: &super::Resource, object: &mut Value) {
    let has = |version: &str| match api::GroupVersion::parse(version) {
        Some(gv) if gv.group != resource.group => false,
        Some(gv) => resource.custom.is_some() || schema::schema_name(&gv.group, &gv.version, &resource.kind).is_some(),
        None => true,
    };
    let is_own = |entry: &Value| entry.get("apiVersion").and_then(Value::as_str).is_none_or(has);
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let Some(entries) = metadata.get_mut("managedFields").and_then(Value::as_array_mut) else { return };
    let count = entries.len();
    entries.retain(is_own);
    // an empty list would be the wish to have no managers
    if entries.is_empty() && count > 0 {
        metadata.remove("managedFields");
    }
}

/// Whether every item of a list that is merged by keys has one of its keys. Upstream cannot tell the owners of an
/// object where it has not, and gives it no managedFields.
pub fn has_keys(schema: &str, object: &Value) -> bool {
    Schema::find(schema).is_none_or(|schema| struct_has_keys(schema, object))
}

fn struct_has_keys(schema: Schema, object: &Value) -> bool {
    let Some(map) = object.as_object() else { return true };
    map.iter().all(|(name, value)| match schema.field(name) {
        Some(field) => field_has_keys(field, value),
        None => true,
    })
}

fn field_has_keys(field: Field, value: &Value) -> bool {
    let Some(inner) = field.ty().innermost_schema() else { return true };
    let keys = field.facts().list_map_keys;
    let has_key = |item: &Value| {
        let of = |key: &&str| {
            item.get(*key).is_some_and(|v| !v.is_null()) || inner.field(key).and_then(key_default).is_some()
        };
        keys.is_empty() || keys.iter().any(|key| of(key))
    };
    match (field.ty().kind(), value) {
        (Kind::List, Value::Array(items)) => {
            let keyed = field.facts().list_type == "map";
            items.iter().all(|item| (!keyed || has_key(item)) && struct_has_keys(inner, item))
        }
        (Kind::Map, Value::Object(map)) => map.values().all(|item| struct_has_keys(inner, item)),
        (Kind::Struct, value) => struct_has_keys(inner, value),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use merge::Facts;

    #[test]
    fn items_without_keys_are_found() {
        let check = |object: Value, want: bool| {
            assert_eq!(has_keys("io.k8s.api.core.v1.ServiceAccount", &object), want, "{object}");
        };
        check(serde_json::json!({"secrets": [{"name": "a"}]}), true);
        check(serde_json::json!({"secrets": [{}]}), false);
        check(serde_json::json!({"metadata": {"ownerReferences": [{"name": "a"}]}}), true);
        let event = serde_json::json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "deprecatedCount": 1,
            "deprecatedSource": {"component": "c"}, "eventTime": null, "regarding": {"kind": "Pod", "name": "p"},
            "metadata": {"managedFields": [{"fieldsV1": {"f:count": {}}}], "annotations": {"a": "b"}}});
        assert!(has_keys("io.k8s.api.events.v1.Event", &event));
        let ports = serde_json::json!({"spec": {"ports": [{"protocol": "TCP"}]}});
        assert!(has_keys("io.k8s.api.core.v1.Service", &ports));
    }

    #[test]
    fn facts_are_translated() {
        let containers = BuiltIn.field("io.k8s.api.core.v1.PodSpec", "containers").expect("field");
        assert_eq!(
            (containers.shape, containers.patch_merge, containers.list_type),
            (Shape::List, true, ListType::Map)
        );
        assert_eq!(containers.schema, "io.k8s.api.core.v1.Container");
        assert_eq!(BuiltIn.key_default("io.k8s.api.core.v1.ContainerPort", "protocol"), Some("TCP".into()));
        assert_eq!(BuiltIn.field("io.k8s.api.core.v1.PodSpec", "nope"), None);
    }
}
