//! Pods on a node, the node being a network namespace of its own (needs root).

use net::{Cidr, HostPort, PodNetwork, Protocol, RoutedConfig, RoutedNetwork, link, netns, route};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Named network namespaces that go away with the test.
struct Spaces(Vec<PathBuf>, tempfile::TempDir);

impl Spaces {
    fn new() -> Spaces {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        Spaces(Vec::new(), tempfile::tempdir().unwrap())
    }

    async fn add(&mut self, name: &str) -> PathBuf {
        let path = self.1.path().join(name);
        self.0.push(path.clone());
        netns::create(&path).await.unwrap();
        path
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

async fn inside<T: Send + 'static>(path: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    netns::run(Some(path), move || Ok(work())).await.unwrap()
}

/// Serves `hello` and the peer's address from inside a namespace until the listener's thread ends with the test.
async fn serve(path: &Path, port: u16) {
    let listener = inside(path, move || TcpListener::bind(("0.0.0.0", port)).unwrap()).await;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().unwrap().ip();
            let _ = (&stream).write_all(peer.to_string().as_bytes());
        }
    });
}

async fn ask(path: &Path, to: &str) -> String {
    let to: SocketAddr = to.parse().unwrap();
    inside(path, move || match TcpStream::connect_timeout(&to, Duration::from_secs(2)) {
        Ok(mut stream) => {
            let mut text = String::new();
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let _ = stream.read_to_string(&mut text);
            text
        }
        Err(e) => e.to_string(),
    })
    .await
}

/// A node: this thread's namespace for `RoutedNetwork`, which works on the process's own; so each call is made inside.
struct Node {
    path: PathBuf,
    runtime: std::thread::JoinHandle<()>,
    calls: std::sync::mpsc::Sender<Box<dyn FnOnce(&tokio::runtime::Runtime) + Send>>,
}

impl Node {
    /// Threads inherit the namespace of the one that starts them, so a runtime made inside stays inside.
    async fn new(path: &Path) -> Node {
        let (calls, receiver) = std::sync::mpsc::channel::<Box<dyn FnOnce(&tokio::runtime::Runtime) + Send>>();
        let runtime = inside(path, move || {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                receiver.into_iter().for_each(|call| call(&runtime));
            })
        })
        .await;
        Node { path: path.to_owned(), runtime, calls }
    }

    async fn call<T: Send + 'static, F: Future<Output = T>>(&self, make: impl FnOnce() -> F + Send + 'static) -> T {
        let (done, result) = tokio::sync::oneshot::channel();
        self.calls.send(Box::new(move |runtime| drop(done.send(runtime.block_on(make()))))).unwrap();
        result.await.unwrap()
    }

    fn end(self) {
        drop(self.calls);
        self.runtime.join().unwrap();
    }
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

