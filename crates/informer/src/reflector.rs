//! A reflector: list, then watch from the list's resource version, for ever.

use crate::store::{Store, Stored};
use futures::AsyncBufReadExt;
use kube::Client;
use rand::RngExt;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::Weak;
use std::time::Duration;
use tokio::time::Instant;

const BACKOFF_START: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// What Go reads where it wrote null.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// What to list and watch.
#[derive(Clone)]
pub(crate) struct Source {
    /// Collection path, `/api/v1/pods`.
    pub path: String,
    /// Field selector, or empty.
    pub fields: String,
    /// Label selector, or empty.
    pub labels: String,
    /// `Accept` of metadata-only requests.
    pub metadata_only: bool,
}

impl Source {
    fn request(&self, parameters: &[(&str, &str)]) -> Result<http::Request<Vec<u8>>, kube::Error> {
        let mut query = form::Query::new(&self.path);
        query.pair("fieldSelector", &self.fields).pair("labelSelector", &self.labels);
        for (name, value) in parameters {
            query.pair(name, value);
        }
        let accept = match self.metadata_only {
            true if parameters.iter().any(|(name, _)| *name == "watch") => {
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
            }
            true => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            false => "application/json",
        };
        // A watch is never compressed: frames must arrive one by one.
        let builder = http::Request::get(query.finish()).header("accept", accept).header("accept-encoding", "identity");
        builder.body(Vec::new()).map_err(kube::Error::HttpError)
    }
}

mod form {
    /// A path and its query under construction; pairs with empty values are left out.
    pub(super) struct Query {
        text: String,
        separator: char,
    }

    impl Query {
        pub(super) fn new(path: &str) -> Self {
            Self { text: path.to_owned(), separator: '?' }
        }

        pub(super) fn pair(&mut self, name: &str, value: &str) -> &mut Self {
            if !value.is_empty() {
                self.text.push(self.separator);
                self.separator = '&';
                self.text.push_str(name);
                self.text.push('=');
                value.bytes().for_each(|byte| self.push(byte));
            }
            self
        }

        fn push(&mut self, byte: u8) {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => self.text.push(char::from(byte)),
                _ => self.text.push_str(&format!("%{byte:02X}")),
            }
        }

        pub(super) fn finish(self) -> String {
            self.text
        }
    }
}

#[derive(Deserialize)]
struct List<'a> {
    metadata: ListMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    #[serde(default)]
    resource_version: String,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: ListMeta,
}

/// Where the reflector stands.
enum State {
    /// Nothing is known: list at this resource version (`0`: whatever the server has cached; empty: the newest).
    List(String),
    /// Watch from this resource version.
    Watch(String),
}

/// Why a list or watch ended.
enum Ended {
    /// The server closed the stream; go on from this resource version.
    Closed(String),
    /// The resource version is no longer known: list again.
    Expired,
    /// Something failed; go on from this resource version after a pause.
    Failed(String, String),
}

