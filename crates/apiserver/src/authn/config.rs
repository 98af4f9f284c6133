//! Settings of authentication: flags, and the `AuthenticationConfiguration` file (`apiserver.config.k8s.io`).

use super::front_proxy::FrontProxy;
use super::{oidc, webhook};
use crate::registry::yaml;
use api::Cause;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const GROUP: &str = "apiserver.config.k8s.io";
/// The most issuers of a file.
const ISSUERS: usize = 64;

/// How requests are authenticated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Front proxies.
    pub front_proxy: FrontProxy,
    /// Whether requests without credentials are let through as `system:anonymous`.
    pub anonymous: bool,
    /// File of tokens and users.
    pub token_file: Option<PathBuf>,
    /// Webhook that knows tokens.
    pub webhook: Option<webhook::Settings>,
    /// One issuer of JSON Web Tokens, by flags.
    pub oidc: Option<OidcFlags>,
    /// `AuthenticationConfiguration` file.
    pub config_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            front_proxy: FrontProxy::default(),
            anonymous: true,
            token_file: None,
            webhook: None,
            oidc: None,
            config_file: None,
        }
    }
}

/// The flags `--oidc-*`.
#[derive(Clone, Debug, Default)]
pub struct OidcFlags {
    /// `--oidc-issuer-url`
    pub issuer_url: String,
    /// `--oidc-client-id`
    pub client_id: String,
    /// `--oidc-ca-file`
    pub ca_file: Option<PathBuf>,
    /// `--oidc-username-claim`
    pub username_claim: String,
    /// `--oidc-username-prefix`
    pub username_prefix: String,
    /// `--oidc-groups-claim`
    pub groups_claim: String,
    /// `--oidc-groups-prefix`
    pub groups_prefix: String,
    /// `--oidc-required-claim`
    pub required_claims: BTreeMap<String, String>,
    /// `--oidc-signing-algs`
    pub signing_algorithms: Vec<String>,
}

impl OidcFlags {
    /// The flags as an entry of the configuration file.
    fn entry(&self) -> Result<Value, String> {
        let ca = match &self.ca_file {
            Some(path) => {
                std::fs::read_to_string(path).map_err(|e| format!("--oidc-ca-file {}: {e}", path.display()))?
            }
            None => String::new(),
        };
        let prefix = match (self.username_prefix.as_str(), self.username_claim.as_str()) {
            ("-", _) | ("", "email") => String::new(),
            ("", _) => format!("{}#", self.issuer_url),
            (prefix, _) => prefix.to_owned(),
        };
        let rules = self.required_claims.iter().map(|(claim, value)| json!({"claim": claim, "requiredValue": value}));
        let mut entry = json!({
            "issuer": {"url": self.issuer_url, "certificateAuthority": ca, "audiences": [self.client_id]},
            "claimMappings": {"username": {"claim": self.username_claim, "prefix": prefix}},
            "claimValidationRules": rules.collect::<Vec<_>>(),
        });
        if !self.groups_claim.is_empty() {
            entry["claimMappings"]["groups"] = json!({"claim": self.groups_claim, "prefix": self.groups_prefix});
        }
        Ok(entry)
    }
}

/// Whom requests without credentials are.
#[derive(Clone, Debug, Default)]
pub struct Anonymous {
    enabled: bool,
    /// The only paths, where there are any.
    paths: Vec<String>,
}

impl Anonymous {
    /// Whether a request of a path may be anonymous.
    pub fn admits(&self, path: &str) -> bool {
        self.enabled && (self.paths.is_empty() || self.paths.iter().any(|p| p == path))
    }
}

/// What may change while the server runs.
#[derive(Default)]
pub struct Configured {
    /// Anonymous requests.
    pub anonymous: Anonymous,
    /// Issuers of JSON Web Tokens.
    pub jwt: Vec<oidc::Authenticator>,
}

impl Settings {
    /// Reads the configuration file, or makes the same of the flags; `own_issuer` is that of service account tokens.
    pub fn configured(&self, own_issuer: &str) -> Result<Configured, String> {
        match (&self.config_file, &self.oidc) {
            (Some(_), Some(_)) => Err("authentication-config file and oidc-* flags are mutually exclusive".into()),
            (Some(path), None) => file(path, self.anonymous, own_issuer).map_err(|why| {
                format!("failed to load authentication configuration from file {:?}: {why}", path.display().to_string())
            }),
            (None, oidc) => {
                let mut configured = Configured::default();
                configured.anonymous.enabled = self.anonymous;
                if let Some(flags) = oidc {
                    let mut causes = Vec::new();
                    let made = oidc::Authenticator::new(&flags.entry()?, "jwt[0]", own_issuer, &mut causes);
                    let Some(mut made) = made else { return Err(listed(&causes)) };
                    if !flags.signing_algorithms.is_empty() {
                        made.algorithms.clone_from(&flags.signing_algorithms);
                    } else {
                        made.algorithms = vec!["RS256".into()];
                    }
                    configured.jwt.push(made);
                }
                Ok(configured)
            }
        }
    }
}

fn file(path: &Path, anonymous: bool, own_issuer: &str) -> Result<Configured, String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    if bytes.is_empty() {
        return Err("empty config data".into());
    }
    parse(&yaml::parse(&bytes)?, anonymous, own_issuer)
}

