//! Requests and what Kubernetes answers to them: every file of `cases/` is a list of stories, replayed in process.
//!
//! A case has a `name` and `steps`; a step a `request` (`"POST /api/v1/…"`), a `body` or `text`, the `type` of the body
//! where it is not JSON, and what is compared of the answer: the `status`, the `warnings`, and the `answer`, of
//! which every member must be there (`"*"` stands for any value, `null` for none). `{ns}` is a namespace of the case's own.
//! A case is added for every answer that was found to differ from Kubernetes'.

use http::Request;
use http_body_util::BodyExt;
use kube::client::Body;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;
use testing::ControlPlane;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    request: String,
    #[serde(rename = "type")]
    content_type: Option<String>,
    body: Option<Value>,
    text: Option<String>,
    status: u16,
    #[serde(default)]
    answer: Value,
    warnings: Option<Vec<String>>,
}

struct Server {
    client: kube::Client,
    _server: ControlPlane,
}

impl Server {
    async fn start() -> Self {
        let server = ControlPlane::start().await.expect("server");
        Self { client: server.admin(), _server: server }
    }

    /// Status, warnings and body.
    async fn send(&self, request: &str, content_type: &str, body: String) -> (u16, Vec<String>, Value) {
        let (method, path) = request.split_once(' ').expect("a method and a path");
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        let request = request.header("accept", "application/json").header("user-agent", "cases/1");
        let answer = self.client.send(request.body(Body::from(body.into_bytes())).expect("a request")).await;
        let (head, body) = answer.expect("an answer").into_parts();
        let warnings = head.headers.get_all("warning").iter().filter_map(|v| v.to_str().ok().map(str::to_owned));
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into());
        (head.status.as_u16(), warnings.collect(), body)
    }

    /// What differs in a case.
    async fn replay(&self, case: &Case, namespace: &str) -> Vec<String> {
        let object = json!({"metadata": {"name": namespace}}).to_string();
        let made = self.send("POST /api/v1/namespaces", "application/json", object).await;
        assert_eq!(made.0, 201, "{}: {}", case.name, made.2);
        let account = json!({"metadata": {"name": "default"}}).to_string();
        let path = format!("POST /api/v1/namespaces/{namespace}/serviceaccounts");
        self.send(&path, "application/json", account).await;
        let mut wrong = Vec::new();
        for (at, step) in case.steps.iter().enumerate() {
            let own = |text: &str| text.replace("{ns}", namespace);
            let body = step.text.clone().or_else(|| step.body.as_ref().map(Value::to_string)).unwrap_or_default();
            let patch =
                if step.request.starts_with("PATCH") { "application/merge-patch+json" } else { "application/json" };
            let content_type = step.content_type.as_deref().unwrap_or(patch);
            let (status, warnings, answer) = self.send(&own(&step.request), content_type, own(&body)).await;
            let mut differ = |what: String| wrong.push(format!("{} step {}: {what}", case.name, at + 1));
            if status != step.status {
                differ(format!("status {status}, not {}: {answer}", step.status));
            }
            let want: Value = serde_json::from_str(&own(&step.answer.to_string())).expect("JSON");
            compare("", &want, Some(&answer), &mut differ);
            if let Some(want) = step.warnings.as_ref().filter(|want| **want != warnings) {
                differ(format!("warnings {warnings:?}, not {want:?}"));
            }
        }
        wrong
    }
}

fn compare(path: &str, want: &Value, got: Option<&Value>, differ: &mut impl FnMut(String)) {
    match (want, got) {
        (Value::Object(members), Some(got)) if !members.is_empty() && got.is_object() => {
            members.iter().for_each(|(key, want)| compare(&format!("{path}.{key}"), want, got.get(key), differ));
        }
        (Value::Null, None | Some(Value::Null)) => {}
        (Value::Null, Some(_)) if path.is_empty() => {}
        (Value::String(any), Some(_)) if any == "*" => {}
        (Value::Array(items), Some(Value::Array(got))) if items.len() == got.len() => {
            let pairs = items.iter().zip(got).enumerate();
            pairs.for_each(|(at, (want, got))| compare(&format!("{path}[{at}]"), want, Some(got), differ));
        }
        (want, Some(got)) if want == got => {}
        (want, got) => differ(format!("{path} is {}, not {want}", got.unwrap_or(&Value::Null))),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_kubernetes() {
    let server = Server::start().await;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(dir).expect("the cases").flatten().map(|entry| entry.path()).collect();
    files.sort();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let cases: Vec<Case> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for case in cases {
            count += 1;
            wrong.extend(server.replay(&case, &format!("case-{count}")).await);
        }
    }
    assert!(wrong.is_empty(), "{} differences in {count} cases:\n{}", wrong.len(), wrong.join("\n"));
}
