//! An API server alone, for tests: `serve DIR PORT` writes `DIR/admin.kubeconfig` and serves until it is killed.

use apiserver::{ApiServer, Config};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: serve DIR PORT")?);
    let port: u16 = arguments.next().unwrap_or_else(|| "6443".into()).parse()?;
    let pki_dir = dir.join("pki");
    let ca = Arc::new(pki::Ca::load_or_create(&pki_dir)?);
    let sa_key = Arc::new(pki::ServiceAccountKey::load_or_create(&pki_dir)?);
    std::fs::create_dir_all(&dir)?;
    let kv: Arc<dyn kv::Kv> = kv::RedbKv::open(dir.join("store.redb"), kv::Options::default())?;
    let address: std::net::IpAddr = [127, 0, 0, 1].into();
    let server = ApiServer::new(Config::new(kv, ca.clone(), sa_key, ([192, 168, 255, 1].into(), port))?)?;
    let sans: Vec<String> = ["localhost", "127.0.0.1", "kubernetes", "10.96.0.1"].map(str::to_owned).into();
    let identity = ca.issue_server("kube-apiserver", &sans)?;
    let tls = Arc::new(pki::tls::server_config(&identity, &[ca.cert_pem()])?);
    let listener = tokio::net::TcpListener::bind((address, port)).await?;
    let admin = ca.issue_client("admin", &["system:masters"])?;
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{{name: a, cluster: {{server: \"https://127.0.0.1:{port}\", \
         certificate-authority-data: {}}}}}]\nusers: [{{name: a, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n\
         contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n",
        STANDARD.encode(ca.cert_pem()), STANDARD.encode(&admin.cert_pem), STANDARD.encode(&admin.key_pem)
    );
    std::fs::write(dir.join("admin.kubeconfig"), kubeconfig)?;
    let serving = tokio::spawn(server.clone().serve(listener, tls, CancellationToken::new()));
    server.bootstrap().await?;
    eprintln!("ready");
    serving.await?;
    Ok(())
}
