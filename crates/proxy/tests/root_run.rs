//! The proxy from informers to the kernel, in a network namespace of its own (needs root).

use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

fn slice(name: &str, ip: &str) -> Value {
    json!({"metadata": {"namespace": "ns", "name": name, "resourceVersion": "2", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "nodeName": "here", "conditions": {"ready": true}}]})
}

fn rules() -> HashMap<String, usize> {
    let mut socket = net::netlink::Socket::open(net::netlink::Family::Netfilter).unwrap();
    net::nft::read(&mut socket, net::nft::Family::Ip, "sagong-proxy").unwrap().chains.into_iter().collect()
}

async fn wait(what: &str, holds: impl Fn(&HashMap<String, usize>) -> bool) {
    for _ in 0..1000 {
        if holds(&rules()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("{what}: {:?}", rules());
}

async fn follow() {
    let service = json!({"metadata": {"namespace": "ns", "name": "web", "resourceVersion": "1"},
        "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}]}});
    let (client, events) = testing::scripted::client(HashMap::from([
        ("services", json!([service])),
        ("endpointslices", json!([slice("a", "10.244.0.2")])),
    ]));
    let factory = informer::InformerFactory::new(client);
    let config = proxy::Config { node_name: "here".into(), cluster_cidr: "10.244.0.0/16".parse().unwrap() };
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(proxy::run(factory.clone(), config, shutdown.clone()));
    let chain = "svc-ns/web/tcp/80";
    // One rule marks who is outside, one per endpoint chooses.
    wait("one endpoint", |chains| chains.get(chain) == Some(&2)).await;
    let start = Instant::now();
    events["endpointslices"].unbounded_send(slice("b", "10.244.0.3")).unwrap();
    wait("two endpoints", |chains| chains.get(chain) == Some(&3)).await;
    println!("event to rules: {:?}", start.elapsed());
    shutdown.cancel();
    running.await.unwrap();
    assert_eq!(rules().get(chain), Some(&3), "the table outlives the proxy");
}

#[test]
fn events_become_rules() {
    assert!(rustix::process::geteuid().is_root(), "these tests need root");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node");
    let outer = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    outer.block_on(net::netns::create(&path)).unwrap();
    // The thread's runtime, and what it starts, is inside the namespace.
    let done = outer.block_on(net::netns::run(Some(&path), || {
        let inner = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Ok(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| inner.block_on(follow()))).is_ok())
    }));
    outer.block_on(net::netns::delete(&path)).unwrap();
    assert!(done.unwrap());
}
