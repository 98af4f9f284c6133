//! The responder from informers to the wire.

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{StreamExt, stream};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// An API server with lists of services and endpoint slices and one event to come.
struct Server {
    lists: HashMap<&'static str, Value>,
    events: Mutex<HashMap<&'static str, mpsc::UnboundedReceiver<Value>>>,
}

impl Server {
    fn client(lists: HashMap<&'static str, Value>) -> (Client, HashMap<&'static str, mpsc::UnboundedSender<Value>>) {
        let (mut senders, mut receivers) = (HashMap::new(), HashMap::new());
        for resource in ["services", "endpointslices"] {
            let (sender, receiver) = mpsc::unbounded();
            senders.insert(resource, sender);
            receivers.insert(resource, receiver);
        }
        let server = Arc::new(Server { lists, events: Mutex::new(receivers) });
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, std::convert::Infallible>(http::Response::new(server.answer(&request))) }
        });
        (Client::new(service, "default"), senders)
    }

    fn answer(&self, request: &http::Request<Body>) -> UnsyncBoxBody<Bytes, std::convert::Infallible> {
        let resource = if request.uri().path().ends_with("/services") { "services" } else { "endpointslices" };
        if !request.uri().query().is_some_and(|query| query.contains("watch=")) {
            let items = self.lists.get(resource).cloned().unwrap_or(json!([]));
            return Full::from(json!({"metadata": {"resourceVersion": "1"}, "items": items}).to_string())
                .boxed_unsync();
        }
        let Some(events) = self.events.lock().unwrap().remove(resource) else { return pending().boxed_unsync() };
        let frames = events.map(|event| {
            let line = format!("{}\n", json!({"type": "ADDED", "object": event}));
            Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(line)))
        });
        StreamBody::new(frames.chain(stream::pending())).boxed_unsync()
    }
}

/// A watch on which nothing comes.
fn pending() -> StreamBody<impl stream::Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> + Send> {
    StreamBody::new(stream::pending())
}

fn slice(name: &str, ip: &str) -> Value {
    json!({"metadata": {"namespace": "ns", "name": name, "resourceVersion": "2", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "nodeName": "here", "conditions": {"ready": true}}]})
}

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use std::net::SocketAddr;

async fn ask(server: SocketAddr, name: &str) -> Vec<String> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut buffer = [0; 512];
    for _ in 0..100 {
        socket.send_to(&message.to_vec().unwrap(), server).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(50), socket.recv(&mut buffer)).await;
        if let Ok(Ok(received)) = answer {
            return Message::from_vec(&buffer[..received])
                .unwrap()
                .answers
                .iter()
                .map(|r| r.data.to_string())
                .collect();
        }
    }
    panic!("no answer");
}

#[tokio::test]
async fn events_become_answers() {
    let service = json!({"metadata": {"namespace": "ns", "name": "web", "resourceVersion": "1"},
        "spec": {"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]}});
    let (client, events) = Server::client(HashMap::from([
        ("services", json!([service])),
        ("endpointslices", json!([slice("a", "10.244.0.2")])),
    ]));
    let factory = informer::InformerFactory::new(client);
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = dns::Config { listen: vec![address], domain: "cluster.local".into(), upstreams: vec![address] };
    let shutdown = CancellationToken::new();
    let server = dns::bind(config.clone()).await.unwrap();
    let running = tokio::spawn(server.run(factory.clone(), shutdown.clone()));
    let name = "web.ns.svc.cluster.local.";
    for expect in [1, 2] {
        let mut last = Vec::new();
        for _ in 0..200 {
            last = ask(address, name).await;
            if last.len() == expect {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(last.len(), expect, "{last:?}");
        let _ = events["endpointslices"].unbounded_send(slice("b", "10.244.0.3"));
    }
    let taken = dns::bind(config).await.unwrap_err().to_string();
    assert_eq!(taken, format!("cannot listen on {address} for DNS"));
    // It is its own upstream, which it must not ask.
    assert!(ask(address, "example.com.").await.is_empty());
    shutdown.cancel();
    running.await.unwrap();
}
