//! The bodies: as much of one thing as a request can carry.

macro_rules! case {
    ($name:literal, $call:expr) => {
        Case { name: $name, before: None, call: || $call }
    };
}

mod json;
mod kinds;
mod patches;
mod pods;
mod protobuf;
mod text;
mod yaml;

use schema::Weight;
use serde_json::json;

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

/// All cases.
pub fn all() -> Vec<Case> {
    let parts = [
        json::cases(),
        pods::cases(),
        kinds::cases(),
        yaml::cases(),
        protobuf::cases(),
        patches::cases(),
        text::cases(),
    ];
    parts.into_iter().flatten().collect()
}
