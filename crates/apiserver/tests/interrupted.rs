//! Writes whose client does not wait for their end: they are done as a whole, with all that belongs to them.

use apiserver::UserInfo;
use async_trait::async_trait;
use http::Request;
use kube::client::Body;
use kv::{Error, Kv, Range, RangeReply, Revision, Txn, TxnOutcome, WatchStream};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use testing::ControlPlane;
use tower::ServiceExt;

const SLOW: Duration = Duration::from_millis(300);

/// A store that tells of commits late.
struct Slow(Arc<dyn Kv>);

#[async_trait]
impl Kv for Slow {
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, Error> {
        // Only what the tests write waits.
        let slow = txn.ops.iter().any(|op| matches!(op, kv::Op::Stamp(key, _) if key.ends_with("/slow")));
        let outcome = self.0.txn(txn).await;
        if slow {
            tokio::time::sleep(SLOW).await;
        }
        outcome
    }

    async fn range(&self, range: Range) -> Result<RangeReply, Error> {
        self.0.range(range).await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.0.revision().await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, Error> {
        self.0.watch(prefix, after).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.0.compact(revision).await
    }
}

struct Server(ControlPlane);

impl Server {
    async fn start() -> Self {
        let started = ControlPlane::with(
            |kv| Arc::new(Slow(kv)),
            |config, dir| {
                let policy = dir.join("policy.yaml");
                let rules = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";
                std::fs::write(&policy, rules)?;
                config.audit.policy_file = Some(policy);
                config.audit.log = Some(apiserver::audit::LogSettings {
                    path: dir.join("audit.log"),
                    mode: apiserver::audit::Mode::Blocking,
                    max_size: 0,
                    max_age: 0,
                    max_backups: 0,
                });
                Ok(())
            },
        );
        Self(started.await.expect("server"))
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = request.body(Body::from(body.to_string().into_bytes())).expect("request");
        let answer = self.0.server.service(UserInfo::admin()).oneshot(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let bytes = http_body_util::BodyExt::collect(answer.into_body()).await.expect("body").to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// What the audit log has of a verb on paths like this one.
    fn events(&self, verb: &str, path: &str) -> Vec<Value> {
        let log = std::fs::read_to_string(self.0.dir.path().join("audit.log")).unwrap_or_default();
        let events = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event"));
        events.filter(|e| e["verb"] == verb && e["requestURI"].as_str().is_some_and(|u| u.contains(path))).collect()
    }

    /// The codes that the audit log has of creations of a resource named so.
    fn audited(&self, path: &str) -> Vec<u64> {
        let events = self.events("create", path);
        events.iter().filter_map(|e| e["responseStatus"]["code"].as_u64()).collect()
    }
}

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, ip: &str) -> Value {
    let mut service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    if !ip.is_empty() {
        service["spec"]["clusterIP"] = ip.into();
    }
    service
}

#[tokio::test]
async fn an_address_is_not_free_because_its_service_came_late() {
    let server = Server::start().await;
    let (status, _) = server.send("POST", &format!("{SERVICES}?timeout=50ms"), &service("slow", "10.96.0.77")).await;
    assert_eq!(status, 504);
    tokio::time::sleep(SLOW * 2).await;
    assert_eq!(
        server.send("GET", &format!("{SERVICES}/slow"), &Value::Null).await.0,
        200,
        "it was stored all the same"
    );
    let (status, answer) = server.send("POST", SERVICES, &service("other", "10.96.0.77")).await;
    assert_eq!(status, 422, "{answer}");
    assert_eq!(server.audited("services?timeout"), [504]);
}

#[tokio::test]
async fn who_leaves_is_audited() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let body = json!({"metadata": {"name": "slow"}});
    let left = tokio::time::timeout(Duration::from_millis(50), server.send("POST", path, &body)).await;
    assert!(left.is_err(), "the client left before the answer");
    tokio::time::sleep(SLOW * 2).await;
    assert_eq!(server.send("GET", &format!("{path}/slow"), &Value::Null).await.0, 200);
    assert_eq!(server.audited(path), [201]);
}

#[tokio::test]
async fn who_leaves_before_a_log_is_audited() {
    let server = Server::start().await;
    let kubelet = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a kubelet that says nothing");
    let port = kubelet.local_addr().expect("an address").port();
    let status = json!({"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}});
    let node = json!({"metadata": {"name": "n"}, "status": status});
    let account = json!({"metadata": {"name": "default"}});
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    let namespace = "/api/v1/namespaces/default";
    for (path, body) in [
        ("/api/v1/nodes".to_owned(), node),
        (format!("{namespace}/serviceaccounts"), account),
        (format!("{namespace}/pods"), pod),
    ] {
        let (status, answer) = server.send("POST", &path, &body).await;
        assert_eq!(status, 201, "{answer}");
    }
    let log = format!("{namespace}/pods/p/log");
    let left = tokio::time::timeout(SLOW, server.send("GET", &log, &Value::Null)).await;
    assert!(left.is_err(), "the client left before the answer: {left:?}");
    let events = server.events("get", &log);
    let of = |event: &Value| (event["stage"].clone(), event["responseStatus"]["message"].clone());
    let early = "Connection closed early";
    let want = ["ResponseStarted", "ResponseComplete"].map(|stage| (json!(stage), json!(early)));
    assert_eq!(events.iter().map(of).collect::<Vec<_>>(), want, "{events:?}");
}
