//! A real API server in memory, a kubelet with an in-memory runtime, and short ways to talk to both.

// Each test program uses its own part of this.
#![allow(dead_code)]

pub mod runtime;

use api::k8s::core::v1::{ConfigMap, Event, Node, Pod, ServiceAccount};
use apiserver::{ApiServer, UserInfo};
use kube::api::{DeleteParams, ListParams, PostParams};
use kubelet::{Config, Kubelet};
use runtime::FakeRuntime;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub struct Cluster {
    pub admin: kube::Client,
    pub runtime: Arc<FakeRuntime>,
    node: kube::Client,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
    dir: tempfile::TempDir,
    server: Arc<ApiServer>,
    ca: Arc<pki::Ca>,
    port: u16,
}

impl Cluster {
    pub async fn start() -> Self {
        let testing::ControlPlane { server, ca, dir } = testing::ControlPlane::start().await.expect("start");
        let admin = server.client(UserInfo::admin());
        let node = server.client(UserInfo::new("system:node:n1", &["system:nodes"]));
        let runtime = Arc::new(FakeRuntime::new());
        let port = free_port().await;
        let (stop, running) = launch(&node, &runtime, &dir, &ca, port);
        let cluster = Self { admin, runtime, node, stop, running, dir, server, ca, port };
        cluster.prepare().await;
        cluster
    }

    /// What controllers would have made.
    async fn prepare(&self) {
        let mut account = ServiceAccount::default();
        account.metadata.name = Some("default".into());
        let accounts: kube::Api<ServiceAccount> = kube::Api::default_namespaced(self.admin.clone());
        accounts.create(&PostParams::default(), &account).await.expect("service account");
        self.config_map("kube-root-ca.crt", json!({"ca.crt": "x"})).await;
    }

    pub async fn config_map(&self, name: &str, data: Value) {
        let mut map: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": name}, "data": data})).expect("config map");
        let maps: kube::Api<ConfigMap> = kube::Api::default_namespaced(self.admin.clone());
        if let Some(old) = maps.get_opt(name).await.expect("get") {
            map.metadata.resource_version = old.metadata.resource_version;
            maps.replace(name, &PostParams::default(), &map).await.expect("replace");
        } else {
            maps.create(&PostParams::default(), &map).await.expect("create");
        }
    }

    pub fn pods(&self) -> kube::Api<Pod> {
        kube::Api::default_namespaced(self.admin.clone())
    }

    pub fn pod_dir(&self, pod: &Pod) -> std::path::PathBuf {
        self.dir.path().join("kubelet/pods").join(pod.metadata.uid.as_deref().expect("uid"))
    }

    pub async fn create(&self, name: &str, mut spec: Value) -> Pod {
        spec["nodeName"] = "n1".into();
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("pod");
        self.pods().create(&PostParams::default(), &pod).await.expect("create")
    }

    /// What the node has for pods, in thousandths of a CPU.
    pub async fn allocatable_cpu(&self) -> i64 {
        let nodes: kube::Api<Node> = kube::Api::all(self.admin.clone());
        let node = nodes.get("n1").await.expect("node");
        let cpu = node.status.and_then(|s| s.allocatable).and_then(|a| a.get("cpu").cloned()).expect("allocatable CPU");
        api::quantity::Quantity::parse(&cpu.0).expect("a quantity").milli_value()
    }

    pub async fn delete(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.expect("delete");
    }