/// Runs until nobody holds the store.
pub(crate) async fn run<K: Stored>(client: Client, source: Source, store: Weak<Store<K>>) {
    let mut state = State::List("0".into());
    let mut pause = BACKOFF_START;
    while store.strong_count() > 0 {
        let started = Instant::now();
        let watching = matches!(state, State::Watch(_));
        let (next, failed) = step(&client, &source, &store, state).await;
        state = next;
        // A stream that lived for long starts the back-off afresh.
        if !failed || started.elapsed() > BACKOFF_MAX {
            pause = BACKOFF_START;
        }
        if failed || (watching && started.elapsed() < Duration::from_millis(10)) {
            let jittered = pause.mul_f64(rand::rng().random_range(1.0..2.0));
            tokio::time::sleep(jittered).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }
}

async fn step<K: Stored>(client: &Client, source: &Source, store: &Weak<Store<K>>, state: State) -> (State, bool) {
    let ended = match &state {
        State::List(rv) => match list(client, source, store, rv).await {
            Ok(rv) => return (State::Watch(rv), false),
            Err(ended) => ended,
        },
        State::Watch(rv) => watch(client, source, store, rv.clone()).await,
    };
    match (ended, state) {
        (Ended::Closed(rv), _) => (State::Watch(rv), false),
        (Ended::Expired, State::List(rv)) => (State::List(String::new()), rv.is_empty()),
        (Ended::Expired, State::Watch(_)) => (State::List(String::new()), false),
        (Ended::Failed(rv, why), state) => {
            tracing::warn!(path = %source.path, %why, "reflector failed, will retry");
            let list = matches!(state, State::List(_));
            (if list { State::List(rv) } else { State::Watch(rv) }, true)
        }
    }
}

async fn list<K: Stored>(client: &Client, source: &Source, store: &Weak<Store<K>>, rv: &str) -> Result<String, Ended> {
    let failed = |error: kube::Error| ended_by(&error, rv);
    let request = source.request(&[("resourceVersion", rv)]).map_err(failed)?;
    let text = client.request_text(request).await.map_err(failed)?;
    let list: List = serde_json::from_str(&text).map_err(|e| Ended::Failed(rv.into(), e.to_string()))?;
    let objects = list.items.into_iter().flatten().filter_map(|raw| decode(source, raw)).collect();
    if let Some(store) = store.upgrade() {
        store.replace(objects);
    }
    Ok(list.metadata.resource_version)
}

async fn watch<K: Stored>(client: &Client, source: &Source, store: &Weak<Store<K>>, mut rv: String) -> Ended {
    let opened = match source.request(&[("watch", "true"), ("allowWatchBookmarks", "true"), ("resourceVersion", &rv)]) {
        Ok(request) => client.request_stream(request).await,
        Err(error) => Err(error),
    };
    let mut stream = match opened {
        Ok(stream) => Box::pin(stream),
        Err(error) => return ended_by(&error, &rv),
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        match stream.read_until(b'\n', &mut line).await {
            Ok(0) => return Ended::Closed(rv),
            // The peer went away in the middle of a frame: it comes again from `rv`.
            Ok(_) if !line.ends_with(b"\n") => return Ended::Closed(rv),
            Ok(_) => {}
            Err(error) => return Ended::Failed(rv, error.to_string()),
        }
        let Some(store) = store.upgrade() else { return Ended::Closed(rv) };
        match frame(source, &store, &line) {
            Ok(Some(newer)) => rv = newer,
            Ok(None) => {}
            Err(ended) => return ended.unwrap_or_else(|why| Ended::Failed(rv, why)),
        }
    }
}

/// Applies one frame and gives its resource version.
fn frame<K: Stored>(source: &Source, store: &Store<K>, line: &[u8]) -> Result<Option<String>, Result<Ended, String>> {
    let frame: Frame = serde_json::from_slice(line).map_err(|e| Err(e.to_string()))?;
    if frame.kind == "ERROR" {
        let status: kube::core::Status = serde_json::from_str(frame.object.get()).map_err(|e| Err(e.to_string()))?;
        return Err(if status.code == 410 { Ok(Ended::Expired) } else { Err(status.message) });
    }
    if frame.kind == "BOOKMARK" {
        let bookmark: Bookmark = serde_json::from_str(frame.object.get()).map_err(|e| Err(e.to_string()))?;
        return Ok(Some(bookmark.metadata.resource_version));
    }
    let Some(obj) = decode::<K>(source, frame.object) else { return Ok(None) };
    let rv = obj.meta().resource_version.clone();
    if frame.kind == "DELETED" {
        store.delete(obj)
    } else {
        store.apply(obj)
    }
    Ok(rv)
}

/// Decodes one object; one that does not fit its kind is reported and left out.
fn decode<K: Stored>(source: &Source, raw: &RawValue) -> Option<K> {
    match serde_json::from_str::<K>(raw.get()).or_else(|error| decode_leniently(raw).ok_or(error)) {
        Ok(mut obj) => {
            obj.meta_mut().managed_fields = None;
            Some(obj)
        }
        Err(error) => {
            tracing::error!(path = %source.path, %error, "object cannot be decoded");
            None
        }
    }
}

/// Decodes an object with times that are null where their kind needs one: Go writes its zero time so, and an object
/// that were left out for it would stay in the store as it was.
fn decode_leniently<K: Stored>(raw: &RawValue) -> Option<K> {
    fn fill(value: &mut Value) {
        match value {
            Value::Object(members) => members.iter_mut().for_each(|(name, member)| match member {
                Value::Null if name == "lastTransitionTime" => *member = ZERO_TIME.into(),
                member => fill(member),
            }),
            Value::Array(items) => items.iter_mut().for_each(fill),
            _ => {}
        }
    }
    let mut value = serde_json::from_str(raw.get()).ok()?;
    fill(&mut value);
    serde_json::from_value(value).ok()
}

fn ended_by(error: &kube::Error, rv: &str) -> Ended {
    match error {
        // 504 is what a server answers that has not seen this resource version (yet).
        kube::Error::Api(status) if status.code == 410 || status.code == 504 => Ended::Expired,
        other => Ended::Failed(rv.into(), other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Informer;
    use crate::store::tests::informer;
    use api::k8s::core::v1::Pod;

    fn source() -> Source {
        Source {
            path: "/api/v1/pods".into(),
            fields: "spec.nodeName=a b".into(),
            labels: String::new(),
            metadata_only: false,
        }
    }

    #[test]
    fn requests_escape_selectors() {
        let request = source().request(&[("watch", "true")]).expect("request");
        assert_eq!(request.uri(), "/api/v1/pods?fieldSelector=spec.nodeName%3Da%20b&watch=true");
    }

    #[test]
    fn frames_change_the_store() {
        let pods: Informer<Pod> = informer();
        let pod = |rv: &str| {
            format!(
                r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"a","namespace":"n","resourceVersion":"{rv}","managedFields":[{{}}]}}}}"#
            )
        };
        let send = |kind: &str, object: &str| {
            let line = format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n");
            frame(&source(), &pods.store, line.as_bytes())
        };
        assert!(matches!(send("ADDED", &pod("1")), Ok(Some(rv)) if rv == "1"));
        assert!(pods.get("n", "a").is_some_and(|p| p.metadata.managed_fields.is_none()));
        assert!(matches!(send("BOOKMARK", &pod("7")), Ok(Some(rv)) if rv == "7"));
        assert!(matches!(send("ERROR", r#"{"kind":"Status","status":"Failure","code":410}"#), Err(Ok(Ended::Expired))));
        assert!(matches!(send("DELETED", &pod("8")), Ok(Some(_))));
        assert!(pods.is_empty());
    }

    #[test]
    fn zero_times_do_not_hide_an_object() {
        let services: Informer<api::k8s::core::v1::Service> = informer();
        let conditions = r#"[{"type":"A","status":"True","reason":"R","message":"","lastTransitionTime":null}]"#;
        let object = format!(r#"{{"metadata":{{"name":"a","namespace":"n"}},"status":{{"conditions":{conditions}}}}}"#);
        let line = format!("{{\"type\":\"ADDED\",\"object\":{object}}}\n");
        assert!(frame(&source(), &services.store, line.as_bytes()).is_ok());
        assert!(services.get("n", "a").is_some());
    }
}
