//! Events: what components tell people, correlated so that repetition costs one object.
//!
//! Sending is asynchronous and lossy by design: a full queue drops the event.

use api::k8s::core::v1::ObjectReference;
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

const QUEUE: usize = 1000;
/// Correlation state is dropped wholesale beyond this many entries.
const CACHE: usize = 4096;
/// Similar events within [`AGGREGATE_WINDOW`] beyond which they are combined.
const AGGREGATE_MAX: usize = 10;
const AGGREGATE_WINDOW: Duration = Duration::from_secs(600);
const SPAM_BURST: f64 = 25.0;
const SPAM_RATE: f64 = 1.0 / 300.0;
/// A series ends when it was quiet for this long.
const SERIES_WINDOW: Duration = Duration::from_secs(6 * 60);

/// Whether an event tells of something expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Nothing to worry about.
    Normal,
    /// Something went wrong.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// The reference to a typed object at its version, as events and volumes have it.
pub fn reference<K: kube::Resource<DynamicType = ()>>(obj: &K) -> ObjectReference {
    ObjectReference { resource_version: obj.meta().resource_version.clone(), ..obj.object_ref(&()) }
}

/// Which API an event is written with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flavour {
    Core,
    EventsV1,
}

struct Note {
    regarding: ObjectReference,
    kind: EventType,
    reason: String,
    action: String,
    message: String,
    annotations: BTreeMap<String, String>,
    at: Timestamp,
}

/// Records events on behalf of one component; clones share the correlation.
#[derive(Clone)]
pub struct EventRecorder {
    sender: mpsc::Sender<Note>,
}

impl EventRecorder {
    /// A recorder of core/v1 events, as controllers and the kubelet use; `host` is empty for controllers.
    pub fn new(client: Client, component: &str, host: &str) -> Self {
        Self::start(client, component, host, Flavour::Core)
    }

    /// A recorder of events.k8s.io/v1 events, as the scheduler uses; `instance` names this process.
    pub fn series(client: Client, component: &str, instance: &str) -> Self {
        Self::start(client, component, instance, Flavour::EventsV1)
    }

    fn start(client: Client, component: &str, host: &str, flavour: Flavour) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = Writer::new(client, component, host, flavour);
        tokio::spawn(writer.run(receiver));
        Self { sender }
    }

    /// Records an event about an object.
    pub fn event(&self, regarding: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        self.action(regarding, kind, reason, "", message);
    }

    /// Records an event with the action that was taken, `Binding`.
    pub fn action(
        &self,
        regarding: &ObjectReference,
        kind: EventType,
        reason: &str,
        action: &str,
        message: impl Into<String>,
    ) {
        self.send(Note {
            regarding: regarding.clone(),
            kind,
            reason: reason.into(),
            action: action.into(),
            message: message.into(),
            annotations: BTreeMap::new(),
            at: Timestamp::now(),
        });
    }

    /// Records an event with annotations.
    pub fn annotated(
        &self,
        regarding: &ObjectReference,
        annotations: BTreeMap<String, String>,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.send(Note {
            regarding: regarding.clone(),
            kind,
            reason: reason.into(),
            action: String::new(),
            message: message.into(),
            annotations,
            at: Timestamp::now(),
        });
    }

    fn send(&self, note: Note) {
        if let Err(error) = self.sender.try_send(note) {
            tracing::debug!(reason = error.into_inner().reason, "event queue is full, event dropped");
        }
    }
}

/// What identifies events that say the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Same {
    object: (String, String, String, String),
    kind: EventType,
    reason: String,
    message: String,
}

struct Written {
    name: String,
    count: i64,
    last: Instant,
}

struct Similar {
    messages: HashSet<String>,
    last: Instant,
}

struct Bucket {
    tokens: f64,
    refilled: Instant,
}

struct Writer {
    client: Client,
    component: String,
    host: String,
    flavour: Flavour,
    written: HashMap<Same, Written>,
    similar: HashMap<Same, Similar>,
    buckets: HashMap<(String, String, String, String), Bucket>,
}

impl Writer {
    fn new(client: Client, component: &str, host: &str, flavour: Flavour) -> Self {
        let (written, similar, buckets) = Default::default();
        Self { client, component: component.into(), host: host.into(), flavour, written, similar, buckets }
    }

