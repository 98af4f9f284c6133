//! Objects of other kinds, each with one list or map as long as it can be.

use super::*;
use serde_json::Value;

fn definition(schema: &str) -> Call {
    let body = format!(
        r#"{{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{{"name":"as.x.io"}},"spec":{{"group":"x.io","scope":"Namespaced","names":{{"plural":"as","kind":"A"}},"versions":[{{"name":"v1","served":true,"storage":true,"schema":{{"openAPIV3Schema":{schema}}}}}]}}}}"#
    );
    call("POST", DEFINITIONS, JSON, body)
}

fn object_schema(what: &str, item: impl Fn(usize) -> String) -> Call {
    definition(&format!(r#"{{"type":"object",{what}}}"#, what = what.replace("ITEMS", &repeat(BODY - 1024, item))))
}

fn review(group: &str, kind: &str, resource: &str, spec: &Value) -> Call {
    let body = json!({"apiVersion": format!("{group}.k8s.io/v1"), "kind": kind, "spec": spec}).to_string();
    call("POST", &format!("/apis/{group}.k8s.io/v1/{resource}"), JSON, body)
}

fn policy(expression: &str) -> Call {
    let body = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "p"}, "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}]},
            "validations": [{"expression": expression}]}});
    let path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies?dryRun=All";
    call("POST", path, JSON, body.to_string())
}

impl Call {
    pub(super) fn without_commas(mut self) -> Self {
        let head = self.body.iter().rposition(|b| *b == b':').unwrap_or(0);
        let mut at = 0;
        self.body.retain(|b| {
            at += 1;
            at <= head || *b != b','
        });
        self
    }

    /// Replaces the commas between repeated things.
    fn joined(mut self, by: &str) -> Self {
        let text = String::from_utf8_lossy(&self.body).replace("false,self", &format!("false{by}self"));
        self.body = text.into_bytes();
        self
    }
}

