//! Services on a node that is a network namespace of its own (needs root).

use informer::Key;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use net::{Cidr, PodNetwork, RoutedConfig, RoutedNetwork, link, netns, route};
use proxy::{Table, plan};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

/// A node with an uplink to a world outside and two pods, 10.244.0.2 and 10.244.0.3.
struct Cluster {
    dir: tempfile::TempDir,
    paths: Vec<PathBuf>,
    node: PathBuf,
    world: PathBuf,
    pods: Vec<PathBuf>,
    table: Option<Table>,
    services: HashMap<Key, (Value, Vec<Value>)>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for path in &self.paths {
            let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

async fn inside<T: Send + 'static>(path: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    netns::run(Some(path), move || Ok(work())).await.unwrap()
}

impl Cluster {
    async fn new() -> Cluster {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let dir = tempfile::tempdir().unwrap();
        let names = ["node", "world", "pod2", "pod3"];
        let paths: Vec<PathBuf> = names.iter().map(|name| dir.path().join(name)).collect();
        let mut cluster = Cluster {
            node: paths[0].clone(),
            world: paths[1].clone(),
            pods: paths[2..].to_vec(),
            table: Some(Table::new(cidr("10.244.0.0/16"))),
            services: HashMap::new(),
            dir,
            paths,
        };
        for path in &cluster.paths {
            netns::create(path).await.unwrap();
        }
        let (node, world) = (Some(cluster.node.as_path()), Some(cluster.world.as_path()));
        link::veth(node, "uplink", world, "peer", 1500).await.unwrap();
        route::add_address(node, "uplink", cidr("192.0.2.2/24")).await.unwrap();
        route::add_address(world, "peer", cidr("192.0.2.1/24")).await.unwrap();
        route::replace(node, route::Route::via(Cidr::any(), "192.0.2.1".parse().unwrap())).await.unwrap();
        for special in ["203.0.113.7/32", "10.96.0.0/16"] {
            route::replace(world, route::Route::via(cidr(special), "192.0.2.2".parse().unwrap())).await.unwrap();
        }
        cluster.attach_pods().await;
        cluster
    }

    async fn attach_pods(&mut self) {
        let config = RoutedConfig {
            state_dir: self.dir.path().join("state"),
            pod_cidr: cidr("10.244.0.0/24"),
            cluster_cidr: cidr("10.244.0.0/16"),
            node_ip: Some("192.0.2.2".parse().unwrap()),
        };
        let pods = self.pods.clone();
        inside(&self.node, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let network = RoutedNetwork::open(config).await.unwrap();
                for (i, pod) in pods.iter().enumerate() {
                    network.attach(&format!("pod{i}"), pod, &[]).await.unwrap();
                }
            });
        })
        .await;
    }

    /// Serves the client's address and its own name on TCP port 8080 of a pod.
    async fn serve(&self, pod: usize) {
        let listener = inside(&self.pods[pod], || TcpListener::bind("0.0.0.0:8080").unwrap()).await;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = (&stream).write_all(format!("pod{pod} {}", stream.peer_addr().unwrap().ip()).as_bytes());
            }
        });
    }

    fn set(&mut self, name: &str, spec: Value, slices: Vec<Value>) {
        let service = json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec,
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}});
        self.services.insert(Key::new("ns", name), (service, slices));
    }

    /// Applies some services; returns how long it took.
    async fn apply(&mut self, names: &[&str]) -> Duration {
        let plans = names.iter().map(|name| {
            let key = Key::new("ns", *name);
            let plan = self.services.get(&key).map(|(service, slices)| {
                let service: Service = serde_json::from_value(service.clone()).unwrap();
                let slices: Vec<Arc<EndpointSlice>> =
                    slices.iter().map(|s| Arc::new(serde_json::from_value(s.clone()).unwrap())).collect();
                plan(&service, &slices, "here", &cidr("10.244.0.0/16"))
            });
            (key, plan)
        });
        let plans: HashMap<_, _> = plans.collect();
        let mut table = self.table.take().unwrap();
        let (table, took) = inside(&self.node, move || {
            let start = Instant::now();
            table.apply(plans).unwrap_or_else(|e| panic!("{e}"));
            (table, start.elapsed())
        })
        .await;
        self.table = Some(table);
        took
    }

    async fn ask(&self, from: &Path, to: &str) -> String {
        let to: SocketAddr = to.parse().unwrap();
        inside(from, move || match TcpStream::connect_timeout(&to, Duration::from_millis(700)) {
            Ok(mut stream) => {
                let mut text = String::new();
                stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                let _ = stream.read_to_string(&mut text);
                text
            }
            Err(e) => e.kind().to_string(),
        })
        .await
    }

    async fn expect(&self, cases: &[(&Path, &str, &str)]) {
        for (from, to, expect) in cases {
            assert_eq!(self.ask(from, to).await, *expect, "{to} from {from:?}");
        }
    }
}

fn slice(endpoints: &[(&str, &str)], protocol: &str) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(ip, node)| json!({"addresses": [ip], "nodeName": node, "conditions": {"ready": true}}))
        .collect();
    json!({"metadata": {}, "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": protocol}], "endpoints": endpoints})
}

