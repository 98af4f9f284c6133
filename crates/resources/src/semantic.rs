//! Equality as Kubernetes' code finds it between two values of a type: an empty list or map is as good as none, but
//! a struct behind a pointer is not the same as no pointer; amounts are compared, not their texts.

use crate::core::quantities::quantity;
use crate::field::Fields;
use schema::{Kind, Schema, Type};
use serde_json::Value;

/// Whether two values of a schema, given by its full name, are equal.
pub fn equal(schema: &str, a: &Value, b: &Value) -> bool {
    Schema::find(schema).map_or(a == b, |schema| structs(schema, a, b))
}

fn structs(schema: Schema, a: &Value, b: &Value) -> bool {
    schema.flat_fields().into_iter().all(|field| typed(field.ty(), a.at(field.name()), b.at(field.name())))
}

fn typed(ty: Type, a: &Value, b: &Value) -> bool {
    if ty.is_pointer() && a.is_null() != b.is_null() {
        return false;
    }
    match ty.kind() {
        Kind::Struct => ty.schema().map_or(a == b, |schema| structs(schema, a, b)),
        Kind::List => match (items(a), items(b)) {
            (a, b) if a.len() != b.len() => false,
            (a, b) => a.iter().zip(b).all(|(a, b)| element(ty, a, b)),
        },
        Kind::Map => {
            let count = |of: &Value| of.as_object().map_or(0, serde_json::Map::len);
            let held = |(key, value): (&String, &Value)| b.get(key).is_some_and(|other| element(ty, value, other));
            count(a) == count(b) && a.as_object().into_iter().flatten().all(held)
        }
        Kind::Quantity => a.is_null() == b.is_null() && quantity(a) == quantity(b),
        _ => a == b || (is_zero(a) && is_zero(b)),
    }
}

fn element(of: Type, a: &Value, b: &Value) -> bool {
    of.element().map_or(a == b, |element| typed(element, a, b))
}

fn items(of: &Value) -> &[Value] {
    of.as_array().map_or(&[], Vec::as_slice)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pointers_tell_empty_from_absent() {
        let check = |a: Value, b: Value, want: bool| {
            let schema = "io.k8s.api.core.v1.PersistentVolumeClaimSpec";
            assert_eq!((equal(schema, &a, &b), equal(schema, &b, &a)), (want, want), "{a} {b}");
        };
        check(json!({"selector": {}}), json!({}), false);
        check(json!({"resources": {}}), json!({}), true);
        check(json!({"resources": {"requests": {}}}), json!({}), true);
        check(json!({"accessModes": []}), json!({"accessModes": null}), true);
        check(json!({"volumeName": ""}), json!({}), true);
        check(json!({"storageClassName": ""}), json!({}), false);
        let size = |size: &str| json!({"resources": {"requests": {"storage": size}}});
        check(size("1Gi"), size("1024Mi"), true);
        check(size("1Gi"), size("1G"), false);
    }
}
