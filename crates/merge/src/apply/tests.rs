//! Server-side apply.

use super::*;
use crate::strategic::tests::Pods;
use crate::{Write, update_managed_fields};
use serde_json::json;

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec})
}

fn run(live: &Value, applied: &Value, manager: &str, force: bool) -> Result<Value, String> {
    let request = Apply { live, applied, manager, force, time: "2024-01-01T00:00:00Z", subresource: "", schema: "Pod" };
    apply(&request, &Pods).map(|a| a.object).map_err(|e| e.to_string())
}

fn fields(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.into_iter().find(|e| e["manager"] == manager).map_or(Value::Null, |e| e["fieldsV1"].clone())
}

#[test]
fn owns_what_it_applied_and_is_idempotent() {
    let applied =
        pod(json!({"replicas": 1, "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}));
    let first = run(&json!({}), &applied, "one", false).expect("applies");
    let port = "k:{\"containerPort\":80,\"protocol\":\"TCP\"}";
    assert_eq!(
        fields(&first, "one"),
        json!({"f:spec": {"f:replicas": {}, "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {},
            "f:ports": {port: {".": {}, "f:containerPort": {}}}}}}})
    );
    assert_eq!(run(&first, &applied, "one", false), Ok(first.clone()));
    assert_eq!(run(&first, &applied, "one", true), Ok(first));
}

#[test]
fn removes_what_it_no_longer_applies_and_others_do_not_own() {
    let first =
        run(&json!({}), &pod(json!({"replicas": 1, "containers": [{"name": "c"}, {"name": "d"}]})), "one", false);
    let second =
        run(&first.expect("applies"), &pod(json!({"containers": [{"name": "d"}]})), "two", false).expect("applies");
    let third = run(&second, &pod(json!({"strategy": {"type": "x"}})), "one", false).expect("applies");
    assert_eq!(third["spec"], json!({"containers": [{"name": "d"}], "strategy": {"type": "x"}}));
}

#[test]
fn conflicts_are_named_and_forced() {
    let one = run(&json!({}), &pod(json!({"replicas": 1, "containers": [{"name": "c", "image": "i"}]})), "one", false)
        .expect("applies");
    let two = pod(json!({"containers": [{"name": "c", "image": "j"}]}));
    assert_eq!(
        run(&one, &two, "two", false),
        Err("Apply failed with 1 conflict: conflict with \"one\": .spec.containers[name=\"c\"].image".into())
    );
    let both = pod(json!({"replicas": 2, "containers": [{"name": "c", "image": "j"}]}));
    assert_eq!(
        run(&one, &both, "two", false),
        Err("Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.replicas\n- .spec.containers[name=\"c\"].image".into())
    );
    let forced = run(&one, &two, "two", true).expect("applies");
    assert_eq!(forced["spec"]["containers"][0]["image"], "j");
    assert_eq!(fields(&forced, "one")["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"], json!({".": {}, "f:name": {}}));
}

#[test]
fn updates_take_fields_and_conflict_with_their_version() {
    let applied = pod(json!({"replicas": 1}));
    let one = run(&json!({}), &applied, "one", false).expect("applies");
    let mut updated = one.clone();
    updated["spec"]["replicas"] = 2.into();
    updated["metadata"]["labels"] = json!({"a": "b"});
    let write = Write { old: &one, manager: "kubectl", time: "2024-01-02T00:00:00Z", subresource: "", schema: "Pod" };
    update_managed_fields(&write, &mut updated, &Pods);
    assert_eq!(
        fields(&updated, "kubectl"),
        json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:replicas": {}}})
    );
    assert_eq!(fields(&updated, "one"), Value::Null);
    assert_eq!(
        run(&updated, &applied, "one", false),
        Err("Apply failed with 1 conflict: conflict with \"kubectl\" using v1: .spec.replicas".into())
    );
    let mut same = updated.clone();
    let write =
        Write { old: &updated, manager: "kubectl", time: "2024-01-03T00:00:00Z", subresource: "", schema: "Pod" };
    update_managed_fields(&write, &mut same, &Pods);
    assert_eq!(same, updated, "a write that changes nothing leaves times alone");
}

#[test]
fn stored_objects_may_have_duplicates() {
    let check = |spec: Value, want: bool| assert_eq!(crate::is_typed(&pod(spec.clone()), "Pod", &Pods), want, "{spec}");
    check(json!({"containers": [{"name": "x"}, {"name": "x"}]}), true);
    check(json!({"containers": [{"image": "x"}]}), false);
    check(json!({"nope": 1}), false);
}

#[test]
fn refuses_what_does_not_fit() {
    let failed = |why: &str| {
        Err(format!("failed to create typed patch object (/a; v1, Kind=Pod): {why}").replace("; v1", "; /v1"))
    };
    let table = [
        (json!({"nope": 1}), ".spec.nope: field not declared in schema"),
        (
            json!({"containers": [{"name": "x"}, {"name": "x"}]}),
            ".spec.containers: duplicate entries for key [name=\"x\"]",
        ),
        (
            json!({"containers": [{"image": "x"}]}),
            ".spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)",
        ),
        (json!({"containers": {}}), ".spec.containers: expected list, got &{map[]}"),
    ];
    for (spec, why) in table {
        assert_eq!(run(&json!({}), &pod(spec), "one", false), failed(why), "{why}");
    }
}

#[test]
fn lists_keep_the_order_applied() {
    let containers =
        |names: &[&str]| pod(json!({"containers": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()}));
    let names = |object: Value| -> Vec<String> {
        object["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|c| c["name"].as_str().unwrap_or("").to_owned())
            .collect()
    };
    let table: [(&[&str], &[&str], &[&str]); 4] = [
        (&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]),
        (&["a", "b"], &["x", "b"], &["a", "x", "b"]),
        (&["a", "b"], &["b", "y", "a"], &["b", "y", "a"]),
        (&["a"], &[], &["a"]),
    ];
    for (live, applied, want) in table {
        let got = run(&containers(live), &containers(applied), "one", true).map(names);
        assert_eq!(got, Ok(want.iter().map(|s| s.to_string()).collect()), "{live:?} {applied:?}");
    }
}

#[test]
fn nobody_owns_what_is_reset() {
    struct Reset;
    impl Facts for Reset {
        fn field(&self, schema: &str, field: &str) -> Option<crate::FieldFact> {
            Pods.field(schema, field)
        }
        fn reset_fields(&self, _: &str, subresource: &str) -> &'static [&'static [&'static str]] {
            if subresource.is_empty() { &[&["spec", "replicas"]] } else { &[] }
        }
    }
    let applied = pod(json!({"replicas": 1, "strategy": {"type": "x"}}));
    let request = Apply {
        live: &json!({}),
        applied: &applied,
        manager: "one",
        force: false,
        time: "t",
        subresource: "",
        schema: "Pod",
    };
    let object = apply(&request, &Reset).expect("applies").object;
    assert_eq!(fields(&object, "one"), json!({"f:spec": {"f:strategy": {"f:type": {}}}}));
    let mut new = applied.clone();
    update_managed_fields(
        &Write { old: &json!({}), manager: "m", time: "t", subresource: "", schema: "Pod" },
        &mut new,
        &Reset,
    );
    assert_eq!(fields(&new, "m"), json!({"f:spec": {".": {}, "f:strategy": {".": {}, "f:type": {}}}}));
}
