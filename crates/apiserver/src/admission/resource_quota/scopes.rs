//! Which objects a quota's scopes cover.

use super::usage::{Kind, is_terminating};
use api::Object;
use serde_json::Value;
use std::collections::BTreeSet;

/// Whether every scope of a quota covers an object; scopes are about pods, and about the volume attributes
/// class of claims.
pub fn cover(quota: &Object, kind: &Kind, object: &Object) -> bool {
    let list = |pointer: &str| quota.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let plain = list("/spec/scopes").filter_map(Value::as_str).map(|scope| (scope, "Exists", &Value::Null));
    let selected = list("/spec/scopeSelector/matchExpressions").map(|e| {
        let text = |key: &str| e.get(key).and_then(Value::as_str).unwrap_or("");
        (text("scopeName"), text("operator"), e.get("values").unwrap_or(&Value::Null))
    });
    plain.chain(selected).all(|(scope, operator, values)| match kind {
        Kind::Pods => pod_matches(object, scope, operator, values),
        Kind::Claims if scope == "VolumeAttributesClass" => {
            let classes = attributes_classes(object);
            match classes.is_empty() {
                true => selects(None, operator, values),
                false => classes.into_iter().any(|class| selects(Some(class), operator, values)),
            }
        }
        _ => false,
    })
}

fn pod_matches(pod: &Object, scope: &str, operator: &str, values: &Value) -> bool {
    match scope {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => {
            let class = pod.pointer("/spec/priorityClassName").and_then(Value::as_str);
            selects(class.filter(|c| !c.is_empty()), operator, values)
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

/// A label selector's operators on one value that may be absent.
fn selects(value: Option<&str>, operator: &str, values: &Value) -> bool {
    let listed = || values.as_array().into_iter().flatten().any(|v| v.as_str() == value);
    match operator {
        "In" => value.is_some() && listed(),
        "NotIn" => value.is_none() || !listed(),
        "DoesNotExist" => value.is_none(),
        _ => value.is_some(),
    }
}

fn attributes_classes(claim: &Object) -> BTreeSet<&str> {
    let pointers = [
        "/spec/volumeAttributesClassName",
        "/status/currentVolumeAttributesClassName",
        "/status/modifyVolumeStatus/targetVolumeAttributesClassName",
    ];
    pointers.into_iter().filter_map(|p| claim.pointer(p)?.as_str()).filter(|c| !c.is_empty()).collect()
}

fn is_best_effort(pod: &Object) -> bool {
    if let Some(class) = pod.pointer("/status/qosClass").and_then(Value::as_str) {
        return class == "BestEffort";
    }
    let asks = |resources: Option<&Value>| {
        ["requests", "limits"].iter().any(|list| {
            let amounts = super::amounts(resources.and_then(|r| r.get(list)));
            ["cpu", "memory"].iter().any(|name| amounts.get(*name).is_some_and(|q| q.sign() > 0))
        })
    };
    let lists = ["/spec/containers", "/spec/initContainers"].into_iter();
    let mut containers = lists.filter_map(|p| pod.pointer(p)?.as_array()).flatten();
    !asks(pod.pointer("/spec/resources")) && !containers.any(|c| asks(c.get("resources")))
}

fn crosses_namespaces(pod: &Object) -> bool {
    let crosses = |term: &Value| {
        let named = term.get("namespaces").and_then(Value::as_array).is_some_and(|n| !n.is_empty());
        named || term.get("namespaceSelector").is_some_and(Value::is_object)
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let Some(affinity) = pod.pointer(&format!("/spec/affinity/{kind}")) else { return false };
        let list = |field: &str| affinity.get(field).and_then(Value::as_array).into_iter().flatten();
        list("requiredDuringSchedulingIgnoredDuringExecution").any(crosses)
            || list("preferredDuringSchedulingIgnoredDuringExecution")
                .any(|t| t.get("podAffinityTerm").is_some_and(crosses))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scopes_cover_pods() {
        let check = |spec: Value, pod: Value, want: bool| {
            assert_eq!(
                cover(&json!({"spec": spec.clone()}), &Kind::Pods, &json!({"spec": pod.clone()})),
                want,
                "{spec} {pod}"
            );
        };
        let selector = |operator: &str, values: &[&str]| json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}});
        check(json!({}), json!({}), true);
        check(json!({"scopes": ["Terminating"]}), json!({"activeDeadlineSeconds": 5}), true);
        check(json!({"scopes": ["NotTerminating", "BestEffort"]}), json!({}), true);
        check(
            json!({"scopes": ["BestEffort"]}),
            json!({"containers": [{"resources": {"requests": {"cpu": "1"}}}]}),
            false,
        );
        check(selector("In", &["a"]), json!({"priorityClassName": "a"}), true);
        check(selector("In", &["a"]), json!({}), false);
        check(selector("NotIn", &["a"]), json!({}), true);
        check(selector("DoesNotExist", &[]), json!({"priorityClassName": "a"}), false);
        check(selector("Exists", &[]), json!({"priorityClassName": "a"}), true);
        let term = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["x"]}]}});
        check(json!({"scopes": ["CrossNamespacePodAffinity"]}), json!({ "affinity": term }), true);
        check(json!({"scopes": ["CrossNamespacePodAffinity"]}), json!({}), false);
        assert!(!cover(&json!({"spec": {"scopes": ["BestEffort"]}}), &Kind::Services, &json!({})));
    }
}