#[tokio::test]
async fn pods_reach_each_other_the_node_and_the_world() {
    let mut spaces = Spaces::new();
    let (node_ns, world, pod1, pod2) =
        (spaces.add("node").await, spaces.add("world").await, spaces.add("pod1").await, spaces.add("pod2").await);
    // The world is a neighbour of the node on 192.0.2.0/24.
    link::veth(Some(&node_ns), "uplink", Some(&world), "peer", 1400).await.unwrap();
    link::veth(Some(&node_ns), "uplink", Some(&world), "peer", 1400).await.unwrap();
    route::add_address(Some(&node_ns), "uplink", cidr("192.0.2.2/24")).await.unwrap();
    route::add_address(Some(&world), "peer", cidr("192.0.2.1/24")).await.unwrap();
    route::add_address(Some(&world), "peer", cidr("192.0.2.1/24")).await.unwrap();
    route::replace(Some(&node_ns), route::Route::via(Cidr::any(), "192.0.2.1".parse().unwrap())).await.unwrap();
    assert_eq!(route::default_address(Some(&node_ns)).await.unwrap(), Some("192.0.2.2".parse().unwrap()));

    let node = Node::new(&node_ns).await;
    let config = RoutedConfig {
        state_dir: spaces.1.path().join("state"),
        pod_cidr: cidr("10.244.0.0/24"),
        cluster_cidr: cidr("10.244.0.0/16"),
        node_ip: Some("192.0.2.2".parse().unwrap()),
    };
    let again = config.clone();
    let network = node.call(move || RoutedNetwork::open(config)).await.unwrap();
    let port = |protocol, host_port| HostPort { protocol, host_port, container_port: 8080, host_ip: None };
    let ports = vec![port(Protocol::Tcp, 80), port(Protocol::Udp, 53)];
    let (n, p) = (network.clone(), pod1.clone());
    let one = node.call(move || async move { n.attach("one1", &p, &ports).await }).await.unwrap()[0];
    let (n, p) = (network.clone(), pod2.clone());
    let two = node.call(move || async move { n.attach("two2", &p, &[]).await }).await.unwrap()[0];
    assert_eq!((one.to_string(), two.to_string()), ("10.244.0.2".into(), "10.244.0.3".into()));
    assert_eq!(link::find(Some(&pod1), "eth0").await.unwrap().unwrap().mtu, 1400);

    serve(&pod1, 8080).await;
    serve(&world, 9090).await;
    assert_eq!(ask(&pod2, "10.244.0.2:8080").await, "10.244.0.3");
    assert_eq!(ask(&node.path, "10.244.0.2:8080").await, "192.0.2.2");
    assert_eq!(ask(&pod2, "192.0.2.1:9090").await, "192.0.2.2", "masqueraded");
    for (from, to, seen) in [
        (&world, "192.0.2.2:80", "192.0.2.1"),
        (&node.path, "192.0.2.2:80", "192.0.2.2"),
        (&node.path, "127.0.0.1:80", "192.0.2.2"),
        (&pod2, "192.0.2.2:80", "10.244.0.3"),
        (&pod1, "192.0.2.2:80", "192.0.2.2"),
    ] {
        assert_eq!(ask(from, to).await, seen, "{to} from {from:?}");
    }

    // A restart keeps addresses and host ports.
    let network = node.call(move || RoutedNetwork::open(again)).await.unwrap();
    assert_eq!(ask(&world, "192.0.2.2:80").await, "192.0.2.1");
    assert_eq!(network.ipam().lookup("one1"), Some(one));

    let n = network.clone();
    node.call(move || async move {
        n.detach("one1").await.unwrap();
        n.detach("one1").await.unwrap();
        n.retain(&|id| id == "nobody").await.unwrap();
    })
    .await;
    assert!(network.ipam().owners().is_empty());
    assert!(link::find(Some(&node.path), "sgone1").await.unwrap().is_none());
    assert!(ask(&world, "192.0.2.2:80").await.contains("refused"));
    node.end();
}

#[tokio::test]
async fn failed_attach_leaves_nothing_and_says_what_failed() {
    let mut spaces = Spaces::new();
    let node_ns = spaces.add("node").await;
    let node = Node::new(&node_ns).await;
    let (pods, any) = (cidr("10.1.0.0/24"), cidr("10.0.0.0/8"));
    let config = RoutedConfig {
        state_dir: spaces.1.path().join("s"),
        pod_cidr: pods,
        cluster_cidr: any,
        node_ip: Some("9.9.9.9".parse().unwrap()),
    };
    let network = node.call(move || RoutedNetwork::open(config)).await.unwrap();
    let pod = spaces.add("pod").await;
    let (n, p) = (network.clone(), pod.clone());
    let error = node.call(move || async move { n.attach("x", &p, &[]).await }).await.unwrap_err().to_string();
    assert_eq!(error, "cannot set route 10.1.0.2/32 dev sgx: Invalid argument (os error 22) (Invalid prefsrc address)");
    assert!(network.ipam().owners().is_empty());
    assert!(link::find(Some(&node_ns), "sgx").await.unwrap().is_none());
    let error = link::veth(Some(&node_ns), "far-too-long-a-name", None, "x", 1500).await.unwrap_err().to_string();
    assert!(error.contains("is no name of a link"), "{error}");
    node.end();
}

#[tokio::test]
async fn namespaces_are_idempotent() {
    let mut spaces = Spaces::new();
    let path = spaces.add("a").await;
    netns::create(&path).await.unwrap();
    inside(&path, || UdpSocket::bind("127.0.0.1:53").unwrap()).await;
    netns::delete(&path).await.unwrap();
    netns::delete(&path).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn attach_is_fast() {
    let mut spaces = Spaces::new();
    let node_ns = spaces.add("node").await;
    let node = Node::new(&node_ns).await;
    let config = RoutedConfig {
        state_dir: spaces.1.path().join("s"),
        pod_cidr: cidr("10.1.0.0/24"),
        cluster_cidr: cidr("10.0.0.0/8"),
        node_ip: None,
    };
    let network = node.call(move || RoutedNetwork::open(config)).await.unwrap();
    let mut times = Vec::new();
    for i in 0..40 {
        let (n, p) = (network.clone(), spaces.add(&format!("pod{i}")).await);
        let start = Instant::now();
        node.call(move || async move { n.attach(&format!("id{i}"), &p, &[]).await }).await.unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    let ip: IpAddr = "10.1.0.41".parse().unwrap();
    assert_eq!(network.ipam().lookup("id39"), Some(ip));
    println!("attach: median {:?}, slowest {:?}", times[20], times[39]);
    node.end();
}
