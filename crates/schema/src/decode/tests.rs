//! Decoding against the schema.

use super::*;
use serde_json::json;

fn canonical(text: &str) -> Option<String> {
    text.starts_with(|c: char| c.is_ascii_digit()).then(|| text.to_owned())
}

fn run(kind: &str, body: &str) -> Result<Decoded, String> {
    decode_slice(&format!("io.k8s.api.{kind}"), body.as_bytes(), canonical)
}

#[test]
fn type_errors_have_gos_text() {
    let table = [
        (
            "core.v1.ConfigMap",
            r#"{"data":{"a":"1","b":1}}"#,
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            "core.v1.ConfigMap",
            r#"{"data":5}"#,
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type map[string]string",
        ),
        (
            "core.v1.ConfigMap",
            r#"{"metadata":{"name":5}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string",
        ),
        (
            "core.v1.ConfigMap",
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            "core.v1.ConfigMap",
            r#"{"metadata":[]}"#,
            "json: cannot unmarshal array into Go struct field ConfigMap.metadata of type v1.ObjectMeta",
        ),
        ("core.v1.ConfigMap", r#"[]"#, "json: cannot unmarshal array into Go value of type v1.ConfigMap"),
        (
            "core.v1.ServiceAccount",
            r#"{"secrets":"x"}"#,
            "json: cannot unmarshal string into Go struct field ServiceAccount.secrets of type []v1.ObjectReference",
        ),
        (
            "core.v1.Pod",
            r#"{"spec":{"containers":{"a":1}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "apps.v1.Deployment",
            r#"{"spec":{"replicas":"3"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "apps.v1.Deployment",
            r#"{"spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "core.v1.Pod",
            r#"{"metadata":{"creationTimestamp":"yesterday"}}"#,
            "parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\"",
        ),
        ("core.v1.ResourceQuota", r#"{"spec":{"hard":{"pods":"abc"}}}"#, scalar::BAD_QUANTITY),
        (
            "core.v1.Pod",
            r#"{"spec":{"containers":[{"name":1}],"volumes":3}}"#,
            "json: cannot unmarshal number into Go struct field Container.spec.containers.name of type string",
        ),
        ("core.v1.Secret", r#"{"data":{"a":"%%"}}"#, "illegal base64 data at input byte 0"),
        ("core.v1.ConfigMap", r#"{"a"#, "unexpected end of JSON input"),
        ("core.v1.ConfigMap", r#"{a"#, "invalid character 'a' looking for beginning of object key string"),
        ("core.v1.ConfigMap", r#"{"a":1} x"#, "invalid character 'x' after top-level value"),
    ];
    for (kind, body, want) in table {
        assert_eq!(run(kind, body).map(|d| d.object), Err(want.to_owned()), "{body}");
    }
    let options =
        decode_slice("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", br#"{"gracePeriodSeconds":"x"}"#, canonical);
    assert_eq!(
        options.err().as_deref(),
        Some("json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of type int64")
    );
}

#[test]
fn strict_errors_come_in_document_order() {
    let table: [(&str, &str, &[&str]); 4] = [
        (
            "core.v1.Pod",
            r#"{"metadata":{"nope":1},"bogus":2}"#,
            &["unknown field \"metadata.nope\"", "unknown field \"bogus\""],
        ),
        (
            "core.v1.Pod",
            r#"{"spec":{"containers":[{"env":[{"val":1}]}]}}"#,
            &["unknown field \"spec.containers[0].env[0].val\""],
        ),
        (
            "core.v1.Pod",
            r#"{"metadata":{"name":"a","name":"b","labels":{"x":"1","x":"2"}}}"#,
            &["duplicate field \"metadata.name\"", "duplicate field \"metadata.labels.x\""],
        ),
        ("core.v1.Pod", r#"{"spec":{"Containers":[]}}"#, &["unknown field \"spec.Containers\""]),
    ];
    for (kind, body, want) in table {
        assert_eq!(run(kind, body).map(|d| d.strict), Ok(want.iter().map(|s| s.to_string()).collect()), "{body}");
    }
}

#[test]
fn values_take_the_form_go_gives_them() {
    let table = [
        (
            "core.v1.Pod",
            json!({"spec": {"hostNetwork": false, "hostname": "", "automountServiceAccountToken": false, "volumes": null}}),
            json!({"spec": {"automountServiceAccountToken": false}}),
        ),
        (
            "core.v1.Pod",
            json!({"spec": {"volumes": [{"name": "a", "emptyDir": {}}, null]}}),
            json!({"spec": {"volumes": [{"name": "a", "emptyDir": {}}, {}]}}),
        ),
        (
            "core.v1.Pod",
            json!({"metadata": {"creationTimestamp": "2024-05-01T10:00:00.5+02:00"}}),
            json!({"metadata": {"creationTimestamp": "2024-05-01T08:00:00Z"}}),
        ),
        (
            "coordination.v1.Lease",
            json!({"spec": {"renewTime": "2024-05-01T10:00:00.123456Z"}}),
            json!({"spec": {"renewTime": "2024-05-01T10:00:00.123456Z"}}),
        ),
        ("core.v1.ConfigMap", json!({"data": {"a": null}}), json!({"data": {"a": ""}})),
        (
            "core.v1.Service",
            json!({"spec": {"ports": [{"port": 80, "targetPort": "http"}]}}),
            json!({"spec": {"ports": [{"port": 80, "targetPort": "http"}]}}),
        ),
        (
            "core.v1.Pod",
            json!({"spec": {"containers": [{"resources": {"limits": {"cpu": 1}}}]}}),
            json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "1"}}}]}}),
        ),
    ];
    for (kind, mut body, want) in table {
        assert_eq!(decode(&format!("io.k8s.api.{kind}"), &mut body, canonical), Ok(vec![]));
        assert_eq!(body, want);
    }
}

#[test]
fn completes_what_go_always_writes() {
    let mut pod = json!({"spec": {"containers": [{"name": "a"}]}, "metadata": {}});
    complete("io.k8s.api.core.v1.Pod", &mut pod);
    assert_eq!(pod, json!({"metadata": {}, "spec": {"containers": [{"name": "a", "resources": {}}]}, "status": {}}));
    let mut role = json!({"rules": [], "metadata": {}});
    complete("io.k8s.api.rbac.v1.Role", &mut role);
    assert_eq!(role, json!({"metadata": {}, "rules": null}));
    let mut deployment = json!({"spec": {"template": {}}});
    complete("io.k8s.api.apps.v1.Deployment", &mut deployment);
    assert_eq!(
        deployment,
        json!({"metadata": {}, "spec": {"selector": null, "strategy": {}, "template": {"metadata": {}, "spec": {"containers": null}}}, "status": {}})
    );
}
