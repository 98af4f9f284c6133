//! The responder from informers to the wire.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

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
    let (client, events) = testing::scripted::client(HashMap::from([
        ("services", json!([service])),
        ("endpointslices", json!([slice("a", "10.244.0.2")])),
    ]));
    let factory = informer::InformerFactory::new(client);
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (listen, upstreams) = (vec![address], vec![address]);
    let config = dns::Config { listen, domain: "cluster.local".into(), upstreams, clients: std::sync::Arc::new(dns::Clients::new(vec![])) };
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
