//! Kubeconfig files that say where a webhook is and who the server is to it.

use crate::registry::yaml;
use crate::webhook::{Address, ClientConfig};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use pki::Identity;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// Reads the current context of a file.
pub fn read(path: &Path) -> Result<ClientConfig, String> {
    let failed = |why: String| format!("kubeconfig {}: {why}", path.display());
    let bytes = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    yaml::parse(&bytes).and_then(|config| client(&config, directory)).map_err(failed)
}

fn client(config: &Value, directory: &Path) -> Result<ClientConfig, String> {
    let current = text(config, "current-context");
    let context = named(config, "contexts", current, "context");
    let context = context.ok_or_else(|| format!("there is no context {current:?}, which is the current one"))?;
    let (cluster_name, user_name) = (text(context, "cluster"), text(context, "user"));
    let cluster = named(config, "clusters", cluster_name, "cluster");
    let cluster = cluster.ok_or_else(|| format!("there is no cluster {cluster_name:?}"))?;
    let url = text(cluster, "server");
    if !url.starts_with("https://") {
        return Err(format!("the server of cluster {cluster_name:?} must be an https URL, not {url:?}"));
    }
    let ca = material(cluster, "certificate-authority", directory)?.unwrap_or_default();
    let mut client = ClientConfig::new(Address::Url(url.to_owned()), ca);
    client.insecure = cluster.get("insecure-skip-tls-verify").and_then(Value::as_bool).unwrap_or(false);
    client.server_name = Some(text(cluster, "tls-server-name").to_owned()).filter(|n| !n.is_empty());
    if let Some(user) = named(config, "users", user_name, "user") {
        credentials(&mut client, user, directory)?;
    }
    Ok(client)
}

fn credentials(client: &mut ClientConfig, user: &Value, directory: &Path) -> Result<(), String> {
    let cert = material(user, "client-certificate", directory)?;
    if let Some((cert_pem, key_pem)) = cert.zip(material(user, "client-key", directory)?) {
        client.identity = Some(Arc::new(Identity { cert_pem, key_pem }));
    }
    let value = match (text(user, "tokenFile"), text(user, "token"), text(user, "username")) {
        ("", "", "") => return Ok(()),
        ("", "", name) => format!("Basic {}", STANDARD.encode(format!("{name}:{}", text(user, "password")))),
        ("", token, _) => format!("Bearer {token}"),
        (file, ..) => {
            let path = directory.join(file);
            let token = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            format!("Bearer {}", token.trim())
        }
    };
    let mut value = HeaderValue::try_from(value).map_err(|_| "the user's credential is no header value")?;
    value.set_sensitive(true);
    client.headers.push((AUTHORIZATION, value));
    Ok(())
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of.get(key).and_then(Value::as_str).unwrap_or("")
}

fn named<'a>(config: &'a Value, list: &str, name: &str, inner: &str) -> Option<&'a Value> {
    config.get(list)?.as_array()?.iter().find(|item| text(item, "name") == name)?.get(inner)
}

/// What `<key>-data` holds, or the file that `<key>` names.
fn material(of: &Value, key: &str, directory: &Path) -> Result<Option<String>, String> {
    let data = text(of, &format!("{key}-data"));
    if !data.is_empty() {
        let bytes = STANDARD.decode(data).map_err(|e| format!("{key}-data: {e}"))?;
        return String::from_utf8(bytes).map(Some).map_err(|e| format!("{key}-data: {e}"));
    }
    match text(of, key) {
        "" => Ok(None),
        file => {
            let path = directory.join(file);
            std::fs::read_to_string(&path).map(Some).map_err(|e| format!("{}: {e}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn contexts_become_clients() {
        let config = json!({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": "https://h:1/p", "certificate-authority-data": "Y2E="}}],
            "users": [{"name": "u", "user": {"token": "t"}}]});
        let client = client(&config, Path::new("/")).expect("client");
        assert_eq!((client.uri().as_str(), client.ca_bundle.as_str()), ("https://h:1/p", "ca"));
        assert_eq!(client.headers[0].1, "Bearer t");
        let mut plain = config.clone();
        plain["clusters"][0]["cluster"]["server"] = "http://h".into();
        assert!(super::client(&plain, Path::new("/")).is_err());
        assert!(super::client(&json!({}), Path::new("/")).is_err());
    }
}