    /// Waits until a pod's JSON satisfies a condition.
    pub async fn wait(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..400 {
            last = serde_json::to_value(self.pods().get_opt(name).await.expect("get")).expect("json");
            if holds(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{name} never came to {what}: {:#}\ncalls: {:?}", last["status"], self.runtime.calls());
    }

    pub async fn phase(&self, name: &str, phase: &str) -> Value {
        self.wait(name, phase, |pod| pod["status"]["phase"] == phase).await
    }

    pub async fn gone(&self, name: &str) {
        self.wait(name, "its end", Value::is_null).await;
    }

    pub async fn event(&self, reason: &str, message: &str) {
        let events: kube::Api<Event> = kube::Api::default_namespaced(self.admin.clone());
        let mut seen = Vec::new();
        for _ in 0..200 {
            let list = events.list(&ListParams::default()).await.expect("events");
            seen =
                list.items.into_iter().map(|e| (e.reason.unwrap_or_default(), e.message.unwrap_or_default())).collect();
            if seen.iter().any(|(r, m)| r == reason && m.contains(message)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no event {reason} {message}: {seen:#?}");
    }

    /// Address of the kubelet's API.
    pub fn kubelet_address(&self) -> (&'static str, u16) {
        ("127.0.0.1", self.port)
    }

    /// TLS of a client with a user's certificate.
    pub fn tls(&self, user: &str, groups: &[&str]) -> Arc<rustls::ClientConfig> {
        let identity = self.ca.issue_client(user, groups).expect("certificate");
        let mut config = pki::tls::client_config(&[self.ca.cert_pem()], Some(&identity)).expect("tls");
        config.alpn_protocols = Vec::new();
        Arc::new(config)
    }

    /// Serves the API over TLS and writes a kubeconfig of the administrator.
    pub async fn kubeconfig(&self) -> std::path::PathBuf {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let identity = self.ca.issue_server("kube-apiserver", &["127.0.0.1".into()]).expect("certificate");
        let tls = Arc::new(pki::tls::server_config(&identity, &[self.ca.cert_pem()]).expect("tls"));
        tokio::spawn(self.server.clone().serve(listener, tls, self.stop.clone()));
        let admin = self.ca.issue_client("admin", &["system:masters"]).expect("certificate");
        let write = |name: &str, text: &str| {
            let path = self.dir.path().join(name);
            std::fs::write(&path, text).expect("write");
            path.display().to_string()
        };
        let (ca, cert, key) = (
            write("ca.pem", self.ca.cert_pem()),
            write("admin.pem", &admin.cert_pem),
            write("admin.key", &admin.key_pem),
        );
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": format!("https://{address}"), "certificate-authority": ca}}],
            "users": [{"name": "u", "user": {"client-certificate": cert, "client-key": key}}]});
        write("kubeconfig", &config.to_string()).into()
    }

    /// Ends the kubelet and starts another on the same runtime.
    pub async fn restart_kubelet(&mut self) {
        self.stop.cancel();
        (&mut self.running).await.expect("kubelet");
        (self.stop, self.running) = launch(&self.node, &self.runtime, &self.dir, &self.ca, self.port);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
        self.server.stop();
        // Volumes of pods that are still there are mounts of this process's namespace.
        let _ = kubelet::volumes::mounts::detach_below(self.dir.path());
    }
}

async fn free_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    listener.local_addr().expect("address").port()
}

fn launch(
    client: &kube::Client,
    runtime: &Arc<FakeRuntime>,
    dir: &tempfile::TempDir,
    ca: &pki::Ca,
    port: u16,
) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let identity = ca.issue_server("system:node:n1", &["127.0.0.1".into()]).expect("certificate");
    let tls = Arc::new(pki::tls::server_config(&identity, &[ca.cert_pem()]).expect("tls"));
    let kubelet = Kubelet::new(Config {
        node_name: "n1".into(),
        client: client.clone(),
        runtime: runtime.clone(),
        images: runtime.clone(),
        git: None,
        root_dir: dir.path().join("kubelet"),
        log_dir: dir.path().join("logs"),
        node_ips: vec!["127.0.0.1".parse().expect("ip")],
        cluster_dns: vec!["10.96.0.10".parse().expect("ip")],
        cluster_domain: "cluster.local".into(),
        resolv_conf: "/etc/resolv.conf".into(),
        credential_provider: None,
        // The machine's disk may be full for all these tests care.
        settings: kubelet::KubeletConfiguration {
            eviction_hard: Default::default(),
            image_gc_high_threshold_percent: 100,
            ..Default::default()
        },
        node_labels: Default::default(),
        taints: Vec::new(),
        on_pod_cidr: None,
        server: Some(kubelet::ServerOptions { listen: ([127, 0, 0, 1], port).into(), tls }),
    });
    let stop = CancellationToken::new();
    (stop.clone(), tokio::spawn(kubelet.run(stop)))
}
