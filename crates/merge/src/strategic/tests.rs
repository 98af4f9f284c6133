//! Strategic merge patches.

use super::*;
use crate::{ListType, Shape};
use serde_json::json;

/// A small pod: containers by name with ports, env and args; finalizers as a set; a retainKeys struct.
pub(crate) struct Pods;

impl Facts for Pods {
    fn field(&self, schema: &str, field: &str) -> Option<FieldFact> {
        let fact = |shape, schema: &'static str, key: &'static str| FieldFact {
            shape,
            schema: schema.into(),
            patch_merge: !key.is_empty(),
            patch_merge_key: key.into(),
            list_type: if key.is_empty() { ListType::Atomic } else { ListType::Map },
            list_map_keys: if key.is_empty() { vec![] } else { vec![key.into()] },
            ..FieldFact::default()
        };
        Some(match (schema, field) {
            ("Pod", "spec") => fact(Shape::Struct, "Spec", ""),
            ("Pod", "metadata") => fact(Shape::Struct, "Meta", ""),
            ("Meta", "labels") => fact(Shape::Map, "", ""),
            ("Meta", "finalizers") => {
                FieldFact { patch_merge: true, list_type: ListType::Set, ..fact(Shape::List, "", "") }
            }
            ("Spec", "containers") => fact(Shape::List, "Container", "name"),
            ("Spec", "strategy") => FieldFact { patch_retain_keys: true, ..fact(Shape::Struct, "Strategy", "") },
            ("Spec", "tolerations") => fact(Shape::List, "", ""),
            ("Strategy", "rollingUpdate") => fact(Shape::Struct, "Rolling", ""),
            ("Container", "env") => fact(Shape::List, "Env", "name"),
            ("Container", "args") => fact(Shape::List, "", ""),
            ("Container", "ports") => FieldFact {
                list_map_keys: vec!["containerPort".into(), "protocol".into()],
                ..fact(Shape::List, "Port", "containerPort")
            },
            ("Pod", "apiVersion" | "kind")
            | ("Meta", "name" | "managedFields")
            | ("Spec", "replicas")
            | ("Container" | "Env" | "Strategy" | "Port" | "Rolling", _) => FieldFact::default(),
            _ => return None,
        })
    }

    fn key_default(&self, schema: &str, key: &str) -> Option<Value> {
        (schema == "Port" && key == "protocol").then(|| "TCP".into())
    }
}

fn check(original: Value, patch: Value, want: Result<Value, &str>) {
    let got = strategic_merge(&original, &patch, "Pod", &Pods).map_err(|e| e.to_string());
    assert_eq!(got, want.map_err(str::to_owned), "{patch}");
}

fn containers(list: Value) -> Value {
    json!({"spec": {"containers": list}})
}

#[test]
fn merges_maps_and_drops_nulls() {
    check(
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
        json!({"metadata": {"labels": {"b": null, "c": "3"}}, "spec": {"strategy": {"type": null}}}),
        Ok(json!({"metadata": {"labels": {"a": "1", "c": "3"}}, "spec": {"strategy": {}}})),
    );
    check(
        json!({"spec": {"replicas": 1}}),
        json!({"spec": {"$patch": "replace", "x": 1}}),
        Ok(json!({"spec": {"x": 1}})),
    );
    check(json!({"spec": {"replicas": 1}}), json!({"spec": {"$patch": "delete"}}), Ok(json!({"spec": {}})));
    check(
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"a": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})),
    );
    check(
        json!({"spec": {"strategy": {}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}}),
        Err("invalid patch format of retainKeys"),
    );
    check(
        json!({"nope": {}}),
        json!({"nope": {}}),
        Err("unable to find api field in struct Pod for the json field \"nope\""),
    );
}

#[test]
fn merges_lists_by_key_and_keeps_order() {
    let two = || {
        containers(
            json!([{"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]),
        )
    };
    check(
        two(),
        containers(json!([{"name": "c", "env": [{"name": "B", "$patch": "delete"}, {"name": "Z", "value": "9"}]}])),
        Ok(containers(
            json!([{"name": "c", "image": "i", "env": [{"name": "Z", "value": "9"}, {"name": "A", "value": "1"}]}]),
        )),
    );
    check(
        containers(json!([{"name": "c"}])),
        json!({"spec": {"$setElementOrder/containers": [{"name": "n"}, {"name": "c"}], "containers": [{"name": "n", "image": "x"}]}}),
        Ok(containers(json!([{"name": "n", "image": "x"}, {"name": "c"}]))),
    );
    check(
        two(),
        containers(json!([{"$patch": "replace"}, {"name": "only"}])),
        Ok(containers(json!([{"name": "only"}]))),
    );
    check(
        containers(json!([{"name": "a", "args": ["1"]}, {"name": "b"}])),
        containers(json!([{"name": "b", "image": "x"}, {"name": "a", "args": ["2"]}])),
        Ok(containers(json!([{"name": "b", "image": "x"}, {"name": "a", "args": ["2"]}]))),
    );
    check(
        two(),
        containers(json!([{"image": "nokey"}])),
        Err("map: map[image:nokey] does not contain declared merge key: name"),
    );
    check(
        two(),
        containers(json!([{"$patch": "odd", "name": "c"}])),
        Err("unknown patch type: odd in map: map[$patch:odd name:c]"),
    );
}

#[test]
fn merges_lists_of_scalars_as_sets() {
    let meta = |list: Value| json!({"metadata": {"finalizers": list}});
    check(meta(json!(["a", "b"])), meta(json!(["c", "a"])), Ok(meta(json!(["c", "a", "b"]))));
    check(
        meta(json!(["a", "b"])),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
        Ok(meta(json!(["b"]))),
    );
    check(
        meta(json!(["a", "b"])),
        json!({"metadata": {"$setElementOrder/finalizers": ["b", "a"]}}),
        Ok(meta(json!(["b", "a"]))),
    );
}

#[test]
fn takes_what_kubectl_apply_sends() {
    check(
        containers(
            json!([{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]}, {"name": "x"}]),
        ),
        json!({"spec": {"$setElementOrder/containers": [{"name": "c"}], "containers": [
            {"name": "c", "image": "i2", "$setElementOrder/ports": [{"containerPort": 81}],
                "ports": [{"containerPort": 81}, {"$patch": "delete", "containerPort": 80}]},
            {"$patch": "delete", "name": "x"}]}}),
        Ok(containers(json!([{"name": "c", "image": "i2", "ports": [{"containerPort": 81}]}]))),
    );
}
