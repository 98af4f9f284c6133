//! The bodies: as much of one thing as a request can carry.

use schema::Weight;
use serde_json::{Value, json};
use std::fmt::Write;

/// The largest body, with room for what surrounds the thing that is repeated.
const BODY: usize = (3 << 20) - 4096;
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps?dryRun=All";
const PODS: &str = "/api/v1/namespaces/default/pods?dryRun=All";
const LIVE: &str = "/api/v1/namespaces/default/configmaps/live?dryRun=All";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All";
const POD: &str = r#""apiVersion":"v1","kind":"Pod","metadata":{"name":"p"}"#;
const CONFIG_MAP: &str = r#""apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}"#;

/// A request.
pub struct Call {
    pub method: &'static str,
    pub path: String,
    pub kind: &'static str,
    pub body: Vec<u8>,
}

/// A request that is measured.
pub struct Case {
    pub name: &'static str,
    /// Sent before, unmeasured.
    pub before: Option<fn() -> Vec<Call>>,
    pub call: fn() -> Call,
}

fn call(method: &'static str, path: &str, kind: &'static str, body: impl Into<Vec<u8>>) -> Call {
    Call { method, path: path.to_owned(), kind, body: body.into() }
}

/// What there is before the first case: namespace's account, and an object of 40,000 keys, about what a store of 1.5 MiB
/// an object could hold with its managed fields.
pub fn prepared() -> Vec<Call> {
    let account = json!({"metadata": {"name": "default"}}).to_string();
    let data = repeat(500 << 10, |i| format!(r#""k{i:06}":"""#));
    let live = format!(r#"{{"metadata":{{"name":"live"}},"data":{{{data}}}}}"#);
    let pod = json!({"metadata": {"name": "live"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}).to_string();
    vec![
        call("POST", "/api/v1/namespaces/default/serviceaccounts", JSON, account),
        call("POST", "/api/v1/namespaces/default/configmaps", JSON, live),
        call("POST", "/api/v1/namespaces/default/pods", JSON, pod),
    ]
}

/// As many items as fit and are read, separated by commas.
fn repeat(size: usize, item: impl Fn(usize) -> String) -> String {
    // Some is left for what surrounds them.
    let left = Weight::MOST.without(Weight { bytes: 64 << 10, values: 256 });
    repeat_within(size, left, item)
}

/// As many items as fit, read or not.
fn repeat_all(size: usize, item: impl Fn(usize) -> String) -> String {
    repeat_within(size, None, item)
}

fn repeat_within(size: usize, mut left: Option<Weight>, item: impl Fn(usize) -> String) -> String {
    let mut out = String::with_capacity(size);
    for i in 0.. {
        let item = item(i);
        if out.len() + item.len() + 1 > size {
            break;
        }
        if let Some(before) = left {
            let comma = Weight::of_json(b",").bytes;
            let after = before
                .without(Weight::of_json(item.as_bytes()))
                .and_then(|l| l.without(Weight { bytes: comma, values: 1 }));
            if after.is_none() {
                break;
            }
            left = after;
        }
        if i > 0 {
            out.push(',');
        }
        out.push_str(&item);
    }
    out
}

/// A JSON body in which one thing comes as often as it can: `before`, things, `after`.
fn filled(path: &str, before: &str, item: impl Fn(usize) -> String, after: &str) -> Call {
    let size = BODY - before.len() - after.len();
    call("POST", path, JSON, format!("{before}{}{after}", repeat(size, item)))
}

fn pod_list(list: &str, item: impl Fn(usize) -> String) -> Call {
    let before = format!(r#"{{{POD},"spec":{{"containers":[{{"name":"c","image":"i"}}],"{list}":["#);
    filled(PODS, &before, item, "]}}")
}

fn container_list(list: &str, item: impl Fn(usize) -> String) -> Call {
    let before = format!(r#"{{{POD},"spec":{{"containers":[{{"name":"c","image":"i","{list}":["#);
    filled(PODS, &before, item, "]}]}}")
}

fn metadata(what: &str, open: char, item: impl Fn(usize) -> String, close: char) -> Call {
    let before = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"c","{what}":{open}"#);
    filled(CONFIG_MAPS, &before, item, &format!("{close}}}}}"))
}

fn nested(open: &str, close: &str) -> Call {
    let times = BODY / (open.len() + close.len());
    call("POST", CONFIG_MAPS, JSON, format!("{}1{}", open.repeat(times), close.repeat(times)))
}

fn definition(schema: &str) -> Call {
    let body = format!(
        r#"{{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{{"name":"as.x.io"}},"spec":{{"group":"x.io","scope":"Namespaced","names":{{"plural":"as","kind":"A"}},"versions":[{{"name":"v1","served":true,"storage":true,"schema":{{"openAPIV3Schema":{schema}}}}}]}}}}"#
    );
    call("POST", DEFINITIONS, JSON, body)
}

fn object_schema(what: &str, item: impl Fn(usize) -> String) -> Call {
    definition(&format!(r#"{{"type":"object",{what}}}"#, what = what.replace("ITEMS", &repeat(BODY - 1024, item))))
}

/// A message: field numbers and lengths are small here.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

fn protobuf(path: &str, kind: &str, object: &[u8]) -> Call {
    let type_meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
    let body = [b"k8s\0".to_vec(), field(1, &type_meta), field(2, object)].concat();
    call("POST", path, PROTOBUF, body)
}

fn many(item: &[u8]) -> Vec<u8> {
    item.repeat((BODY - 64) / item.len())
}

fn query(parameter: &str, item: impl Fn(usize) -> String) -> Call {
    let text = repeat(BODY / 3, item);
    let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
    call("GET", &format!("/api/v1/pods?{parameter}={encoded}"), JSON, "")
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

fn live_yaml(text: &str) -> Call {
    call("POST", CONFIG_MAPS, YAML, text.to_owned())
}

fn aliases() -> Call {
    let mut text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\na0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..60 {
        let before = vec![format!("*a{}", i - 1); 9].join(",");
        // Writing to a string does not fail.
        let _ = writeln!(text, "a{i}: &a{i} [{before}]");
    }
    live_yaml(&text)
}

fn wide_aliases() -> Call {
    let scalar = "x".repeat(BODY / 2);
    let many = repeat(BODY / 2 - 256, |i| format!("k{i}: *a"));
    live_yaml(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\nx: &a {scalar}\ndata: {{{many}}}\n"))
}

macro_rules! case {
    ($name:literal, $call:expr) => {
        Case { name: $name, before: None, call: || $call }
    };
}

/// All cases.
pub fn all() -> Vec<Case> {
    [json_bodies(), pods(), other_kinds(), yaml(), protobufs(), patches(), text()].into_iter().flatten().collect()
}

fn json_bodies() -> Vec<Case> {
    vec![
        case!(
            "config map: keys",
            filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},\"data\":{{"), |i| format!(r#""k{i:06}":"""#), "}}")
        ),
        case!("config map: 50,000 keys", {
            let data = repeat(50_000 * 13, |i| format!(r#""k{i:06}":"""#));
            call("POST", CONFIG_MAPS, JSON, format!("{{{CONFIG_MAP},\"data\":{{{data}}}}}"))
        }),
        case!(
            "config map: one value",
            filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},\"data\":{{\"k\":\""), |_| "x".repeat(1000), "\"}}")
        ),
        case!(
            "config map: escapes",
            filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},\"data\":{{\"k\":\""), |_| "\\u0001".repeat(150), "\"}}")
        ),
        case!(
            "config map: binary values",
            filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},\"binaryData\":{{"), |i| format!(r#""k{i:06}":"eA==""#), "}}")
        ),
        case!(
            "config map: bad binary values",
            filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},\"binaryData\":{{"), |i| format!(r#""k{i:06}":"?""#), "}}")
        ),
        case!(
            "config map: bad keys",
            filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},\"data\":{{"), |i| format!(r#""?{i:06}":"""#), "}}")
        ),
        case!("unknown fields", filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},"), |i| format!(r#""u{i}":1"#), "}")),
        case!("unknown fields, strict", {
            let path = format!("{CONFIG_MAPS}&fieldValidation=Strict");
            filled(&path, &format!("{{{CONFIG_MAP},"), |i| format!(r#""u{i}":1"#), "}")
        }),
        case!("one field often, strict", {
            let path = format!("{CONFIG_MAPS}&fieldValidation=Strict");
            filled(&path, &format!("{{{CONFIG_MAP},\"data\":{{"), |_| r#""k":"""#.into(), "}}")
        }),
        case!("annotations", metadata("annotations", '{', |i| format!(r#""a{i}":"""#), '}')),
        case!("labels", metadata("labels", '{', |i| format!(r#""a{i}":"""#), '}')),
        case!("bad labels", metadata("labels", '{', |i| format!(r#""?{i}":"?""#), '}')),
        case!("finalizers", metadata("finalizers", '[', |i| format!(r#""x/f{i}""#), ']')),
        case!("bad finalizers", metadata("finalizers", '[', |i| format!(r#""?{i}""#), ']')),
        case!(
            "owners",
            metadata(
                "ownerReferences",
                '[',
                |i| format!(r#"{{"apiVersion":"v1","kind":"Pod","name":"o","uid":"{i}"}}"#),
                ']'
            )
        ),
        case!(
            "owners, one often",
            metadata(
                "ownerReferences",
                '[',
                |_| r#"{"apiVersion":"v1","kind":"Pod","name":"o","uid":"u"}"#.into(),
                ']'
            )
        ),
        case!(
            "managed fields",
            metadata(
                "managedFields",
                '[',
                |i| format!(
                    r#"{{"manager":"m{i}","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{{"f:a":{{}}}}}}"#
                ),
                ']'
            )
        ),
        case!(
            "managed fields, one wide",
            metadata(
                "managedFields",
                '[',
                |_| {
                    let fields = repeat(BODY - 1024, |i| format!(r#""f:{i}":{{}}"#));
                    format!(
                        r#"{{"manager":"m","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{{{fields}}}}}"#
                    )
                },
                ']'
            )
        ),
        case!("nested maps", nested("{\"a\":", "}")),
        case!("nested lists", nested("[", "]")),
        case!("empty maps", call("POST", CONFIG_MAPS, JSON, format!("[{}]", repeat_all(BODY, |_| "{}".into())))),
        case!("config map: more keys than are read", {
            let data = repeat_all(BODY - 256, |i| format!(r#""k{i:06}":"""#));
            call("POST", CONFIG_MAPS, JSON, format!("{{{CONFIG_MAP},\"data\":{{{data}}}}}"))
        }),
        case!("numbers", filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},\"x\":["), |_| "1".into(), "]}")),
        case!(
            "a long number",
            filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},\"x\":1"), |_| "1".repeat(1000), "}").without_commas()
        ),
    ]
}

impl Call {
    fn without_commas(mut self) -> Self {
        let head = self.body.iter().rposition(|b| *b == b':').unwrap_or(0);
        let mut at = 0;
        self.body.retain(|b| {
            at += 1;
            at <= head || *b != b','
        });
        self
    }
}

fn pods() -> Vec<Case> {
    vec![
        case!("pod: containers", pod_list("initContainers", |i| format!(r#"{{"name":"c{i}","image":"i"}}"#))),
        case!("pod: empty containers", pod_list("initContainers", |_| "{}".into())),
        case!("pod: volumes", pod_list("volumes", |i| format!(r#"{{"name":"v{i}","emptyDir":{{}}}}"#))),
        case!("pod: volumes, one often", pod_list("volumes", |_| r#"{"name":"v","emptyDir":{}}"#.into())),
        case!("pod: tolerations", pod_list("tolerations", |i| format!(r#"{{"key":"k{i}","operator":"Exists"}}"#))),
        case!("pod: tolerations, one often", pod_list("tolerations", |_| r#"{"key":"k","operator":"Exists"}"#.into())),
        case!("pod: host aliases", pod_list("hostAliases", |i| format!(r#"{{"ip":"1.1.1.1","hostnames":["h{i}"]}}"#))),
        case!(
            "pod: spread constraints",
            pod_list("topologySpreadConstraints", |i| format!(
                r#"{{"maxSkew":1,"topologyKey":"k{i}","whenUnsatisfiable":"DoNotSchedule"}}"#
            ))
        ),
        case!("pod: readiness gates", pod_list("readinessGates", |i| format!(r#"{{"conditionType":"c{i}"}}"#))),
        case!("pod: scheduling gates", pod_list("schedulingGates", |i| format!(r#"{{"name":"g{i}"}}"#))),
        case!("pod: pull secrets", pod_list("imagePullSecrets", |i| format!(r#"{{"name":"s{i}"}}"#))),
        case!(
            "pod: resource claims",
            pod_list("resourceClaims", |i| format!(r#"{{"name":"s{i}","resourceClaimName":"x"}}"#))
        ),
        case!("pod: environment", container_list("env", |i| format!(r#"{{"name":"E{i}","value":"v"}}"#))),
        case!("pod: bad environment", container_list("env", |_| r#"{"name":"=","value":"v"}"#.into())),
        case!(
            "pod: ports",
            container_list("ports", |i| format!(r#"{{"containerPort":{},"name":"p{i}"}}"#, i % 65000 + 1))
        ),
        case!(
            "pod: host ports",
            container_list("ports", |i| format!(r#"{{"containerPort":1,"hostPort":{}}}"#, i % 65000 + 1))
        ),
        case!("pod: mounts", container_list("volumeMounts", |i| format!(r#"{{"name":"v","mountPath":"/m{i}"}}"#))),
        case!("pod: arguments", container_list("args", |i| format!("\"{i}\""))),
        case!("pod: resources", {
            let before =
                format!(r#"{{{POD},"spec":{{"containers":[{{"name":"c","image":"i","resources":{{"limits":{{"#);
            filled(PODS, &before, |i| format!(r#""x.io/r{i}":"1""#), "}}}]}}")
        }),
        case!("pod: a long quantity", {
            let digits = "9".repeat(BODY - 256);
            call(
                "POST",
                PODS,
                JSON,
                format!(
                    r#"{{{POD},"spec":{{"containers":[{{"name":"c","image":"i","resources":{{"limits":{{"cpu":"{digits}"}}}}}}]}}}}"#
                ),
            )
        }),
        case!("pod: quantities of many digits", {
            let before =
                format!(r#"{{{POD},"spec":{{"containers":[{{"name":"c","image":"i","resources":{{"limits":{{"#);
            filled(PODS, &before, |i| format!(r#""x.io/r{i}":"0.{}1""#, "0".repeat(3000)), "}}}]}}")
        }),
        case!("pod: affinity terms", {
            let before = format!(
                r#"{{{POD},"spec":{{"containers":[{{"name":"c","image":"i"}}],"affinity":{{"podAntiAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":["#
            );
            filled(PODS, &before, |_| r#"{"topologyKey":"k"}"#.into(), "]}}}}")
        }),
    ]
}

fn other_kinds() -> Vec<Case> {
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

impl Call {
    /// Replaces the commas between repeated things.
    fn joined(mut self, by: &str) -> Self {
        let text = String::from_utf8_lossy(&self.body).replace("false,self", &format!("false{by}self"));
        self.body = text.into_bytes();
        self
    }
}

fn yaml() -> Vec<Case> {
    const HEAD: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n";
    vec![
        case!(
            "yaml: keys",
            live_yaml(&format!(
                "{HEAD}data:\n{}",
                (0..BODY / 13).map(|i| format!(" k{i:06}: ''\n")).collect::<String>()
            ))
        ),
        case!(
            "yaml: flow keys",
            live_yaml(&format!("{HEAD}data: {{{}}}", repeat(BODY - 128, |i| format!("k{i:06}: ''"))))
        ),
        case!("yaml: one key often", live_yaml(&format!("{HEAD}data:\n{}", " k: ''\n".repeat(BODY / 8)))),
        case!(
            "yaml: a long scalar",
            live_yaml(&format!("{HEAD}data:\n a: |\n{}", "  xxxxxxxxxxxxxxxxxxxxxxx\n".repeat(BODY / 26)))
        ),
        case!("yaml: a folded scalar", live_yaml(&format!("{HEAD}data:\n a: >\n{}", "  x\n\n".repeat(BODY / 6)))),
        case!("yaml: a quoted scalar", live_yaml(&format!("{HEAD}data:\n a: \"{}\"", "\\x41".repeat(BODY / 4)))),
        case!("yaml: aliases of aliases", aliases()),
        case!("yaml: aliases of a long scalar", wide_aliases()),
        case!(
            "yaml: anchors",
            live_yaml(&format!(
                "{HEAD}data:\n{}",
                (0..BODY / 20).map(|i| format!(" k{i}: &a{i} x\n")).collect::<String>()
            ))
        ),
        case!(
            "yaml: nested flow",
            live_yaml(&format!("{HEAD}a: {}{}", "[".repeat(BODY / 2 - 64), "]".repeat(BODY / 2 - 64)))
        ),
        case!(
            "yaml: nested blocks",
            live_yaml(&format!(
                "{HEAD}a:\n{}",
                (1..2400).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>()
            ))
        ),
        case!("yaml: dashes", live_yaml(&format!("{HEAD}a:\n - {}x", "- ".repeat(BODY / 2 - 64)))),
        case!("yaml: empty items", live_yaml(&format!("{HEAD}a:\n{}", " -\n".repeat(BODY / 3 - 64)))),
        case!("yaml: comments", live_yaml(&format!("{HEAD}{}", "#\n".repeat(BODY / 2 - 64)))),
        case!("yaml: documents", live_yaml(&format!("{HEAD}{}", "---\n".repeat(BODY / 4 - 64)))),
        case!(
            "yaml: merge keys",
            live_yaml(&format!("{HEAD}b: &b {{x: y}}\ndata:\n{}", " <<: *b\n".repeat(BODY / 8 - 64)))
        ),
        case!("yaml: numbers", live_yaml(&format!("{HEAD}a: [{}]", repeat(BODY - 128, |_| "1".into())))),
    ]
}

fn protobufs() -> Vec<Case> {
    vec![
        case!("protobuf: config map keys", {
            let mut object = field(1, &field(1, b"c"));
            for i in 0..(BODY - 64) / 13 {
                object.extend(field(2, &[field(1, format!("k{i:06}").as_bytes()), field(2, b"")].concat()));
            }
            protobuf(CONFIG_MAPS, "ConfigMap", &object)
        }),
        case!("protobuf: empty containers", protobuf(PODS, "Pod", &field(2, &many(&[0x12, 0])))),
        case!("protobuf: empty volumes", protobuf(PODS, "Pod", &field(2, &many(&[0x0a, 0])))),
        case!("protobuf: empty environment", protobuf(PODS, "Pod", &field(2, &field(2, &many(&[0x3a, 0]))))),
        case!("protobuf: empty arguments", protobuf(PODS, "Pod", &field(2, &field(2, &many(&[0x22, 0]))))),
        case!("protobuf: unknown fields", protobuf(PODS, "Pod", &many(&[0x78, 0]))),
        case!("protobuf: empty owners", protobuf(PODS, "Pod", &field(1, &many(&[0x6a, 0])))),
    ]
}

fn patches() -> Vec<Case> {
    const POD_LIVE: &str = "/api/v1/namespaces/default/pods/live?dryRun=All";
    const APPLIED: &str = "/api/v1/namespaces/default/configmaps/applied?fieldManager=m&dryRun=All";
    const APPLIED_POD: &str = "/api/v1/namespaces/default/pods/applied?fieldManager=m&dryRun=All";
    vec![
        case!(
            "json patch: 10,000 additions",
            call(
                "PATCH",
                LIVE,
                JSON_PATCH,
                format!(
                    "[{}]",
                    (0..10_000)
                        .map(|i| format!(r#"{{"op":"add","path":"/data/x{i}","value":"v"}}"#))
                        .collect::<Vec<_>>()
                        .join(",")
                )
            )
        ),
        case!(
            "json patch: 10,000 removals",
            call(
                "PATCH",
                LIVE,
                JSON_PATCH,
                format!(
                    "[{}]",
                    (0..10_000)
                        .map(|i| format!(r#"{{"op":"remove","path":"/data/k{i:06}"}}"#))
                        .collect::<Vec<_>>()
                        .join(",")
                )
            )
        ),
        case!(
            "json patch: 10,000 tests of everything",
            call(
                "PATCH",
                LIVE,
                JSON_PATCH,
                format!("[{}]", vec![r#"{"op":"test","path":"/data","value":{}}"#; 10_000].join(","))
            )
        ),
        case!(
            "json patch: 10,000 copies",
            call(
                "PATCH",
                LIVE,
                JSON_PATCH,
                format!("[{}]", vec![r#"{"op":"copy","from":"/data/k000001","path":"/data/z"}"#; 10_000].join(","))
            )
        ),
        case!(
            "json patch: copies of everything",
            call(
                "PATCH",
                LIVE,
                JSON_PATCH,
                format!(
                    "[{}]",
                    vec![r#"{"op":"copy","from":"/data","path":"/metadata/annotations"}"#; 10_000].join(",")
                )
            )
        ),
        case!(
            "json patch: 10,000 moves",
            call(
                "PATCH",
                LIVE,
                JSON_PATCH,
                format!(
                    "[{}]",
                    (0..10_000)
                        .map(|i| if i % 2 == 0 {
                            r#"{"op":"move","from":"/data","path":"/x"}"#
                        } else {
                            r#"{"op":"move","from":"/x","path":"/data"}"#
                        })
                        .collect::<Vec<_>>()
                        .join(",")
                )
            )
        ),
        case!(
            "json patch: 100,000 operations",
            call(
                "PATCH",
                LIVE,
                JSON_PATCH,
                format!("[{}]", repeat_all(BODY, |_| r#"{"op":"remove","path":"/a"}"#.into()))
            )
        ),
        case!(
            "json patch: deep paths",
            call(
                "PATCH",
                LIVE,
                JSON_PATCH,
                format!(r#"[{{"op":"add","path":"{}","value":1}}]"#, "/a".repeat(BODY / 2 - 64))
            )
        ),
        case!(
            "merge patch: keys",
            call(
                "PATCH",
                LIVE,
                MERGE_PATCH,
                format!(r#"{{"data":{{{}}}}}"#, repeat(BODY, |i| format!(r#""k{i:06}":"""#)))
            )
        ),
        case!(
            "merge patch: nulls",
            call(
                "PATCH",
                LIVE,
                MERGE_PATCH,
                format!(r#"{{"data":{{{}}}}}"#, repeat(BODY, |i| format!(r#""k{i:06}":null"#)))
            )
        ),
        case!("merge patch: one key of a large object", call("PATCH", LIVE, MERGE_PATCH, r#"{"data":{"one":"v"}}"#)),
        case!(
            "strategic: keys",
            call(
                "PATCH",
                LIVE,
                STRATEGIC,
                format!(r#"{{"data":{{{}}}}}"#, repeat(BODY, |i| format!(r#""k{i:06}":"""#)))
            )
        ),
        case!(
            "strategic: retain keys",
            call(
                "PATCH",
                LIVE,
                STRATEGIC,
                format!(r#"{{"data":{{"$retainKeys":[{}]}}}}"#, repeat(BODY, |i| format!(r#""k{i:06}""#)))
            )
        ),
        case!(
            "strategic: merge keys",
            call(
                "PATCH",
                POD_LIVE,
                STRATEGIC,
                format!(
                    r#"{{"spec":{{"tolerations":[{}],"volumes":[{}]}}}}"#,
                    repeat(BODY / 2, |i| format!(r#"{{"key":"k{i}"}}"#)),
                    repeat(BODY / 2, |i| format!(r#"{{"name":"k{i}"}}"#))
                )
            )
        ),
        case!(
            "strategic: deletions",
            call(
                "PATCH",
                POD_LIVE,
                STRATEGIC,
                format!(
                    r#"{{"spec":{{"containers":[{}]}}}}"#,
                    repeat(BODY - 64, |i| format!(r#"{{"$patch":"delete","name":"k{i}"}}"#))
                )
            )
        ),
        case!(
            "strategic: order",
            call(
                "PATCH",
                POD_LIVE,
                STRATEGIC,
                format!(
                    r#"{{"spec":{{"$setElementOrder/volumes":[{}],"volumes":[{}]}}}}"#,
                    repeat(BODY / 2 - 64, |i| format!(r#"{{"name":"k{i}"}}"#)),
                    repeat(BODY / 2 - 64, |i| format!(r#"{{"name":"k{i}"}}"#))
                )
            )
        ),
        case!(
            "strategic: deletions from a list",
            call(
                "PATCH",
                POD_LIVE,
                STRATEGIC,
                format!(
                    r#"{{"metadata":{{"finalizers":["a/b"],"$deleteFromPrimitiveList/finalizers":[{}]}}}}"#,
                    repeat(BODY - 64, |i| format!(r#""k{i}""#))
                )
            )
        ),
        case!(
            "apply: keys",
            call(
                "PATCH",
                APPLIED,
                APPLY,
                format!(
                    "{{{},\"data\":{{{}}}}}",
                    CONFIG_MAP.replace("\"c\"", "\"applied\""),
                    repeat(BODY, |i| format!(r#""k{i:06}":"""#))
                )
            )
        ),
        case!(
            "apply: conflicts",
            call(
                "PATCH",
                &LIVE.replace("dryRun", "fieldManager=m&dryRun"),
                APPLY,
                format!(
                    "{{{},\"data\":{{{}}}}}",
                    CONFIG_MAP.replace("\"c\"", "\"live\""),
                    repeat(600 << 10, |i| format!(r#""k{i:06}":"x""#))
                )
            )
        ),
        case!(
            "apply: a list by key",
            call(
                "PATCH",
                APPLIED_POD,
                APPLY,
                format!(
                    r#"{{{},"spec":{{"containers":[{{"name":"c","image":"i","env":[{}]}}]}}}}"#,
                    POD.replace("\"p\"", "\"applied\""),
                    repeat(BODY - 256, |i| format!(r#"{{"name":"E{i}"}}"#))
                )
            )
        ),
        case!(
            "apply: a list by two keys",
            call(
                "PATCH",
                APPLIED_POD,
                APPLY,
                format!(
                    r#"{{{},"spec":{{"containers":[{{"name":"c","image":"i","ports":[{}]}}]}}}}"#,
                    POD.replace("\"p\"", "\"applied\""),
                    repeat(BODY - 256, |i| format!(r#"{{"containerPort":{}}}"#, i + 1))
                )
            )
        ),
        case!(
            "apply: one element often",
            call(
                "PATCH",
                APPLIED_POD,
                APPLY,
                format!(
                    r#"{{{},"spec":{{"containers":[{{"name":"c","image":"i","env":[{}]}}]}}}}"#,
                    POD.replace("\"p\"", "\"applied\""),
                    repeat(BODY - 256, |_| r#"{"name":"E"}"#.into())
                )
            )
        ),
        case!(
            "apply: a set",
            call(
                "PATCH",
                APPLIED_POD,
                APPLY,
                format!(
                    r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"applied","finalizers":[{}]}}}}"#,
                    repeat(BODY - 256, |i| format!(r#""x/{i}""#))
                )
            )
        ),
        case!(
            "apply: nested",
            call("PATCH", APPLIED, APPLY, format!("{}1{}", "{\"a\":".repeat(BODY / 6), "}".repeat(BODY / 6)))
        ),
    ]
}

fn text() -> Vec<Case> {
    vec![
        case!("label selector: requirements", query("labelSelector", |i| format!("k{i}=v"))),
        case!(
            "label selector: values",
            query("labelSelector", |i| match i {
                0 => "k in (v".into(),
                _ => format!("v{i}"),
            })
        ),
        case!("label selector: open brackets", query("labelSelector", |_| "((((((((((((((((".into())),
        case!("field selector: requirements", query("fieldSelector", |i| format!("metadata.name=v{i}"))),
        case!("parameters", call("GET", &format!("/api/v1/pods?{}", "a&".repeat(BODY / 2)), JSON, "")),
        case!("a long path", call("GET", &format!("/api/v1/{}", "a/".repeat(BODY / 2)), JSON, "")),
        case!(
            "a long continue token",
            call("GET", &format!("/api/v1/pods?limit=1&continue={}", "eyJ2".repeat(BODY / 4)), JSON, "")
        ),
    ]
}
