//! The API server with every controller and the scheduler, without nodes: `control_plane DIR PORT`.

use anyhow::Context;
use apiserver::{ApiServer, UserInfo};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use informer::{CancellationToken, InformerFactory};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().context("usage: control_plane DIR PORT")?);
    let port: u16 = args.next().context("usage: control_plane DIR PORT")?.parse()?;
    std::fs::create_dir_all(&dir)?;
    let kv = kv::RedbKv::open(&dir.join("store"), kv::Options::default())?;
    let ca = Arc::new(pki::Ca::load_or_create(&dir)?);
    let key = Arc::new(pki::ServiceAccountKey::load_or_create(&dir)?);
    let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let advertise = IpAddr::V4(Ipv4Addr::new(192, 168, 255, 1));
    let server = ApiServer::new(apiserver::Config::new(kv, ca.clone(), key, (advertise, port))?)?;
    server.bootstrap().await?;
    let identity = ca.issue_server("kube-apiserver", &["localhost".into(), host.to_string()])?;
    let tls = Arc::new(pki::tls::server_config(&identity, &[ca.cert_pem()])?);
    let listener = tokio::net::TcpListener::bind((host, port)).await?;
    let stop = CancellationToken::new();
    let admin = ca.issue_client("admin", &["system:masters"])?;
    std::fs::write(dir.join("admin.kubeconfig"), kubeconfig(port, &ca, &admin))?;
    tokio::spawn(server.clone().serve(listener, tls, stop.clone()));
    let factory = InformerFactory::new(server.client(UserInfo::new("system:kube-controller-manager", &[])));
    let config = controllers::Config {
        cluster_cidr: "10.244.0.0/16".into(),
        root_ca: ca.cert_pem().to_owned(),
        ..Default::default()
    };
    let accounts = server.clone();
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    let client_for =
        move |name: &str| accounts.client(UserInfo::new(&format!("system:serviceaccount:kube-system:{name}"), &groups));
    tokio::spawn(controllers::run(factory.clone(), client_for, config, stop.clone()));
    tokio::spawn(scheduler::run(factory, server.client(UserInfo::new("system:kube-scheduler", &[])), stop.clone()));
    println!("ready");
    tokio::signal::ctrl_c().await?;
    stop.cancel();
    server.stop();
    Ok(())
}

fn kubeconfig(port: u16, ca: &pki::Ca, admin: &pki::Identity) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{{name: a, cluster: {{server: \"https://127.0.0.1:{port}\", \
         certificate-authority-data: {}}}}}]\nusers: [{{name: a, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n\
         contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n",
        STANDARD.encode(ca.cert_pem()),
        STANDARD.encode(&admin.cert_pem),
        STANDARD.encode(&admin.key_pem)
    )
}
