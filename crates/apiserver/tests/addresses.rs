//! The addresses of services and their records: what a start mends of them, and what it does not wait for.

use apiserver::UserInfo;
use http::Request;
use kube::client::Body;
use kv::Kv;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use testing::ControlPlane;
use tower::ServiceExt;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const RECORDS: &str = "/apis/networking.k8s.io/v1/ipaddresses";

/// A server whose services have six addresses, of which `kubernetes` has the first.
async fn start(kv: &OnceLock<Arc<dyn Kv>>) -> anyhow::Result<ControlPlane> {
    let configure = |config: &mut apiserver::Config| config.service_cidr = "10.96.0.0/29".into();
    ControlPlane::with(|own| kv.get_or_init(|| own).clone(), |config, _| Ok(configure(config))).await
}

async fn send(server: &ControlPlane, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.body(Body::from(body.to_string().into_bytes())).expect("request");
    let answer = server.server.service(UserInfo::admin()).oneshot(request).await.expect("an answer");
    let status = answer.status().as_u16();
    let bytes = http_body_util::BodyExt::collect(answer.into_body()).await.expect("body").to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// Makes a service; gives its address.
async fn service(server: &ControlPlane, name: &str) -> String {
    let body = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    let (status, made) = send(server, "POST", SERVICES, &body).await;
    assert_eq!(status, 201, "{made}");
    made["spec"]["clusterIP"].as_str().expect("an address").to_owned()
}

fn record(address: &str, labels: Value) -> Value {
    let parent = json!({"resource": "services", "namespace": "default", "name": "nobody"});
    json!({"metadata": {"name": address, "labels": labels}, "spec": {"parentRef": parent}})
}

#[tokio::test]
async fn what_others_have_recorded_is_not_drawn() {
    let server = start(&OnceLock::new()).await.expect("server");
    for last in 2..6 {
        let (status, made) = send(&server, "POST", RECORDS, &record(&format!("10.96.0.{last}"), json!({}))).await;
        assert_eq!(status, 201, "{made}");
    }
    assert_eq!(service(&server, "a").await, "10.96.0.6");
    let full = json!({"metadata": {"name": "b"}, "spec": {"ports": [{"port": 80}]}});
    let (status, refused) = send(&server, "POST", SERVICES, &full).await;
    let why = "Internal error occurred: failed to allocate a serviceIP for Service \"b\": range is full";
    assert_eq!((status, refused["message"].as_str()), (500, Some(why)), "{refused}");
    for last in 2..6 {
        assert_eq!(send(&server, "DELETE", &format!("{RECORDS}/10.96.0.{last}"), &Value::Null).await.0, 200);
    }
    service(&server, "b").await;
}

#[tokio::test]
async fn records_are_mended_beside_the_requests() {
    let kv = OnceLock::new();
    let first = start(&kv).await.expect("server");
    let address = service(&first, "a").await;
    assert_eq!(send(&first, "DELETE", &format!("{RECORDS}/{address}"), &Value::Null).await.0, 200);
    let own = json!({"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"});
    let young = if address == "10.96.0.2" { "10.96.0.3" } else { "10.96.0.2" };
    assert_eq!(send(&first, "POST", RECORDS, &record(young, own)).await.0, 201);
    let second = start(&kv).await.expect("a second server");
    let mut mended = (0, Value::Null);
    for _ in 0..250 {
        mended = send(&second, "GET", &format!("{RECORDS}/{address}"), &Value::Null).await;
        if mended.0 == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(mended.1["spec"]["parentRef"]["name"], "a", "{mended:?}");
    let (status, _) = send(&second, "GET", &format!("{RECORDS}/{young}"), &Value::Null).await;
    assert_eq!(status, 200, "its service may still come");
}

#[tokio::test]
async fn a_start_waits_for_no_webhook() {
    let kv = OnceLock::new();
    let first = start(&kv).await.expect("server");
    service(&first, "a").await;
    let all = json!({"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"]});
    let hook = json!({"metadata": {"name": "all"}, "webhooks": [{"name": "all.example.com", "rules": [all],
        "clientConfig": {"url": "https://127.0.0.1:1/"}, "failurePolicy": "Fail", "sideEffects": "None",
        "admissionReviewVersions": ["v1"]}]});
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let (status, made) = send(&first, "POST", path, &hook).await;
    assert_eq!(status, 201, "{made}");
    let second = start(&kv).await.expect("a start beside a webhook that does not answer");
    assert_eq!(send(&second, "GET", &format!("{SERVICES}/a"), &Value::Null).await.0, 200);
}
