//! What is warned of, and how.

use super::*;
use serde_json::json;

/// Warnings about a pod with a spec.
fn check(spec: Value, want: &[&str]) {
    assert_eq!(pod(&json!({"metadata": {}, "spec": spec})), want);
}

#[test]
fn ports_are_compared_across_containers() {
    check(
        json!({
            "initContainers": [{"name": "a", "ports": [{"name": "x", "containerPort": 80, "protocol": "TCP"}]}],
            "containers": [
                {"name": "b", "ports": [
                    {"name": "x", "containerPort": 80, "protocol": "TCP"},
                    {"containerPort": 80, "protocol": "UDP"},
                    {"containerPort": 80, "protocol": "TCP", "hostPort": 8},
                ]},
                {"name": "c", "ports": [
                    {"containerPort": 80, "protocol": "TCP", "hostPort": 8, "hostIP": "1.1.1.1"},
                    {"containerPort": 80, "protocol": "TCP", "hostPort": 8, "hostIP": "1.1.1.2"},
                    {"containerPort": 81, "protocol": "TCP", "hostIP": "1.1.1.2"},
                ]},
            ],
        }),
        &[
            "spec.containers[0].ports[0]: duplicate port definition with spec.initContainers[0].ports[0]",
            "spec.containers[0].ports[2]: overlapping port definition with spec.initContainers[0].ports[0]",
            "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[0]: overlapping port definition with spec.initContainers[0].ports[0]",
            "spec.containers[1].ports[0]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[0]: dangerously ambiguous port definition with spec.containers[0].ports[2]",
            "spec.containers[1].ports[1]: overlapping port definition with spec.initContainers[0].ports[0]",
            "spec.containers[1].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[1]: dangerously ambiguous port definition with spec.containers[0].ports[2]",
            "spec.containers[1].ports[2]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:81 Protocol:TCP HostIP:1.1.1.2}",
            "spec.containers[0].ports[0]: duplicate port name \"x\" with spec.initContainers[0].ports[0], services and probes that select ports by name will use spec.initContainers[0].ports[0]",
        ],
    );
}

#[test]
fn variables_may_be_made_of_their_former_values() {
    let second = |var: Value, hidden: bool| {
        let text =
            "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply";
        let want: &[&str] = if hidden { &[text] } else { &[] };
        check(json!({"containers": [{"name": "c", "env": [{"name": "A", "value": "1"}, var]}]}), want);
    };
    second(json!({"name": "A", "value": "$(A):2"}), false);
    second(json!({"name": "A", "value": "$(A)"}), true);
    second(json!({"name": "A", "value": "2"}), true);
    second(json!({"name": "A", "valueFrom": {}}), true);
}

#[test]
fn files_of_a_volume_overlap() {
    let items = |paths: &[&str]| json!(paths.iter().map(|path| json!({"key": "k", "path": path})).collect::<Vec<_>>());
    let check = |volume: Value, want: &[&str]| check(json!({"volumes": [volume]}), want);
    check(
        json!({"name": "v", "configMap": {"name": "m", "items": items(&["a/b/c", "a", "x", "a/b/", "ab", "x/y", "x"])}}),
        &[
            "volume \"v\" (ConfigMap \"m\"): overlapping paths: \"a\" with \"a/b/c\"",
            "volume \"v\" (ConfigMap \"m\"): overlapping paths: \"a/b\" with \"a/b/c\"",
            "volume \"v\" (ConfigMap \"m\"): overlapping paths: \"a/b\" with \"a\"",
            "volume \"v\" (ConfigMap \"m\"): overlapping paths: \"x/y\" with \"x\"",
            "volume \"v\" (ConfigMap \"m\"): overlapping paths: \"x\" with \"x\"",
            "volume \"v\" (ConfigMap \"m\"): overlapping paths: \"x\" with \"x/y\"",
        ],
    );
    check(
        json!({"name": "v", "secret": {"secretName": "s", "items": items(&["a", "a"])}}),
        &["volume \"v\" (Secret \"s\"): overlapping paths: \"a\" with \"a\""],
    );
    check(
        json!({"name": "v", "projected": {"sources": [
            {"configMap": {"name": "m", "items": items(&["a"])}},
            {},
            {"secret": {"name": "s", "items": items(&["a"])}},
            {"downwardAPI": {"items": items(&["b"])}},
            {"serviceAccountToken": {"path": "b/t"}},
            {"clusterTrustBundle": {"signerName": "x/y", "path": "a"}},
            {"podCertificate": {"keyPath": "b"}},
        ]}}),
        &[
            "volume \"v\" (Projected) has no sources provided",
            "volume \"v\" (Projected): overlapping paths: \"a\" (Secret \"s\") with \"a\" (ConfigMap \"m\")",
            "volume \"v\" (Projected): overlapping paths: \"b/t\" (ServiceAccountToken) with \"b\" (DownwardAPI)",
            "volume \"v\" (Projected): overlapping paths: \"a\" (ClusterTrustBundle \"x/y\") with \"a\" (ConfigMap \"m\")",
            "volume \"v\" (Projected): overlapping paths: \"a\" (ClusterTrustBundle \"x/y\") with \"a\" (Secret \"s\")",
            "volume \"v\" (Projected): overlapping paths: \"b\" (PodCertificate key) with \"b\" (DownwardAPI)",
            "volume \"v\" (Projected): overlapping paths: \"b\" (PodCertificate key) with \"b/t\" (ServiceAccountToken)",
        ],
    );
}

