//! Credentials of registries in image pull secrets.

use api::k8s::core::v1::Secret;
use base64::Engine;
use cri::AuthConfig;
use serde_json::Value;

/// The credentials for a registry in secrets of types `dockerconfigjson` and `dockercfg`; the first that fits.
pub fn find(secrets: &[std::sync::Arc<Secret>], registry: &str) -> Option<AuthConfig> {
    secrets.iter().find_map(|secret| {
        let data = secret.data.as_ref()?;
        let auths = match data.get(".dockerconfigjson") {
            Some(bytes) => serde_json::from_slice::<Value>(&bytes.0).ok()?.get("auths")?.clone(),
            None => serde_json::from_slice::<Value>(&data.get(".dockercfg")?.0).ok()?,
        };
        auths.as_object()?.iter().find(|(server, _)| host(server) == registry).and_then(|(_, entry)| credentials(entry))
    })
}

/// The host of a server entry: `https://index.docker.io/v1/` is Docker Hub.
fn host(server: &str) -> &str {
    let rest = server.trim_start_matches("https://").trim_start_matches("http://");
    match rest.split('/').next().unwrap_or(rest) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

fn credentials(entry: &Value) -> Option<AuthConfig> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut out = AuthConfig {
        username: text("username"),
        password: text("password"),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
    };
    let auth = text("auth");
    if out.username.is_empty() && !auth.is_empty() {
        let decoded = base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (user, password) = decoded.split_once(':')?;
        (out.username, out.password) = (user.to_owned(), password.to_owned());
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use std::sync::Arc;

    #[test]
    fn auth_is_decoded_for_the_registry() {
        let config =
            br#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"quay.io":{"username":"a","password":"b"}}}"#;
        let data = [(".dockerconfigjson".to_owned(), ByteString(config.to_vec()))].into();
        let secrets = [Arc::new(Secret { data: Some(data), ..Secret::default() })];
        let user = |registry: &str| find(&secrets, registry).map(|a| a.username);
        assert_eq!(
            (user("docker.io").as_deref(), user("quay.io").as_deref(), user("x.io")),
            (Some("u"), Some("a"), None)
        );
    }
}
