//! Who is answered, on a node that is a network namespace of its own (needs root).

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use net::{link, netns, route};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const WAIT: Duration = Duration::from_millis(500);

fn query() -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii("none.ns.svc.cluster.local.").unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn udp(from: SocketAddr, server: SocketAddr) -> Option<ResponseCode> {
    let socket = UdpSocket::bind(from).unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket.send_to(&query(), server).unwrap();
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).ok()?;
    Some(Message::from_vec(&answer[..length]).unwrap().metadata.response_code)
}

/// From the address that the kernel chooses.
fn tcp(server: SocketAddr) -> Option<ResponseCode> {
    let mut stream = TcpStream::connect_timeout(&server, WAIT).ok()?;
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let query = query();
    stream.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat()).ok()?;
    let mut answer = [0; 512];
    let length = stream.read(&mut answer).ok().filter(|length| *length > 2)?;
    Some(Message::from_vec(&answer[2..length]).unwrap().metadata.response_code)
}

/// Runs the responder in a namespace, on a thread that is there as long as it.
async fn serve(node: &Path, server: SocketAddr, stop: CancellationToken) {
    let (started, ready) = tokio::sync::oneshot::channel();
    let node = node.to_owned();
    std::thread::spawn(move || {
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let lists = ["services", "endpointslices"].map(|kind| (kind, serde_json::json!([])));
                let (client, _events) = testing::scripted::client(HashMap::from(lists));
                let clients = std::sync::Arc::new(dns::Clients::new(vec!["10.244.0.0/16".parse().unwrap()]));
                let config =
                    dns::Config { listen: vec![server], domain: "cluster.local".into(), upstreams: vec![], clients };
                let responder = dns::bind(config).await.unwrap();
                started.send(()).unwrap();
                responder.run(informer::InformerFactory::new(client), stop).await;
            });
            Ok(())
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(netns::run(Some(&node), work)).unwrap();
    });
    ready.await.unwrap();
}

#[tokio::test]
async fn others_than_pods_and_the_node_get_no_answer() {
    assert!(rustix::process::geteuid().is_root(), "these tests need root");
    let dir = tempfile::tempdir().unwrap();
    let [node, world] = ["node", "world"].map(|name| dir.path().join(name));
    for path in [&node, &world] {
        netns::create(path).await.unwrap();
    }
    link::veth(Some(&node), "uplink", Some(&world), "peer", 1500).await.unwrap();
    route::add_address(Some(&node), "uplink", "192.0.2.2/24".parse().unwrap()).await.unwrap();
    for address in ["192.0.2.1/24", "10.244.1.5/32"] {
        route::add_address(Some(&world), "peer", address.parse().unwrap()).await.unwrap();
    }
    let pods = route::Route::via("10.244.0.0/16".parse().unwrap(), "192.0.2.1".parse().unwrap());
    route::replace(Some(&node), pods).await.unwrap();

    let (server, stop) = ("192.0.2.2:10053".parse().unwrap(), CancellationToken::new());
    serve(&node, server, stop.clone()).await;
    let asked = |at: &Path, from: &str| {
        let (at, from) = (at.to_owned(), SocketAddr::new(from.parse().unwrap(), 0));
        async move { netns::run(Some(&at), move || Ok(udp(from, server))).await.unwrap() }
    };
    assert!(asked(&world, "10.244.1.5").await.is_some(), "a pod");
    assert!(asked(&node, "192.0.2.2").await.is_some(), "the node");
    assert_eq!(asked(&world, "192.0.2.1").await, None, "somebody");
    assert!(netns::run(Some(&node), move || Ok(tcp(server))).await.unwrap().is_some(), "the node");
    assert_eq!(netns::run(Some(&world), move || Ok(tcp(server))).await.unwrap(), None, "somebody");
    stop.cancel();
    for path in [&node, &world] {
        netns::delete(path).await.unwrap();
    }
}
