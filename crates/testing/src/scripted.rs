//! An API whose lists are given and whose watches send what a test says.

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{StreamExt, stream};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

/// For each resource the end that ADDED objects are sent into.
pub type Senders = HashMap<&'static str, mpsc::UnboundedSender<Value>>;

struct Server {
    lists: HashMap<&'static str, Value>,
    events: Mutex<HashMap<&'static str, mpsc::UnboundedReceiver<Value>>>,
}

/// A client of the lists (plural resource → items), which are all that is served, and the ends of their watches.
pub fn client(lists: HashMap<&'static str, Value>) -> (Client, Senders) {
    let (mut senders, mut receivers) = (HashMap::new(), HashMap::new());
    for resource in lists.keys() {
        let (sender, receiver) = mpsc::unbounded();
        senders.insert(*resource, sender);
        receivers.insert(*resource, receiver);
    }
    let server = Arc::new(Server { lists, events: Mutex::new(receivers) });
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(http::Response::new(server.answer(&request))) }
    });
    (Client::new(service, "default"), senders)
}

impl Server {
    fn answer(&self, request: &http::Request<Body>) -> UnsyncBoxBody<Bytes, Infallible> {
        let resource = request.uri().path().rsplit('/').next().unwrap_or_default();
        if !request.uri().query().is_some_and(|query| query.contains("watch=")) {
            let items = self.lists.get(resource).cloned().unwrap_or(json!([]));
            return Full::from(json!({"metadata": {"resourceVersion": "1"}, "items": items}).to_string()).boxed_unsync();
        }
        // A second watch of a resource is one on which nothing comes.
        let Some(events) = self.events.lock().remove(resource) else {
            return StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>()).boxed_unsync();
        };
        let frames = events.map(|event| {
            let line = format!("{}\n", json!({"type": "ADDED", "object": event}));
            Ok::<_, Infallible>(Frame::data(Bytes::from(line)))
        });
        StreamBody::new(frames.chain(stream::pending())).boxed_unsync()
    }
}
