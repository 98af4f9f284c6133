//! Credentials for an image: those of pull secrets and of plugins, the closest match first.

use super::pulls::{Holder, Source, hash};
use api::k8s::core::v1::Secret;
use base64::Engine;
use cri::AuthConfig;
use serde_json::Value;
use std::sync::Arc;

/// Credentials with the pattern of images they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// `registry.io`, `*.registry.io:5000/path`
    pub pattern: String,
    /// The credentials.
    pub auth: AuthConfig,
    /// Whose they are.
    pub source: Source,
}

/// The credentials of secrets of the types `dockerconfigjson` and `dockercfg`.
pub fn of_secrets(secrets: &[Arc<Secret>]) -> Vec<Entry> {
    let mut out = Vec::new();
    for (secret, data) in secrets.iter().filter_map(|s| Some((s, s.data.as_ref()?))) {
        let auths = match data.get(".dockerconfigjson") {
            Some(bytes) => serde_json::from_slice::<Value>(&bytes.0).ok().and_then(|v| v.get("auths").cloned()),
            None => data.get(".dockercfg").and_then(|bytes| serde_json::from_slice::<Value>(&bytes.0).ok()),
        };
        for (server, entry) in auths.as_ref().and_then(Value::as_object).into_iter().flatten() {
            out.extend(credentials(entry).map(|auth| {
                let source = Source::Secret(holder(secret, &auth));
                Entry { pattern: pattern(server), auth, source }
            }));
        }
    }
    out
}

fn holder(secret: &Secret, auth: &AuthConfig) -> Holder {
    let AuthConfig { username, password, identity_token, registry_token } = auth;
    let content = serde_json::json!([username, password, identity_token, registry_token]).to_string();
    Holder {
        uid: secret.metadata.uid.clone().unwrap_or_default(),
        namespace: secret.metadata.namespace.clone().unwrap_or_default(),
        name: secret.metadata.name.clone().unwrap_or_default(),
        credential_hash: hash(content.as_bytes()),
    }
}

/// A server entry as a pattern: no scheme, no API version, Docker Hub under one name.
fn pattern(server: &str) -> String {
    let rest = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = if ["index.docker.io", "registry-1.docker.io"].contains(&host) { "docker.io" } else { host };
    match path {
        "" | "v1" | "v2" => host.to_owned(),
        path => format!("{host}/{path}"),
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

/// Whether a pattern is for an image (with its registry): hosts label by label, ports equal, the path a prefix.
pub fn matches(pattern: &str, image: &str) -> bool {
    let part = |text: &str| -> (String, String, String) {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
        (name.to_owned(), port.to_owned(), path.to_owned())
    };
    let ((wanted, wanted_port, prefix), (host, port, path)) = (part(pattern), part(image));
    let labels: (Vec<&str>, Vec<&str>) = (wanted.split('.').collect(), host.split('.').collect());
    labels.0.len() == labels.1.len()
        && labels.0.iter().zip(&labels.1).all(|(pattern, label)| glob(pattern, label))
        && (wanted_port.is_empty() && port.is_empty() || wanted_port == port)
        && path.starts_with(&prefix)
}

/// `*` stands for any run of characters.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| glob(tail, &rest[at..]))
        }),
    }
}

/// The credentials for an image, the longest pattern first.
pub fn find(entries: &[Entry], image: &str) -> Vec<Entry> {
    let full = full_name(image);
    let mut found: Vec<Entry> = entries.iter().filter(|e| matches(&e.pattern, &full)).cloned().collect();
    found.sort_by_key(|e| std::cmp::Reverse(e.pattern.len()));
    found
}

/// An image with its registry, without tag and digest: what patterns are compared with.
pub fn full_name(image: &str) -> String {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let registry = super::reference::registry(image);
    match name.strip_prefix(registry) {
        Some(rest) if rest.starts_with('/') => name.to_owned(),
        _ if !name.contains('/') => format!("{registry}/library/{name}"),
        _ => format!("{registry}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn secrets_become_entries() {
        let config =
            br#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"quay.io":{"username":"a","password":"b"},
            "quay.io/team":{"username":"t","password":"b"}}}"#;
        let data = [(".dockerconfigjson".to_owned(), ByteString(config.to_vec()))].into();
        let entries = of_secrets(&[Arc::new(Secret { data: Some(data), ..Secret::default() })]);
        let users = |image: &str| find(&entries, image).into_iter().map(|e| e.auth.username).collect::<Vec<_>>();
        assert_eq!(users("busybox"), ["u"]);
        assert_eq!(users("quay.io/team/app:1"), ["t", "a"], "the closest first");
        assert_eq!(users("quay.io/other/app@sha256:0"), ["a"]);
        assert!(users("x.io/a").is_empty());
    }

    #[test]
    fn patterns() {
        for (pattern, image, want) in [
            ("*.registry.io", "a.registry.io/x", true),
            ("*.registry.io", "a.b.registry.io/x", false),
            ("registry.io:5000/path", "registry.io:5000/path/x", true),
            ("registry.io", "registry.io:5000/x", false),
            ("*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.eu.amazonaws.com/a", true),
            ("a*c.io", "abc.io/x", true),
        ] {
            assert_eq!(matches(pattern, image), want, "{pattern} {image}");
        }
    }
}
