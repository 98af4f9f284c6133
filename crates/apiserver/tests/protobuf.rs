//! Protobuf as clients speak it: bodies, answers, errors, lists and watches, each held against its JSON form.
//!
//! The objects are those a real server gave in both forms: `testdata/pairs.json` of `schema`, or the file that
//! `SCHEMA_PAIRS` names.

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use testing::ControlPlane;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// What client-go sends.
const EITHER: &str = "application/vnd.kubernetes.protobuf,application/json";
const NAMESPACE: &str = "pb-pairs";

struct Server {
    client: kube::Client,
    _server: ControlPlane,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    code: u16,
    content_type: String,
    body: Vec<u8>,
}

impl Answer {
    /// The object, from whichever form it has, as Go would print it.
    fn object(&self) -> Value {
        if self.content_type != PROTOBUF {
            return serde_json::from_slice(&self.body).expect("JSON");
        }
        let mut object = schema::from_protobuf("", &self.body).expect("protobuf");
        let text = |key: &str| object[key].as_str().unwrap_or("").to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        schema::complete(schema::schema_name(group, version, &kind).expect("a known kind"), &mut object);
        object
    }
}

impl Server {
    async fn start() -> Self {
        let server = ControlPlane::start().await.expect("server");
        let started = Self { client: server.admin(), _server: server };
        let namespace = json!({"metadata": {"name": NAMESPACE}});
        assert_eq!(started.json(Method::POST, "/api/v1/namespaces", &namespace).await.code, 201);
        started
    }

    async fn open(
        &self,
        (method, path): (Method, &str),
        accept: &str,
        (content_type, body): (&str, Vec<u8>),
    ) -> http::Response<Body> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("accept", accept)
            .header("content-type", content_type)
            .body(Body::from(body))
            .expect("request");
        self.client.send(request).await.expect("answer")
    }

    async fn send(&self, what: (Method, &str), accept: &str, body: (&str, Vec<u8>)) -> Answer {
        let (head, body) = self.open(what, accept, body).await.into_parts();
        let content_type = head.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        let body = body.collect().await.expect("body").to_bytes().to_vec();
        Answer { code: head.status.as_u16(), content_type, body }
    }

    async fn json(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.send((method, path), JSON, (JSON, body.to_string().into_bytes())).await
    }

    async fn get(&self, path: &str, accept: &str) -> Answer {
        self.send((Method::GET, path), accept, (JSON, Vec::new())).await
    }
}

/// An object without what the server gives it, as a client would create it.
fn fresh(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for key in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "deletionTimestamp"] {
            metadata.remove(key);
        }
    }
    object
}

/// An object without what differs between two that are created alike.
fn scrubbed(object: Value) -> Value {
    // Jobs have their UID in labels too.
    let uid = object["metadata"]["uid"].as_str().unwrap_or("no UID");
    let mut object: Value = serde_json::from_str(&object.to_string().replace(uid, "UID")).expect("JSON");
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for key in ["uid", "creationTimestamp", "managedFields", "resourceVersion"] {
            metadata.remove(key);
        }
    }
    object
}

/// The recorded objects that live at a path of their own.
fn recorded() -> Vec<(String, Value)> {
    let text = match std::env::var("SCHEMA_PAIRS") {
        Ok(path) => std::fs::read_to_string(path).expect("readable"),
        Err(_) => include_str!("../../schema/testdata/pairs.json").to_owned(),
    };
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let pairs = all["pairs"].as_array().expect("pairs").iter();
    pairs
        .map(|p| (p["path"].as_str().unwrap_or("").to_owned(), p["json"].clone()))
        .filter(|(path, o)| o["metadata"]["name"].as_str().is_some_and(|name| path.ends_with(&format!("/{name}"))))
        .filter(|(_, o)| o["kind"] != "PartialObjectMetadata")
        .map(|(path, o)| (path.replace("pb-pods", NAMESPACE), o))
        .map(|(path, mut o)| {
            if o["metadata"]["namespace"] == "pb-pods" {
                o["metadata"]["namespace"] = NAMESPACE.into();
            }
            (path, o)
        })
        .collect()
}

