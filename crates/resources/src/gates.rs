//! Fields behind feature gates that are off by default: what a write says about them is dropped, unless the stored
//! object has them already.

use serde_json::Value;

/// A field, as the path from its kind's pod spec or, without one, from the object; `*` is each item of a list or map.
struct Gated {
    path: &'static str,
    /// Whether the struct that held nothing else goes too.
    with_holder: bool,
}

const fn gated(path: &'static str) -> Gated {
    Gated { path, with_holder: false }
}

/// What pod specs may not have.
const OF_PODS: &[Gated] = &[
    gated("schedulingGroup"),
    gated("volumes/*/projected/sources/*/clusterTrustBundle"),
    gated("volumes/*/projected/sources/*/podCertificate"),
    Gated { path: "initContainers/*/lifecycle/stopSignal", with_holder: true },
    Gated { path: "containers/*/lifecycle/stopSignal", with_holder: true },
    Gated { path: "ephemeralContainers/*/lifecycle/stopSignal", with_holder: true },
];

/// Where kinds have a pod spec.
const POD_SPECS: &[(&str, &str)] = &[
    ("core.v1.Pod", "/spec"),
    ("core.v1.PodTemplate", "/template/spec"),
    ("core.v1.ReplicationController", "/spec/template/spec"),
    ("apps.v1.DaemonSet", "/spec/template/spec"),
    ("apps.v1.Deployment", "/spec/template/spec"),
    ("apps.v1.ReplicaSet", "/spec/template/spec"),
    ("apps.v1.StatefulSet", "/spec/template/spec"),
    ("batch.v1.Job", "/spec/template/spec"),
    ("batch.v1.CronJob", "/spec/jobTemplate/spec/template/spec"),
];

/// What single kinds may not have.
const OF_KINDS: &[(&str, Gated)] = &[
    ("apps.v1.StatefulSet", gated("spec/updateStrategy/rollingUpdate/maxUnavailable")),
    ("core.v1.Node", gated("spec/configSource")),
    ("core.v1.Pod", gated("status/nodeAllocatableResourceClaimStatuses")),
    ("core.v1.Pod", gated("status/containerStatuses/*/volumeMounts/*/volumeStatus")),
    ("core.v1.Pod", gated("status/initContainerStatuses/*/volumeMounts/*/volumeStatus")),
    ("core.v1.Pod", gated("status/ephemeralContainerStatuses/*/volumeMounts/*/volumeStatus")),
    ("resource.v1.ResourceSlice", gated("spec/devices/*/nodeAllocatableResourceMappings")),
    ("resource.v1.ResourceSlice", gated("spec/devices/*/attributes/*/bools")),
    ("resource.v1.ResourceSlice", gated("spec/devices/*/attributes/*/ints")),
    ("resource.v1.ResourceSlice", gated("spec/devices/*/attributes/*/strings")),
    ("resource.v1.ResourceSlice", gated("spec/devices/*/attributes/*/versions")),
];

/// Drops from a new or changed object what is behind gates; `schema` is the full name of its kind's schema.
pub fn drop_disabled(schema: &str, new: &mut Value, old: Option<&Value>) {
    let Some(kind) = schema.strip_prefix("io.k8s.api.") else { return };
    if let Some((_, at)) = POD_SPECS.iter().find(|(name, _)| *name == kind) {
        let old = old.and_then(|old| old.pointer(at));
        if let Some(spec) = new.pointer_mut(at) {
            OF_PODS.iter().for_each(|gated| drop_unless_in_use(spec, old, gated));
        }
    }
    for (_, gated) in OF_KINDS.iter().filter(|(name, _)| *name == kind) {
        drop_unless_in_use(new, old, gated);
    }
}

fn drop_unless_in_use(new: &mut Value, old: Option<&Value>, gated: &Gated) {
    if !old.is_some_and(|old| is_set(old, gated.path)) {
        remove(new, gated.path, gated.with_holder);
    }
}

fn is_set(value: &Value, path: &str) -> bool {
    let Some((first, rest)) = path.split_once('/') else { return value.get(path).is_some_and(|v| !v.is_null()) };
    match first {
        "*" => match value {
            Value::Array(items) => items.iter().any(|item| is_set(item, rest)),
            Value::Object(map) => map.values().any(|item| is_set(item, rest)),
            _ => false,
        },
        field => value.get(field).is_some_and(|inner| is_set(inner, rest)),
    }
}

/// Whether something was removed.
fn remove(value: &mut Value, path: &str, with_holder: bool) -> bool {
    let Some((first, rest)) = path.split_once('/') else {
        return value.as_object_mut().is_some_and(|map| map.remove(path).is_some());
    };
    if first == "*" {
        let gone = |any, item: &mut Value| remove(item, rest, with_holder) || any;
        return match value {
            Value::Array(items) => items.iter_mut().fold(false, gone),
            Value::Object(map) => map.values_mut().fold(false, gone),
            _ => false,
        };
    }
    let Some(inner) = value.get_mut(first) else { return false };
    let removed = remove(inner, rest, with_holder);
    let emptied = with_holder && removed && inner.as_object().is_some_and(serde_json::Map::is_empty);
    if let (true, Some(map)) = (emptied, value.as_object_mut()) {
        map.remove(first);
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn gated_fields_go_unless_they_are_stored() {
        let check = |kind: &str, new: Value, old: Option<Value>, want: Value| {
            let mut got = new;
            drop_disabled(&format!("io.k8s.api.{kind}"), &mut got, old.as_ref());
            assert_eq!(got, want);
        };
        let group = json!({"spec": {"schedulingGroup": {"podGroupName": "g"}, "nodeName": "n"}});
        check("core.v1.Pod", group.clone(), None, json!({"spec": {"nodeName": "n"}}));
        check("core.v1.Pod", group.clone(), Some(group.clone()), group.clone());
        check("core.v1.Node", group.clone(), None, group);
        let projected =
            |source: Value| json!({"template": {"spec": {"volumes": [{"projected": {"sources": [source]}}]}}});
        check("core.v1.PodTemplate", projected(json!({"podCertificate": {}})), None, projected(json!({})));
        let slice = |value: Value| json!({"spec": {"devices": [{"attributes": {"a": value}}]}});
        check("resource.v1.ResourceSlice", slice(json!({"int": 1, "ints": [1]})), None, slice(json!({"int": 1})));
        let lifecycle = json!({"spec": {"containers": [{"lifecycle": {"stopSignal": "SIGTERM"}}, {"name": "b"}]}});
        check("core.v1.Pod", lifecycle, None, json!({"spec": {"containers": [{}, {"name": "b"}]}}));
    }
}