    async fn run(mut self, mut receiver: mpsc::Receiver<Note>) {
        while let Some(note) = receiver.recv().await {
            let object = identity(&note.regarding);
            if self.flavour == Flavour::Core && !self.admit(&object) {
                continue;
            }
            if let Err(error) = self.write(note, object).await {
                tracing::debug!(%error, "event was not written");
            }
        }
    }

    /// Takes a token of the object's bucket.
    fn admit(&mut self, object: &(String, String, String, String)) -> bool {
        if self.buckets.len() > CACHE {
            self.buckets.clear();
        }
        let now = Instant::now();
        let bucket = self.buckets.entry(object.clone()).or_insert(Bucket { tokens: SPAM_BURST, refilled: now });
        let refill = now.duration_since(bucket.refilled).as_secs_f64() * SPAM_RATE;
        bucket.tokens = (bucket.tokens + refill).min(SPAM_BURST);
        bucket.refilled = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    /// Combines events that differ in their text only, once there are too many.
    fn aggregate(&mut self, same: &mut Same) {
        if self.similar.len() > CACHE {
            self.similar.clear();
        }
        let now = Instant::now();
        let family = Same { message: String::new(), ..same.clone() };
        let similar = self.similar.entry(family).or_insert_with(|| Similar { messages: HashSet::new(), last: now });
        if now.duration_since(similar.last) > AGGREGATE_WINDOW {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.len() < AGGREGATE_MAX {
            similar.messages.insert(same.message.clone());
        } else if !similar.messages.contains(&same.message) {
            same.message = format!("(combined from similar events): {}", same.message);
        }
    }

    async fn write(&mut self, note: Note, object: (String, String, String, String)) -> Result<(), kube::Error> {
        let mut same = Same { object, kind: note.kind, reason: note.reason.clone(), message: note.message.clone() };
        if self.flavour == Flavour::Core {
            self.aggregate(&mut same);
        }
        if self.written.len() > CACHE {
            self.written.clear();
        }
        let message = same.message.clone();
        if same.message.starts_with("(combined from similar events)") {
            same.message = "(combined from similar events)".into();
        }
        let now = Instant::now();
        let window = if self.flavour == Flavour::Core { Duration::MAX } else { SERIES_WINDOW };
        let known = self.written.get_mut(&same).filter(|w| now.duration_since(w.last) < window);
        if let Some(written) = known {
            written.count += 1;
            written.last = now;
            let (name, count) = (written.name.clone(), written.count);
            match self.repeat(&note, &name, count, &message).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => return other,
            }
        }
        let name = format!("{}.{:x}", note.regarding.name.as_deref().unwrap_or("-"), note.at.as_nanosecond());
        self.create(&note, &name, &message).await?;
        self.written.insert(same, Written { name, count: 1, last: now });
        Ok(())
    }

    fn path(&self, note: &Note) -> String {
        let namespace = note.regarding.namespace.as_deref().unwrap_or("default");
        match self.flavour {
            Flavour::Core => format!("/api/v1/namespaces/{namespace}/events"),
            Flavour::EventsV1 => format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"),
        }
    }

    async fn create(&self, note: &Note, name: &str, message: &str) -> Result<(), kube::Error> {
        let body = self.body(note, name, message);
        send(&self.client, http::Method::POST, self.path(note), "application/json", &body).await
    }

    fn body(&self, note: &Note, name: &str, message: &str) -> Value {
        let namespace = note.regarding.namespace.as_deref().unwrap_or("default");
        let mut metadata = json!({"name": name, "namespace": namespace});
        if !note.annotations.is_empty() {
            metadata["annotations"] = json!(note.annotations);
        }
        match self.flavour {
            Flavour::Core => {
                let at = seconds(note.at);
                let mut source = json!({"component": self.component});
                if !self.host.is_empty() {
                    source["host"] = self.host.as_str().into();
                }
                json!({"apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": note.regarding,
                    "reason": note.reason, "message": message, "type": note.kind.as_str(), "count": 1,
                    "firstTimestamp": at, "lastTimestamp": at, "eventTime": null, "source": source,
                    "reportingComponent": self.component, "reportingInstance": self.host})
            }
            Flavour::EventsV1 => json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": metadata,
                "regarding": note.regarding, "reason": note.reason, "note": message, "type": note.kind.as_str(),
                "action": note.action, "eventTime": micros(note.at), "reportingController": self.component,
                "reportingInstance": self.host}),
        }
    }

    async fn repeat(&self, note: &Note, name: &str, count: i64, message: &str) -> Result<(), kube::Error> {
        let body = match self.flavour {
            Flavour::Core => json!({"count": count, "lastTimestamp": seconds(note.at), "message": message}),
            Flavour::EventsV1 => json!({"series": {"count": count, "lastObservedTime": micros(note.at)}}),
        };
        let path = format!("{}/{name}", self.path(note));
        send(&self.client, http::Method::PATCH, path, "application/merge-patch+json", &body).await
    }
}