#[tokio::test]
async fn bodies_and_answers_agree_with_json() {
    let server = Server::start().await;
    let (mut created, mut wrong) = (0, Vec::new());
    for (path, object) in recorded() {
        let object = fresh(&object);
        let bytes = schema::to_protobuf("", &object).expect("writes");
        let collection = path.rsplit_once('/').expect("a path").0;
        let dry = format!("{collection}?dryRun=All");
        let by_json = server.json(Method::POST, &dry, &object).await;
        let by_protobuf = server.send((Method::POST, &dry), JSON, (PROTOBUF, bytes.clone())).await;
        if by_json.code != by_protobuf.code || scrubbed(by_json.object()) != scrubbed(by_protobuf.object()) {
            wrong.push(format!("{path}: bodies\n  json     {}\n  protobuf {}", by_json.object(), by_protobuf.object()));
        }
        let made = server.send((Method::POST, collection), EITHER, (PROTOBUF, bytes)).await;
        assert_eq!(made.content_type, PROTOBUF, "{path}");
        if made.code != 201 {
            assert_eq!(made.object()["kind"], "Status", "{path}");
            continue;
        }
        created += 1;
        let (json, protobuf) = (server.get(&path, JSON).await, server.get(&path, EITHER).await);
        assert_eq!((json.content_type.as_str(), protobuf.content_type.as_str()), (JSON, PROTOBUF), "{path}");
        for (what, answer) in [("get", &protobuf), ("create", &made)] {
            let (answer_object, object) = (answer.object(), json.object());
            // The server's own controllers write some kinds (definitions) in between.
            let version = |o: &Value| o["metadata"]["resourceVersion"].clone();
            if version(&answer_object) == version(&object) && answer_object != object {
                wrong.push(format!("{path}: {what}\n  json     {}\n  protobuf {}", json.object(), answer.object()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    println!("{created} objects were created");
    assert!(created >= 8, "only {created} were created");
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"a": "b"}}, "data": {"k": "v"}})
}

#[tokio::test]
async fn writes_lists_and_metadata_agree_with_json() {
    let server = Server::start().await;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    for name in ["x", "y", "z"] {
        assert_eq!(server.json(Method::POST, &path, &config_map(name)).await.code, 201);
    }
    let one = format!("{path}/x");

    let mut object = server.get(&one, PROTOBUF).await.object();
    object["data"]["k"] = "w".into();
    let bytes = schema::to_protobuf("", &object).expect("writes");
    let put = server.send((Method::PUT, &one), EITHER, (PROTOBUF, bytes.clone())).await;
    assert_eq!((put.code, &put.object()["data"]["k"]), (200, &json!("w")));
    let stale = server.send((Method::PUT, &one), EITHER, (PROTOBUF, bytes)).await;
    assert_eq!((stale.code, stale.object()["reason"].as_str()), (409, Some("Conflict")));
    let patch = ("application/merge-patch+json", br#"{"data":{"k":"p"}}"#.to_vec());
    let patched = server.send((Method::PATCH, &one), EITHER, patch).await;
    assert_eq!((patched.content_type.as_str(), &patched.object()["data"]["k"]), (PROTOBUF, &json!("p")));

    let page = format!("{path}?limit=2");
    for query in [path.clone(), format!("{path}?labelSelector=a%3Dnone")] {
        let (json, protobuf) = (server.get(&query, JSON).await, server.get(&query, EITHER).await);
        let mut object = protobuf.object();
        // Protobuf has no empty lists; a list's items are never null.
        if object["items"].is_null() {
            object["items"] = json!([]);
        }
        assert_eq!((protobuf.content_type.as_str(), object), (PROTOBUF, json.object()), "{query}");
    }
    let token = server.get(&page, EITHER).await.object()["metadata"]["continue"].as_str().expect("a token").to_owned();
    assert_eq!(
        server.get(&format!("{page}&continue={token}"), EITHER).await.object()["items"][0]["metadata"]["name"],
        "z"
    );

    for (path, kind) in [(&one, "PartialObjectMetadata"), (&path, "PartialObjectMetadataList")] {
        let parameters = format!("as={kind};g=meta.k8s.io;v=v1");
        let json = server.get(path, &format!("{JSON};{parameters}")).await.object();
        let protobuf = server.get(path, &format!("{PROTOBUF};{parameters},{JSON};{parameters}")).await;
        assert_eq!(protobuf.content_type, PROTOBUF);
        let mut object = protobuf.object();
        object["items"].as_array_mut().into_iter().flatten().for_each(|item| {
            item["kind"] = "PartialObjectMetadata".into();
            item["apiVersion"] = "meta.k8s.io/v1".into();
        });
        if object["items"].is_null() {
            object.as_object_mut().expect("a map").remove("items");
        }
        assert_eq!(object, json);
    }
    let table = "as=Table;g=meta.k8s.io;v=v1";
    let answer = server.get(&path, &format!("{PROTOBUF};{table},{JSON};{table},{JSON}")).await;
    assert_eq!((answer.content_type.as_str(), &answer.object()["kind"]), (JSON, &json!("Table")));

    let options = |uid: &str| {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
        (PROTOBUF, schema::to_protobuf("", &options).expect("writes"))
    };
    let refused = server.send((Method::DELETE, &one), EITHER, options("other")).await;
    assert_eq!((refused.code, refused.object()["kind"].as_str()), (409, Some("Status")));
    let uid = patched.object()["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let deleted = server.send((Method::DELETE, &one), EITHER, options(&uid)).await;
    assert_eq!((deleted.code, deleted.object()["status"].as_str()), (200, Some("Success")));
    let rest = server.send((Method::DELETE, &path), EITHER, (JSON, Vec::new())).await;
    assert_eq!((rest.content_type.as_str(), rest.object()["items"].as_array().map(Vec::len)), (PROTOBUF, Some(2)));
}

/// The next event of a protobuf watch.
async fn next_event(body: &mut Body, buffer: &mut Vec<u8>) -> (String, Value) {
    loop {
        if let Some((length, rest)) = buffer.split_at_checked(4) {
            let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
            if rest.len() >= length {
                let event = event(&rest[..length]);
                buffer.drain(..4 + length);
                return event;
            }
        }
        let frame = body.frame().await.expect("open").expect("frame");
        buffer.extend_from_slice(&frame.into_data().expect("data"));
    }
}

/// `WatchEvent{type, object{raw}}`; every field here is of bytes.
fn event(bytes: &[u8]) -> (String, Value) {
    let field = |bytes: &[u8], number: u8| -> (Vec<u8>, usize) {
        assert_eq!(bytes[0], number << 3 | 2);
        let (mut length, mut at, mut shift) = (0usize, 1, 0);
        loop {
            length |= usize::from(bytes[at] & 0x7f) << shift;
            (at, shift) = (at + 1, shift + 7);
            if bytes[at - 1] & 0x80 == 0 {
                return (bytes[at..at + length].to_vec(), at + length);
            }
        }
    };
    let (name, used) = field(bytes, 1);
    let (object, end) = field(&bytes[used..], 2);
    assert_eq!(used + end, bytes.len());
    let body = field(&object, 1).0;
    let answer = Answer { code: 200, content_type: PROTOBUF.into(), body };
    (String::from_utf8(name).expect("text"), answer.object())
}

#[tokio::test]
async fn watches_are_framed() {
    let server = Server::start().await;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    server.json(Method::POST, &path, &config_map("x")).await;
    let one = format!("{path}/x");
    let watch =
        format!("{path}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let stream = format!("{PROTOBUF};stream=watch,{JSON}");
    let empty = || (JSON, Vec::new());
    // Two watchers share the frames; the third sees metadata only.
    let partial = format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let mut watchers = Vec::new();
    for accept in [EITHER, &stream, &partial] {
        let response = server.open((Method::GET, &watch), accept, empty()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], format!("{PROTOBUF};stream=watch"));
        watchers.push((accept, response.into_body(), Vec::new()));
    }
    let mut wanted = vec![("ADDED", server.get(&one, JSON).await.object()), ("BOOKMARK", Value::Null)];
    let patch = || ("application/merge-patch+json", br#"{"data":{"k":"p"}}"#.to_vec());
    wanted.push(("MODIFIED", server.send((Method::PATCH, &one), JSON, patch()).await.object()));
    server.send((Method::DELETE, &one), JSON, empty()).await;
    wanted.push(("DELETED", Value::Null));
    for (accept, mut body, mut buffer) in watchers {
        for (name, want) in &wanted {
            let (found, object) = next_event(&mut body, &mut buffer).await;
            assert_eq!(found, *name, "{accept}");
            let want_kind = if accept == partial { "PartialObjectMetadata" } else { "ConfigMap" };
            assert_eq!(object["kind"], want_kind);
            let whole = accept != partial && !want.is_null();
            assert!(!whole || object == *want, "{accept}\n  got  {object}\n  want {want}");
            let ends = object["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true";
            assert_eq!(ends, *name == "BOOKMARK", "{accept} {object}");
        }
    }
}

#[tokio::test]
async fn failures_are_told() {
    let server = Server::start().await;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let service = json!({"apiVersion": "v1", "kind": "Odd", "metadata": {"name": "x"}});
    let odd = schema::to_protobuf("io.k8s.api.core.v1.ConfigMap", &service).expect("writes");
    let mut cut = schema::to_protobuf("", &config_map("x")).expect("writes");
    cut.truncate(cut.len() / 2);
    let unrecognized = "the object provided is unrecognized (must be of type ConfigMap):";
    let foreign = "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]";
    let table = [
        (PROTOBUF, b"{}".to_vec(), 400, format!("{unrecognized} {foreign} ({{}})")),
        (PROTOBUF, b"\0\x01".to_vec(), 400, format!("{unrecognized} {foreign} (0001)")),
        (PROTOBUF, Vec::new(), 400, format!("{unrecognized} empty data (<empty>)")),
        (PROTOBUF, b"k8s\0".to_vec(), 400, format!("{unrecognized} empty body (6b387300)")),
        (PROTOBUF, cut, 400, format!("{unrecognized} unexpected EOF (")),
        (PROTOBUF, odd, 400, "Odd in version \"v1\" cannot be handled as a ConfigMap: no kind \"Odd\" is reg".into()),
        ("application/cbor", b"x".to_vec(), 415, "the body of the request was in an unknown format - accepted".into()),
    ];
    for (content_type, body, code, message) in table {
        let answer = server.send((Method::POST, &path), EITHER, (content_type, body)).await;
        let object = answer.object();
        assert_eq!((answer.code, answer.content_type.as_str()), (code, PROTOBUF), "{object}");
        let found = object["message"].as_str().unwrap_or("");
        assert!(found.starts_with(&message), "{found}");
    }
    let missing = server.get(&format!("{path}/none"), EITHER).await;
    assert_eq!((missing.code, missing.object()["details"]["name"].as_str()), (404, Some("none")));
    let watch = server.get(&format!("{path}?watch=1"), "application/yaml").await;
    assert_eq!(watch.code, 406);
    let cbor = server.get(&path, "application/cbor").await;
    assert_eq!((cbor.code, cbor.content_type.as_str()), (406, JSON));
    let represented = format!("{JSON}, application/yaml, {PROTOBUF}, {JSON};stream=watch, {PROTOBUF};stream=watch");
    let message = format!("406: Not Acceptable\n\nAvailable representations: {represented}");
    assert_eq!(cbor.object()["message"], message);
}

#[tokio::test]
async fn documents_have_their_forms() {
    let server = Server::start().await;
    for (path, want) in [
        ("/api", PROTOBUF),
        ("/apis", PROTOBUF),
        ("/api/v1", PROTOBUF),
        ("/apis/apps/v1", PROTOBUF),
        ("/version", JSON),
    ] {
        let answer = server.get(path, EITHER).await;
        assert_eq!((answer.code, answer.content_type.as_str()), (200, want), "{path}");
    }
    let openapi = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = server.get("/openapi/v2", openapi).await;
    assert_eq!(answer.content_type, openapi.replace('@', "."));
    // `swagger: "2.0"` is its first field.
    assert_eq!(&answer.body[..5], b"\x0a\x032.0");
}
