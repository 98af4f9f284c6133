//! Events: what components tell people, correlated so that repetition costs one object.
//!
//! Sending is asynchronous and lossy by design: a full queue drops the event.

mod correlator;

use api::k8s::core::v1::ObjectReference;
use correlator::Correlator;
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;

const QUEUE: usize = 1000;
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

struct Writer {
    client: Client,
    component: String,
    host: String,
    flavour: Flavour,
    correlator: Correlator,
}

impl Writer {
    fn new(client: Client, component: &str, host: &str, flavour: Flavour) -> Self {
        Self { client, component: component.into(), host: host.into(), flavour, correlator: Correlator::default() }
    }

    async fn run(mut self, mut receiver: mpsc::Receiver<Note>) {
        while let Some(note) = receiver.recv().await {
            if self.flavour == Flavour::Core && !self.correlator.admit(&note.regarding) {
                continue;
            }
            if let Err(error) = self.write(note).await {
                tracing::debug!(%error, "event was not written");
            }
        }
    }

    async fn write(&mut self, mut note: Note) -> Result<(), kube::Error> {
        let mut window = SERIES_WINDOW;
        if self.flavour == Flavour::Core {
            window = Duration::MAX;
            note.message = self.correlator.aggregate(&note.regarding, note.kind, &note.reason, note.message);
        }
        let same = self.correlator.same(&note.regarding, note.kind, &note.reason, &note.message);
        if let Some(known) = self.correlator.repeated(same, window) {
            match self.repeat(&note, &name(&note, known.born), known.count).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => return other,
            }
        }
        self.create(&note).await?;
        self.correlator.created(same, note.at);
        Ok(())
    }

    fn path(&self, note: &Note) -> String {
        let namespace = note.regarding.namespace.as_deref().unwrap_or("default");
        match self.flavour {
            Flavour::Core => format!("/api/v1/namespaces/{namespace}/events"),
            Flavour::EventsV1 => format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"),
        }
    }

    async fn create(&self, note: &Note) -> Result<(), kube::Error> {
        send(&self.client, http::Method::POST, self.path(note), "application/json", &self.body(note)).await
    }

    fn body(&self, note: &Note) -> Value {
        let namespace = note.regarding.namespace.as_deref().unwrap_or("default");
        let mut metadata = json!({"name": name(note, note.at), "namespace": namespace});
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
                    "reason": note.reason, "message": note.message, "type": note.kind.as_str(), "count": 1,
                    "firstTimestamp": at, "lastTimestamp": at, "eventTime": null, "source": source,
                    "reportingComponent": self.component, "reportingInstance": self.host})
            }
            Flavour::EventsV1 => json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": metadata,
                "regarding": note.regarding, "reason": note.reason, "note": note.message, "type": note.kind.as_str(),
                "action": note.action, "eventTime": micros(note.at), "reportingController": self.component,
                "reportingInstance": self.host}),
        }
    }

    async fn repeat(&self, note: &Note, name: &str, count: u32) -> Result<(), kube::Error> {
        let body = match self.flavour {
            Flavour::Core => json!({"count": count, "lastTimestamp": seconds(note.at), "message": note.message}),
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

/// The name of the event that first told it.
fn name(note: &Note, born: Timestamp) -> String {
    format!("{}.{:x}", note.regarding.name.as_deref().unwrap_or("-"), born.as_nanosecond())
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
            writer.write(note).await.expect("written");
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
        assert_eq!(writer.body(&note)["metadata"]["annotations"], json!({"k": "v"}));
        note.annotations.clear();
        assert!(writer.body(&note)["metadata"].get("annotations").is_none());
    }

    #[test]
    fn times_have_the_precision_of_their_field() {
        let at: Timestamp = "2026-01-02T03:04:05.678912Z".parse().expect("time");
        assert_eq!((seconds(at), micros(at)), ("2026-01-02T03:04:05Z".into(), "2026-01-02T03:04:05.678912Z".into()));
    }
}
