//! Kubeconfigs that a server writes.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pki::Identity;
use serde_json::{Value, json};
use std::path::Path;

/// A kubeconfig with one cluster, user and context, all of the same name.
pub fn config(name: &str, server: &str, ca: &str, identity: &Identity) -> Value {
    let encode = |pem: &str| STANDARD.encode(pem);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": encode(ca)}}],
        "users": [{"name": name, "user": {"client-certificate-data": encode(&identity.cert_pem), "client-key-data": encode(&identity.key_pem)}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    })
}

/// Writes a kubeconfig that only its owner can read.
pub fn write(path: &Path, config: &Value) -> Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    let text = cluster::kubeconfig::to_yaml(config)?;
    pki::write_private(path, text.as_bytes()).with_context(|| format!("write {}", path.display()))
}

/// Text that a kubeconfig embeds.
pub fn from_base64(text: &str) -> Result<String> {
    Ok(String::from_utf8(STANDARD.decode(text.trim())?)?)
}