async fn send(
    client: &Client,
    method: http::Method,
    path: String,
    content: &str,
    body: &Value,
) -> Result<(), kube::Error> {
    let bytes = serde_json::to_vec(body).map_err(kube::Error::SerdeError)?;
    let builder = http::Request::builder().method(method).uri(path).header("content-type", content);
    let request = builder.body(bytes).map_err(kube::Error::HttpError)?;
    client.request_text(request).await.map(drop)
}

fn identity(regarding: &ObjectReference) -> (String, String, String, String) {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let object = format!("{}/{}", text(&regarding.namespace), text(&regarding.name));
    (text(&regarding.kind), object, text(&regarding.uid), text(&regarding.field_path))
}

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;

    /// A client whose server accepts everything and notes `METHOD path`.
    fn client(seen: Arc<Mutex<Vec<String>>>) -> Client {
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let kind = request.uri().path().rsplit('/').next().is_some_and(|last| last == "events");
            seen.lock().push(format!("{} {}", request.method(), if kind { "events" } else { "event" }));
            async { Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::from(b"{}".to_vec()))) }
        });
        Client::new(service, "default")
    }

    async fn write(flavour: Flavour, messages: &[&str]) -> Vec<String> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut writer = Writer::new(client(seen.clone()), "c", "", flavour);
        for message in messages {
            let regarding = ObjectReference { name: Some("p".into()), ..Default::default() };
            let object = identity(&regarding);
            let (reason, action) = ("R".to_owned(), String::new());
            let note = Note {
                regarding,
                kind: EventType::Normal,
                reason,
                action,
                message: (*message).into(),
                annotations: BTreeMap::new(),
                at: Timestamp::now(),
            };
            writer.write(note, object).await.expect("written");
        }
        let seen = seen.lock();
        seen.clone()
    }

    #[tokio::test]
    async fn repetition_is_counted_and_floods_are_combined() {
        assert_eq!(write(Flavour::Core, &["a", "a", "b"]).await, ["POST events", "PATCH event", "POST events"]);
        assert_eq!(write(Flavour::EventsV1, &["a", "a"]).await, ["POST events", "PATCH event"]);
        let many: Vec<String> = (0..14).map(|n| n.to_string()).collect();
        let seen = write(Flavour::Core, &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(seen.iter().filter(|s| s.starts_with("POST")).count(), 11);
    }

    #[tokio::test]
    async fn annotations_are_written() {
        let writer = Writer::new(client(Arc::default()), "c", "", Flavour::Core);
        let annotations = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let (reason, action, message) = (String::new(), String::new(), String::new());
        let (regarding, kind, at) = (ObjectReference::default(), EventType::Normal, Timestamp::now());
        let mut note = Note { regarding, kind, reason, action, message, annotations, at };
        assert_eq!(writer.body(&note, "n", "m")["metadata"]["annotations"], json!({"k": "v"}));
        note.annotations.clear();
        assert!(writer.body(&note, "n", "m")["metadata"].get("annotations").is_none());
    }

    #[tokio::test]
    async fn a_flood_from_one_object_is_cut() {
        let mut writer = Writer::new(client(Arc::default()), "c", "", Flavour::Core);
        let object = identity(&ObjectReference::default());
        assert_eq!((0..40).filter(|_| writer.admit(&object)).count(), 25);
    }

    #[test]
    fn times_have_the_precision_of_their_field() {
        let at: Timestamp = "2026-01-02T03:04:05.678912Z".parse().expect("time");
        assert_eq!((seconds(at), micros(at)), ("2026-01-02T03:04:05Z".into(), "2026-01-02T03:04:05.678912Z".into()));
    }
}