fn spec(kind: &str, ip: &str, more: Value) -> Value {
    let mut spec = json!({"type": kind, "clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

const REFUSED: &str = "connection refused";
const TIMED_OUT: &str = "timed out";

#[tokio::test]
async fn every_way_into_a_service() {
    let mut cluster = Cluster::new().await;
    cluster.serve(0).await;
    let (node, world, pod0, pod1) =
        (cluster.node.clone(), cluster.world.clone(), cluster.pods[0].clone(), cluster.pods[1].clone());
    let one = slice(&[("10.244.0.2", "here")], "TCP");
    cluster.set("web", spec("LoadBalancer", "10.96.0.1", json!({"externalIPs": ["10.96.99.9"]})), vec![one.clone()]);
    cluster.apply(&["web"]).await;
    cluster
        .expect(&[
            (&pod1, "10.96.0.1:80", "pod0 10.244.0.3"),
            (&pod0, "10.96.0.1:80", "pod0 192.0.2.2"),
            (&node, "10.96.0.1:80", "pod0 192.0.2.2"),
            (&world, "10.96.0.1:80", "pod0 192.0.2.2"),
            (&world, "192.0.2.2:30080", "pod0 192.0.2.2"),
            (&node, "192.0.2.2:30080", "pod0 192.0.2.2"),
            (&node, "127.0.0.1:30080", "pod0 192.0.2.2"),
            (&pod1, "192.0.2.2:30080", "pod0 192.0.2.2"),
            (&world, "203.0.113.7:80", "pod0 192.0.2.2"),
            (&world, "10.96.99.9:80", "pod0 192.0.2.2"),
            (&pod1, "10.96.0.1:81", REFUSED),
            (&node, "10.96.0.1:81", REFUSED),
        ])
        .await;

    // Policy Local: the client's own address, and only local endpoints.
    let local = json!({"externalTrafficPolicy": "Local"});
    cluster.set("web", spec("LoadBalancer", "10.96.0.1", local.clone()), vec![one.clone()]);
    cluster.apply(&["web"]).await;
    cluster
        .expect(&[
            (&world, "192.0.2.2:30080", "pod0 192.0.2.1"),
            (&world, "203.0.113.7:80", "pod0 192.0.2.1"),
            (&node, "127.0.0.1:30080", "pod0 192.0.2.2"),
            (&world, "10.96.99.9:80", TIMED_OUT),
        ])
        .await;
    let away = slice(&[("10.244.0.2", "there")], "TCP");
    cluster.set("web", spec("LoadBalancer", "10.96.0.1", local), vec![away]);
    cluster.apply(&["web"]).await;
    cluster.expect(&[(&world, "192.0.2.2:30080", TIMED_OUT), (&pod1, "192.0.2.2:30080", "pod0 10.244.0.3")]).await;

    // Allowed sources.
    let ranges = json!({"loadBalancerSourceRanges": ["198.51.100.0/24"]});
    cluster.set("web", spec("LoadBalancer", "10.96.0.1", ranges), vec![one.clone()]);
    cluster.apply(&["web"]).await;
    cluster.expect(&[(&world, "203.0.113.7:80", TIMED_OUT), (&world, "192.0.2.2:30080", "pod0 192.0.2.2")]).await;

    // Nobody there, then gone.
    cluster.set("web", spec("NodePort", "10.96.0.1", json!({})), vec![]);
    cluster.apply(&["web"]).await;
    cluster
        .expect(&[
            (&pod1, "10.96.0.1:80", REFUSED),
            (&node, "10.96.0.1:80", REFUSED),
            (&world, "192.0.2.2:30080", REFUSED),
            (&world, "10.96.0.1:80", REFUSED),
        ])
        .await;
    cluster.services.clear();
    cluster.apply(&["web"]).await;
    let left = inside(&node, || {
        let mut socket = net::netlink::Socket::open(net::netlink::Family::Netfilter).unwrap();
        net::nft::read(&mut socket, net::nft::Family::Ip, "sagong-proxy").unwrap()
    })
    .await;
    assert!(left.chains.keys().all(|name| !name.contains('/')), "{:?}", left.chains);
    assert!(left.sets.values().all(|keys| keys.is_empty()), "{:?}", left.sets);
}

#[tokio::test]
async fn endpoints_on_the_node_itself() {
    let mut cluster = Cluster::new().await;
    let listener = inside(&cluster.node, || TcpListener::bind("192.0.2.2:8080").unwrap()).await;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = (&stream).write_all(stream.peer_addr().unwrap().ip().to_string().as_bytes());
        }
    });
    cluster.set("api", spec("NodePort", "10.96.0.1", json!({})), vec![slice(&[("192.0.2.2", "here")], "TCP")]);
    cluster.apply(&["api"]).await;
    let (node, world, pod) = (cluster.node.clone(), cluster.world.clone(), cluster.pods[0].clone());
    cluster
        .expect(&[
            (&pod, "10.96.0.1:80", "10.244.0.2"),
            (&node, "10.96.0.1:80", "192.0.2.2"),
            (&world, "10.96.0.1:80", "192.0.2.1"),
            (&node, "127.0.0.1:30080", "192.0.2.2"),
            (&world, "192.0.2.2:30080", "192.0.2.1"),
        ])
        .await;
}

