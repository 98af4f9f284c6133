//! `EncryptionConfiguration` files (`apiserver.config.k8s.io/v1`).

use super::provider::Key;
use super::{Encryption, Error, Provider, Rule};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    resources: Vec<Resources>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resources {
    resources: Vec<String>,
    providers: Vec<ProviderConfig>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ProviderConfig {
    aesgcm: Option<Keys>,
    aescbc: Option<Keys>,
    secretbox: Option<Keys>,
    identity: Option<Value>,
    kms: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: Vec<KeyConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyConfig {
    name: String,
    secret: String,
}

/// Reads a file; `own` is the provider of the server's own key.
pub fn read(path: &Path, own: Provider) -> Result<Encryption, Error> {
    let failed = |why: String| {
        Error::Config(format!("error while parsing encryption provider configuration file {path:?}: {why}"))
    };
    let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    parse(&text, own).map_err(|e| failed(e.to_string()))
}

fn parse(text: &str, own: Provider) -> Result<Encryption, Error> {
    let file: File = serde_saphyr::from_str(text).map_err(|e| Error::Config(e.to_string()))?;
    if (file.api_version.as_str(), file.kind.as_str()) != ("apiserver.config.k8s.io/v1", "EncryptionConfiguration") {
        let (version, kind) = (file.api_version, file.kind);
        return Err(Error::Config(format!(
            "{kind} of {version:?} is no apiserver.config.k8s.io/v1 EncryptionConfiguration"
        )));
    }
    let rules = file.resources.into_iter().map(rule).collect::<Result<_, _>>()?;
    Ok(Encryption::new(rules, own))
}

fn rule(config: Resources) -> Result<Rule, Error> {
    if config.providers.is_empty() || config.resources.is_empty() {
        return Err(Error::Config("resources and providers must both be named".into()));
    }
    let providers = config.providers.into_iter().map(provider).collect::<Result<_, _>>()?;
    Ok(Rule { resources: config.resources, providers })
}

fn provider(config: ProviderConfig) -> Result<Provider, Error> {
    let ProviderConfig { aesgcm, aescbc, secretbox, identity, kms } = config;
    if kms.is_some() {
        return Err(Error::Config(
            "this server has no kms provider: use secretbox or aesgcm with keys in the file".into(),
        ));
    }
    let mut found = Vec::new();
    if let Some(config) = aesgcm {
        found.push(Provider::AesGcm(keys(config, &[16, 32])?));
    }
    if let Some(config) = aescbc {
        found.push(Provider::AesCbc(keys(config, &[16, 24, 32])?));
    }
    if let Some(config) = secretbox {
        found.push(Provider::Secretbox(keys(config, &[32])?));
    }
    if identity.is_some() {
        found.push(Provider::Identity);
    }
    match (found.pop(), found.is_empty()) {
        (Some(provider), true) => Ok(provider),
        (None, _) => Err(Error::Config(
            "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity".into(),
        )),
        (Some(_), false) => Err(Error::Config(
            "more than one provider specified in a single element, should split into different list elements".into(),
        )),
    }
}

fn keys(config: Keys, lengths: &[usize]) -> Result<Vec<Key>, Error> {
    if config.keys.is_empty() {
        return Err(Error::Config("at least one key must be given".into()));
    }
    let mut out: Vec<Key> = Vec::new();
    for KeyConfig { name, secret } in config.keys {
        if name.is_empty() || name.contains(':') || out.iter().any(|key| key.name == name) {
            return Err(Error::Config(format!("key name {name:?} must be unique, not empty and without ':'")));
        }
        let secret = STANDARD.decode(secret.trim());
        let secret = secret.map_err(|_| Error::Config(format!("secret of key {name:?} must be base64 encoded")))?;
        if !lengths.contains(&secret.len()) {
            let length = secret.len();
            return Err(Error::Config(format!(
                "secret of key {name:?} has {length} bytes, must have one of {lengths:?}"
            )));
        }
        out.push(Key::new(&name, secret));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read() {
        let secret = STANDARD.encode([1; 32]);
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets, '*.apps']\n  \
             providers:\n  - secretbox: {{keys: [{{name: a, secret: {secret}}}]}}\n  - identity: {{}}\n"
        );
        let own = || Provider::Local(vec![Key::new("1", vec![1; 32])]);
        let encryption = parse(&text, own()).expect("configuration");
        assert!(encryption.cipher("apps", "deployments").is_some() && encryption.cipher("", "configmaps").is_none());
        let sealed = encryption.cipher("", "secrets").map(|c| c.seal("/k", b"{}").expect("sealed"));
        assert!(sealed.is_some_and(|s| s.starts_with(b"k8s:enc:secretbox:v1:a:")));
        let check = |from: &str, to: &str, want: &str| {
            let error = parse(&text.replace(from, to), own()).expect_err("refused").to_string();
            assert!(error.contains(want), "{error}");
        };
        check("secretbox", "kms", "no kms provider");
        check(&secret, "not-base64", "base64");
        check(&secret, "YWJj", "must have one of [32]");
        check("  - identity: {}", "  - {}", "expected providers");
        check("kind: EncryptionConfiguration", "kind: Config", "is no apiserver.config.k8s.io/v1");
    }
}