/// The cases.
pub fn cases() -> Vec<Case> {
    vec![
        case!(
            "service: ports",
            filled(
                "/api/v1/namespaces/default/services?dryRun=All",
                r#"{"metadata":{"name":"s"},"spec":{"ports":["#,
                |i| format!(r#"{{"name":"p{i}","port":{}}}"#, i % 65000 + 1),
                "]}}"
            )
        ),
        case!(
            "service: node ports",
            filled(
                "/api/v1/namespaces/default/services?dryRun=All",
                r#"{"metadata":{"name":"s"},"spec":{"type":"NodePort","ports":["#,
                |i| format!(r#"{{"name":"p{i}","port":{}}}"#, i % 65000 + 1),
                "]}}"
            )
        ),
        case!(
            "role: rules",
            filled(
                "/apis/rbac.authorization.k8s.io/v1/clusterroles?dryRun=All",
                r#"{"metadata":{"name":"r"},"rules":["#,
                |i| format!(r#"{{"verbs":["get"],"apiGroups":[""],"resources":["r{i}"]}}"#),
                "]}"
            )
        ),
        case!(
            "role: resources",
            filled(
                "/apis/rbac.authorization.k8s.io/v1/clusterroles?dryRun=All",
                r#"{"metadata":{"name":"r"},"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["#,
                |i| format!(r#""r{i}""#),
                "]}]}"
            )
        ),
        case!("role: verbs by resources", {
            let half = |name: &str| repeat(BODY / 2 - 256, |i| format!(r#""{name}{i}""#));
            call(
                "POST",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles?dryRun=All",
                JSON,
                format!(
                    r#"{{"metadata":{{"name":"r"}},"rules":[{{"apiGroups":[""],"verbs":[{}],"resources":[{}]}}]}}"#,
                    half("v"),
                    half("r")
                ),
            )
        }),
        case!(
            "role binding: subjects",
            filled(
                "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings?dryRun=All",
                r#"{"metadata":{"name":"r"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"},"subjects":["#,
                |i| format!(r#"{{"kind":"User","name":"u{i}"}}"#),
                "]}"
            )
        ),
        case!(
            "secret: data",
            filled(
                "/api/v1/namespaces/default/secrets?dryRun=All",
                r#"{"metadata":{"name":"s"},"data":{"#,
                |i| format!(r#""k{i:06}":"""#),
                "}}"
            )
        ),
        case!(
            "secret: string data",
            filled(
                "/api/v1/namespaces/default/secrets?dryRun=All",
                r#"{"metadata":{"name":"s"},"stringData":{"#,
                |i| format!(r#""k{i:06}":"""#),
                "}}"
            )
        ),
        case!(
            "quota: hard",
            filled(
                "/api/v1/namespaces/default/resourcequotas?dryRun=All",
                r#"{"metadata":{"name":"q"},"spec":{"hard":{"#,
                |i| format!(r#""count/r{i}.x":"1""#),
                "}}}"
            )
        ),
        case!(
            "limit range: limits",
            filled(
                "/api/v1/namespaces/default/limitranges?dryRun=All",
                r#"{"metadata":{"name":"q"},"spec":{"limits":["#,
                |_| r#"{"type":"Container","max":{"cpu":"1"}}"#.into(),
                "]}}"
            )
        ),
        case!(
            "network policy: peers",
            filled(
                "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies?dryRun=All",
                r#"{"metadata":{"name":"n"},"spec":{"podSelector":{},"ingress":[{"from":["#,
                |_| r#"{"ipBlock":{"cidr":"10.0.0.0/8"}}"#.into(),
                "]}]}}"
            )
        ),
        case!(
            "ingress: paths",
            filled(
                "/apis/networking.k8s.io/v1/namespaces/default/ingresses?dryRun=All",
                r#"{"metadata":{"name":"n"},"spec":{"rules":[{"http":{"paths":["#,
                |i| format!(
                    r#"{{"path":"/{i}","pathType":"Prefix","backend":{{"service":{{"name":"s","port":{{"number":80}}}}}}}}"#
                ),
                "]}}]}}"
            )
        ),
        case!(
            "endpoint slice: endpoints",
            filled(
                "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?dryRun=All",
                r#"{"metadata":{"name":"n"},"addressType":"IPv4","endpoints":["#,
                |i| format!(r#"{{"addresses":["10.{}.{}.{}"]}}"#, i >> 16 & 255, i >> 8 & 255, i & 255),
                "]}"
            )
        ),
        case!(
            "endpoints: addresses",
            filled(
                "/api/v1/namespaces/default/endpoints?dryRun=All",
                r#"{"metadata":{"name":"n"},"subsets":[{"addresses":["#,
                |i| format!(r#"{{"ip":"10.{}.{}.{}"}}"#, i >> 16 & 255, i >> 8 & 255, i & 255),
                "]}]}"
            )
        ),
        case!(
            "deployment: selector values",
            filled(
                "/apis/apps/v1/namespaces/default/deployments?dryRun=All",
                r#"{"metadata":{"name":"d"},"spec":{"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}},"selector":{"matchExpressions":[{"key":"a","operator":"NotIn","values":["#,
                |i| format!("\"v{i}\""),
                "]}]}}}"
            )
        ),
        case!(
            "deployment: selector expressions",
            filled(
                "/apis/apps/v1/namespaces/default/deployments?dryRun=All",
                r#"{"metadata":{"name":"d"},"spec":{"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}},"selector":{"matchExpressions":["#,
                |i| format!(r#"{{"key":"k{i}","operator":"DoesNotExist"}}"#),
                "]}}}"
            )
        ),
        case!(
            "autoscaler: metrics",
            filled(
                "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers?dryRun=All",
                r#"{"metadata":{"name":"h"},"spec":{"maxReplicas":2,"scaleTargetRef":{"kind":"Deployment","name":"d"},"metrics":["#,
                |_| {
                    r#"{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":5}}}"#.into()
                },
                "]}}"
            )
        ),
        case!(
            "definition: properties",
            object_schema(r#""properties":{ITEMS}"#, |i| format!(r#""p{i}":{{"type":"string"}}"#))
        ),
        case!("definition: deep", {
            let (open, close) = (r#"{"type":"object","properties":{"a":"#, "}}");
            let times = BODY / (open.len() + close.len());
            definition(&format!("{}{{\"type\":\"string\"}}{}", open.repeat(times), close.repeat(times)))
        }),
        case!(
            "definition: enumeration",
            object_schema(r#""properties":{"a":{"type":"string","enum":[ITEMS]}}"#, |i| format!("\"{i}\""))
        ),
        case!("definition: required", object_schema(r#""required":[ITEMS]"#, |i| format!("\"{i}\""))),
        case!(
            "definition: rules",
            object_schema(r#""x-kubernetes-validations":[ITEMS]"#, |_| r#"{"rule":"true"}"#.into())
        ),
        case!(
            "definition: costly rules",
            object_schema(
                r#""properties":{"a":{"type":"array","items":{"type":"string"}}},"x-kubernetes-validations":[ITEMS]"#,
                |_| r#"{"rule":"self.a.all(x, self.a.all(y, x == y))"}"#.into()
            )
        ),
        case!(
            "definition: one long rule",
            object_schema(
                r#""properties":{"a":{"type":"integer"}},"x-kubernetes-validations":[{"rule":"ITEMS"}]"#,
                |_| "self.a > 0 && true || false".into()
            )
            .joined(" && ")
        ),
        case!("policy: a long expression", policy(&vec!["object != null"; BODY / 20].join(" && "))),
        case!("policy: nested expression", policy(&format!("{}true{}", "(".repeat(BODY / 3), ")".repeat(BODY / 3)))),
        case!(
            "token review",
            review(
                "authentication",
                "TokenReview",
                "tokenreviews",
                &json!({"token": format!("a.{}.c", "b".repeat(BODY))})
            )
        ),
        case!("access review: groups", {
            let groups: Vec<String> = (0..BODY / 12).map(|i| format!("g{i}")).collect();
            review(
                "authorization",
                "SubjectAccessReview",
                "subjectaccessreviews",
                &json!({"user": "u", "groups": groups, "resourceAttributes": {"verb": "get", "resource": "pods"}}),
            )
        }),
        case!("access review: extra", {
            let extra: serde_json::Map<String, Value> =
                (0..BODY / 16).map(|i| (format!("k{i}"), json!(["v"]))).collect();
            review(
                "authorization",
                "SubjectAccessReview",
                "subjectaccessreviews",
                &json!({"user": "u", "extra": extra, "resourceAttributes": {"verb": "get", "resource": "pods"}}),
            )
        }),
        case!("certificate request", {
            let body = json!({"metadata": {"name": "c"}, "spec": {"request": "LS0t".repeat(BODY / 4), "signerName": "x.io/y", "usages": ["client auth"]}});
            call("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests?dryRun=All", JSON, body.to_string())
        }),
        case!(
            "delete a collection: options",
            call(
                "DELETE",
                "/api/v1/namespaces/default/pods?dryRun=All&labelSelector=none",
                JSON,
                format!(r#"{{"dryRun":[{}]}}"#, repeat(BODY, |_| "\"All\"".into()))
            )
        ),
    ]
}