#[tokio::test]
async fn balances_and_sticks() {
    let mut cluster = Cluster::new().await;
    cluster.serve(0).await;
    cluster.serve(1).await;
    let both = slice(&[("10.244.0.2", "here"), ("10.244.0.3", "there")], "TCP");
    cluster.set("web", spec("ClusterIP", "10.96.0.1", json!({})), vec![both.clone()]);
    cluster.apply(&["web"]).await;
    let mut first = 0;
    for _ in 0..60 {
        first += usize::from(cluster.ask(&cluster.node, "10.96.0.1:80").await.starts_with("pod0"));
    }
    assert!((10..=50).contains(&first), "{first} of 60 went to the first of two endpoints");

    let sticky = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}});
    cluster.set("web", spec("ClusterIP", "10.96.0.1", sticky), vec![both.clone()]);
    cluster.apply(&["web"]).await;
    let mut seen = HashSet::new();
    for _ in 0..20 {
        seen.insert(cluster.ask(&cluster.node, "10.96.0.1:80").await);
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
    // The endpoint that had the client goes: the other takes over.
    let gone = if seen.iter().next().unwrap().starts_with("pod0") { "10.244.0.3" } else { "10.244.0.2" };
    let sticky = json!({"sessionAffinity": "ClientIP"});
    cluster.set("web", spec("ClusterIP", "10.96.0.1", sticky), vec![slice(&[(gone, "here")], "TCP")]);
    cluster.apply(&["web"]).await;
    assert!(!seen.contains(&cluster.ask(&cluster.node, "10.96.0.1:80").await));

    let internal = json!({"internalTrafficPolicy": "Local"});
    cluster.set("web", spec("ClusterIP", "10.96.0.1", internal), vec![both]);
    cluster.apply(&["web"]).await;
    for _ in 0..10 {
        assert!(cluster.ask(&cluster.node, "10.96.0.1:80").await.starts_with("pod0"));
    }
}

#[tokio::test]
async fn udp_flows_follow_their_endpoints() {
    let mut cluster = Cluster::new().await;
    for pod in 0..2u8 {
        let socket = inside(&cluster.pods[pod as usize], || UdpSocket::bind("0.0.0.0:8080").unwrap()).await;
        std::thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&[pod], from);
            }
        });
    }
    let udp = json!({"ports": [{"port": 53, "protocol": "UDP"}]});
    let client = inside(&cluster.node, || UdpSocket::bind("0.0.0.0:0").unwrap()).await;
    client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let ask = |client: &UdpSocket| {
        client.send_to(b"?", "10.96.0.10:53").unwrap();
        let mut buffer = [9; 1];
        client.recv_from(&mut buffer).map(|_| buffer[0]).ok()
    };
    for (ip, answer) in [("10.244.0.2", 0), ("10.244.0.3", 1), ("10.244.0.2", 0)] {
        cluster.set("dns", spec("ClusterIP", "10.96.0.10", udp.clone()), vec![slice(&[(ip, "here")], "UDP")]);
        cluster.apply(&["dns"]).await;
        assert_eq!(ask(&client), Some(answer), "the same socket reaches {ip}");
    }
}

#[tokio::test]
async fn a_thousand_services_load_fast() {
    let mut cluster = Cluster::new().await;
    cluster.serve(0).await;
    let names: Vec<String> = (0..1000).map(|i| format!("s{i}")).collect();
    for (i, name) in names.iter().enumerate() {
        let ip = format!("10.96.{}.{}", 1 + i / 250, 1 + i % 250);
        let endpoints =
            [("10.244.0.2", "here"), ("10.244.1.2", "there"), ("10.244.1.3", "there"), ("10.244.1.4", "there")];
        let mut spec = spec("NodePort", &ip, json!({}));
        spec["ports"][0]["nodePort"] = json!(30000 + i);
        cluster.set(name, spec, vec![slice(&endpoints[..1 + i % 4], "TCP")]);
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let load = cluster.apply(&all).await;
    cluster.set("s999", spec("ClusterIP", "10.96.4.250", json!({})), vec![slice(&[("10.244.0.2", "here")], "TCP")]);
    let change = cluster.apply(&["s999"]).await;
    assert_eq!(cluster.ask(&cluster.pods[1], "10.96.4.250:80").await, "pod0 10.244.0.3");
    println!("1,000 services: {load:?}; one change: {change:?}");
    // A restart makes the table anew.
    cluster.table = Some(Table::new(cidr("10.244.0.0/16")));
    let again = cluster.apply(&all).await;
    assert_eq!(cluster.ask(&cluster.pods[1], "10.96.4.250:80").await, "pod0 10.244.0.3");
    println!("again after a restart: {again:?}");
}