#[test]
fn annotations_give_way_to_fields() {
    let of = |spec: Value| {
        json!({"metadata": {"annotations": {
            "scheduler.alpha.kubernetes.io/critical-pod": "", "seccomp.security.alpha.kubernetes.io/pod": "x",
            "container.seccomp.security.alpha.kubernetes.io/c": "x",
            "container.apparmor.security.beta.kubernetes.io/c": "runtime/default",
        }}, "spec": spec})
    };
    let seccomp = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    let critical = "scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \"priorityClassName\" field instead";
    let bare = of(json!({"containers": [{"name": "c"}]}));
    assert_eq!(
        template(&bare, &Path::root("t")),
        [
            format!("t.metadata.annotations[{critical}"),
            format!("t.metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: {seccomp}"),
            format!("t.metadata.annotations[container.seccomp.security.alpha.kubernetes.io/c]: {seccomp}"),
            "t.metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated since v1.30; use the \"appArmorProfile\" field instead".to_owned(),
        ]
    );
    assert_eq!(pod(&bare).len(), 3);
    let profiles = json!({"seccompProfile": {}, "appArmorProfile": {"type": "RuntimeDefault"}});
    let given = of(json!({"securityContext": profiles, "containers": [{"name": "c"}]}));
    assert_eq!(template(&given, &Path::root("t")).len(), 2);
}

#[test]
fn labels_are_outdated_or_no_labels() {
    let wanted = json!({"matchExpressions": [{"key": "node-role.kubernetes.io/master", "values": ["-"]}]});
    let affinity = json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [wanted]},
        "preferredDuringSchedulingIgnoredDuringExecution": [{"preference": wanted}],
    }});
    let why = &names::label_value("-")[0];
    let master = "node-role.kubernetes.io/master is use \"node-role.kubernetes.io/control-plane\" instead";
    let (required, preferred) =
        ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
    check(
        json!({"affinity": affinity, "nodeSelector": {"app.kubernetes.io/created-by": "x"},
            "hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}]}),
        &[
            "spec.nodeSelector[app.kubernetes.io/created-by]: deprecated since v1.9",
            &format!("spec.affinity.nodeAffinity.{required}.nodeSelectorTerms[0].matchExpressions[0].key: {master}"),
            &format!("spec.affinity.nodeAffinity.{preferred}[0].preference.matchExpressions[0].key: {master}"),
            &format!(
                "spec.affinity.nodeAffinity.{preferred}[0].preference.matchExpressions[0].values[0]: - is invalid, {why}"
            ),
            "spec.hostAliases[1].ip: duplicate ip \"1.1.1.1\"",
        ],
    );
}

#[test]
fn there_is_an_end_to_it() {
    let ports: Vec<Value> = (0..20_000).map(|_| json!({"containerPort": 1, "protocol": "TCP"})).collect();
    let items: Vec<Value> = (0..20_000).map(|i| json!({"path": format!("a{}", "/a".repeat(i % 50))})).collect();
    let spec = json!({"volumes": [{"name": "v", "secret": {"items": items}}], "containers": [{"ports": ports}]});
    let size: usize = pod(&json!({"spec": spec})).iter().map(String::len).sum();
    assert!(size < 2 * ENOUGH, "{size}");
}