/// The kind of a configuration, which must be of the group; upstream reads all of these versions.
pub fn check_kind(config: &Value, kind: &str) -> Result<(), String> {
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or("");
    let version = text("apiVersion").strip_prefix(GROUP).and_then(|v| v.strip_prefix('/')).unwrap_or("");
    match (text("kind") == kind, version) {
        (true, "v1" | "v1beta1" | "v1alpha1") => Ok(()),
        _ => Err(format!("no kind {:?} is registered for version {:?}", text("kind"), text("apiVersion"))),
    }
}

/// 400 texts for members that are not known.
pub fn known_fields(of: &Value, path: &str, known: &[&str]) -> Result<(), String> {
    let unknown = of.as_object().into_iter().flat_map(|m| m.keys()).find(|k| !known.contains(&k.as_str()));
    match unknown {
        None => Ok(()),
        Some(key) if path.is_empty() => Err(format!("strict decoding error: unknown field {key:?}")),
        Some(key) => Err(format!("strict decoding error: unknown field \"{path}.{key}\"")),
    }
}

fn parse(config: &Value, anonymous: bool, own_issuer: &str) -> Result<Configured, String> {
    check_kind(config, "AuthenticationConfiguration")?;
    known_fields(config, "", &["apiVersion", "kind", "jwt", "anonymous"])?;
    let mut causes = Vec::new();
    let list = config.get("jwt").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if list.len() > ISSUERS {
        causes.push(Cause::too_many("jwt", list.len(), ISSUERS));
    }
    let mut jwt: Vec<oidc::Authenticator> = Vec::new();
    for (at, entry) in list.iter().enumerate() {
        let path = format!("jwt[{at}]");
        oidc::known_fields(entry, &path)?;
        let Some(made) = oidc::Authenticator::new(entry, &path, own_issuer, &mut causes) else { continue };
        if jwt.iter().any(|other| other.issuer == made.issuer) {
            causes.push(Cause::duplicate(format!("{path}.issuer.url"), &json!(made.issuer)));
        }
        jwt.push(made);
    }
    let anonymous = anonymous_of(config.get("anonymous"), anonymous, &mut causes)?;
    if causes.is_empty() { Ok(Configured { anonymous, jwt }) } else { Err(listed(&causes)) }
}

fn anonymous_of(value: Option<&Value>, flag: bool, causes: &mut Vec<Cause>) -> Result<Anonymous, String> {
    let Some(value) = value.filter(|v| v.is_object()) else {
        return Ok(Anonymous { enabled: flag, paths: Vec::new() });
    };
    known_fields(value, "anonymous", &["enabled", "conditions"])?;
    let conditions = value.get("conditions").and_then(Value::as_array).into_iter().flatten();
    let paths: Vec<_> = conditions.filter_map(|c| c.get("path")?.as_str()).map(str::to_owned).collect();
    let enabled = value.get("enabled").and_then(Value::as_bool).unwrap_or(false);
    if !enabled && !paths.is_empty() {
        let why = "enabled should be set to true when conditions are defined";
        causes.push(Cause::invalid("anonymous.conditions", &json!(paths), why));
    }
    Ok(Anonymous { enabled, paths })
}

/// Causes as one text, a list where there are several.
pub fn listed(causes: &[Cause]) -> String {
    let texts: Vec<_> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
    if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rest: Value) -> Value {
        let mut config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration"});
        for (key, value) in rest.as_object().expect("object") {
            config[key] = value.clone();
        }
        config
    }

    #[test]
    fn files_are_read() {
        let issuer = json!({"issuer": {"url": "https://i", "audiences": ["a"]},
            "claimMappings": {"username": {"claim": "sub", "prefix": ""}}});
        let check = |rest: Value, want: &str| {
            let got = parse(&config(rest), true, "https://own").map(|c| c.jwt.len().to_string());
            assert_eq!(got.unwrap_or_else(|why| why), want);
        };
        check(json!({}), "0");
        check(json!({"jwt": [issuer]}), "1");
        check(json!({"jwt": [issuer, issuer]}), r#"jwt[1].issuer.url: Duplicate value: "https://i""#);
        check(json!({"jwx": []}), r#"strict decoding error: unknown field "jwx""#);
        check(
            json!({"anonymous": {"enabled": false, "conditions": [{"path": "/livez"}]}}),
            r#"anonymous.conditions: Invalid value: ["/livez"]: enabled should be set to true when conditions are defined"#,
        );
        let mut other = issuer.clone();
        other["issuer"]["url"] = "http://i".into();
        check(json!({"jwt": [other]}), r#"jwt[0].issuer.url: Invalid value: "http://i": URL scheme must be https"#);
    }

    #[test]
    fn anonymous_requests_are_limited() {
        let conditions = json!({"anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]}});
        let anonymous = parse(&config(conditions), true, "").expect("config").anonymous;
        assert!(anonymous.admits("/livez") && !anonymous.admits("/api"));
        assert!(parse(&config(json!({})), true, "").expect("config").anonymous.admits("/api"));
        assert!(!parse(&config(json!({})), false, "").expect("config").anonymous.admits("/api"));
    }
}
