//! Settings of authorization: `--authorization-mode`, and the `AuthorizationConfiguration` file.

use super::webhook::{self, FailurePolicy, SubjectAccessReviews};
use crate::authn::config::{check_kind, known_fields, listed};
use crate::registry::yaml;
use api::Cause;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// One authorizer.
#[derive(Clone)]
pub enum Mode {
    /// Allows everything.
    AlwaysAllow,
    /// Allows nothing.
    AlwaysDeny,
    /// Kubelets.
    Node,
    /// Roles and bindings.
    Rbac,
    /// Another server.
    Webhook(Arc<SubjectAccessReviews>),
}

const TYPES: [&str; 6] = ["ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];

/// How requests are authorized.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--authorization-mode`
    pub modes: Vec<String>,
    /// `--authorization-webhook-config-file`
    pub webhook_kubeconfig: Option<PathBuf>,
    /// `--authorization-webhook-cache-authorized-ttl`
    pub authorized_ttl: Duration,
    /// `--authorization-webhook-cache-unauthorized-ttl`
    pub unauthorized_ttl: Duration,
    /// `--authorization-webhook-version`
    pub webhook_version: String,
    /// `--authorization-config`
    pub config_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            modes: vec!["Node".into(), "RBAC".into()],
            webhook_kubeconfig: None,
            authorized_ttl: Duration::from_secs(300),
            unauthorized_ttl: Duration::from_secs(30),
            webhook_version: "v1beta1".into(),
            config_file: None,
        }
    }
}

impl Settings {
    /// The authorizers in order.
    pub fn modes(&self) -> Result<Vec<Mode>, String> {
        if let Some(path) = &self.config_file {
            return file(path).map_err(|why| {
                format!("failed to load AuthorizationConfiguration from file: {}: {why}", path.display())
            });
        }
        if self.modes.is_empty() {
            return Err("at least one authorization-mode must be passed".into());
        }
        let mut modes = Vec::new();
        for (at, name) in self.modes.iter().enumerate() {
            if self.modes[..at].contains(name) {
                return Err(format!("authorization-mode {:?} has mode specified more than once", self.modes));
            }
            modes.push(self.mode(name)?);
        }
        Ok(modes)
    }

    fn mode(&self, name: &str) -> Result<Mode, String> {
        match name {
            "Webhook" => {
                let missing = "authorization-mode Webhook's authorization config file not passed";
                let kubeconfig = self.webhook_kubeconfig.as_deref().ok_or(missing)?;
                let webhook = SubjectAccessReviews::new(&webhook::Settings {
                    kubeconfig: kubeconfig.to_owned(),
                    timeout: Duration::from_secs(30),
                    authorized_ttl: self.authorized_ttl,
                    unauthorized_ttl: self.unauthorized_ttl,
                    version: self.webhook_version.clone(),
                    failure_policy: FailurePolicy::NoOpinion,
                    conditions: Vec::new(),
                })?;
                Ok(Mode::Webhook(Arc::new(webhook)))
            }
            name => plain(name).ok_or_else(|| format!("authorization-mode {name:?} is not a valid mode")),
        }
    }
}

/// An authorizer that needs no settings. ABAC, which upstream has deprecated, is none of this server's.
fn plain(name: &str) -> Option<Mode> {
    match name {
        "AlwaysAllow" => Some(Mode::AlwaysAllow),
        "AlwaysDeny" => Some(Mode::AlwaysDeny),
        "Node" => Some(Mode::Node),
        "RBAC" => Some(Mode::Rbac),
        _ => None,
    }
}

fn file(path: &Path) -> Result<Vec<Mode>, String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    parse(&yaml::parse(&bytes)?)
}

fn parse(config: &Value) -> Result<Vec<Mode>, String> {
    check_kind(config, "AuthorizationConfiguration")?;
    known_fields(config, "", &["apiVersion", "kind", "authorizers"])?;
    let mut causes = Vec::new();
    let list = config.get("authorizers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if list.is_empty() {
        causes.push(Cause::required("authorizers", "at least one authorization mode must be defined"));
    }
    let mut modes = Vec::new();
    for (at, entry) in list.iter().enumerate() {
        let path = format!("authorizers[{at}]");
        known_fields(entry, &path, &["type", "name", "webhook"])?;
        modes.extend(authorizer(entry, &list[..at], &path, &mut causes)?);
    }
    if causes.is_empty() { Ok(modes) } else { Err(listed(&causes)) }
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of.get(key).and_then(Value::as_str).unwrap_or("")
}

fn authorizer(entry: &Value, before: &[Value], path: &str, causes: &mut Vec<Cause>) -> Result<Option<Mode>, String> {
    let (kind, name) = (text(entry, "type"), text(entry, "name"));
    let at = |field: &str| format!("{path}.{field}");
    if kind.is_empty() {
        causes.push(Cause::required(at("type"), ""));
        return Ok(None);
    }
    if !TYPES.contains(&kind) {
        causes.push(Cause::not_supported(at("type"), &json!(kind), &TYPES));
        return Ok(None);
    }
    if kind != "Webhook" && before.iter().any(|other| text(other, "type") == kind) {
        causes.push(Cause::duplicate(at("type"), &json!(kind)));
    }
    if name.is_empty() {
        causes.push(Cause::required(at("name"), ""));
    } else if before.iter().any(|other| text(other, "name") == name) {
        causes.push(Cause::duplicate(at("name"), &json!(name)));
    }
    let webhook = entry.get("webhook").filter(|w| w.is_object());
    match (kind, webhook) {
        ("Webhook", None) => {
            causes.push(Cause::required(at("webhook"), "required when type=Webhook"));
            Ok(None)
        }
        ("Webhook", Some(webhook)) => {
            let count = causes.len();
            let settings = webhook_settings(webhook, &at("webhook"), causes)?;
            if causes.len() > count {
                return Ok(None);
            }
            SubjectAccessReviews::new(&settings).map(|w| Some(Mode::Webhook(Arc::new(w))))
        }
        (_, Some(_)) => {
            causes.push(Cause::invalid(at("webhook"), &json!("non-null"), "may only be specified when type=Webhook"));
            Ok(None)
        }
        (kind, None) => {
            let mode = plain(kind);
            mode.map(Some).ok_or_else(|| format!("{path}: authorizers of type {kind} are not supported by this server"))
        }
    }
}

fn webhook_settings(of: &Value, path: &str, causes: &mut Vec<Cause>) -> Result<webhook::Settings, String> {
    const FIELDS: [&str; 10] = [
        "authorizedTTL",
        "cacheAuthorizedRequests",
        "unauthorizedTTL",
        "cacheUnauthorizedRequests",
        "timeout",
        "subjectAccessReviewVersion",
        "matchConditionSubjectAccessReviewVersion",
        "failurePolicy",
        "connectionInfo",
        "matchConditions",
    ];
    known_fields(of, path, &FIELDS)?;
    let at = |field: &str| format!("{path}.{field}");
    let timeout = duration(of, "timeout", path, None, causes);
    if timeout > Duration::from_secs(30) {
        causes.push(Cause::invalid(at("timeout"), &json!(text(of, "timeout")), "must be > 0s and <= 30s"));
    }
    let ttl = |field: &str, seconds: u64, cached: &str, causes: &mut Vec<Cause>| {
        let ttl = duration(of, field, path, Some(Duration::from_secs(seconds)), causes);
        if of.get(cached).and_then(Value::as_bool) == Some(false) { Duration::ZERO } else { ttl }
    };
    let authorized_ttl = ttl("authorizedTTL", 300, "cacheAuthorizedRequests", causes);
    let unauthorized_ttl = ttl("unauthorizedTTL", 30, "cacheUnauthorizedRequests", causes);
    let version = one_of(of, "subjectAccessReviewVersion", path, &["v1", "v1beta1"], causes);
    let failure_policy = match one_of(of, "failurePolicy", path, &["NoOpinion", "Deny"], causes).as_str() {
        "Deny" => FailurePolicy::Deny,
        _ => FailurePolicy::NoOpinion,
    };
    let conditions = of.get("matchConditions").and_then(Value::as_array).into_iter().flatten();
    let conditions: Vec<_> = conditions.map(|c| text(c, "expression").to_owned()).collect();
    for (n, expression) in conditions.iter().enumerate() {
        let at = format!("{path}.matchConditions[{n}].expression");
        match () {
            () if expression.is_empty() => causes.push(Cause::required(at, "")),
            () if conditions[..n].contains(expression) => causes.push(Cause::duplicate(at, &json!(expression))),
            () => {}
        }
    }
    if !conditions.is_empty() {
        one_of(of, "matchConditionSubjectAccessReviewVersion", path, &["v1"], causes);
    }
    let kubeconfig = connection(of.get("connectionInfo").unwrap_or(&Value::Null), &at("connectionInfo"), causes);
    Ok(webhook::Settings { kubeconfig, timeout, authorized_ttl, unauthorized_ttl, version, failure_policy, conditions })
}

fn connection(info: &Value, path: &str, causes: &mut Vec<Cause>) -> PathBuf {
    let file = PathBuf::from(text(info, "kubeConfigFile"));
    let at = format!("{path}.kubeConfigFile");
    match text(info, "type") {
        "" => causes.push(Cause::required(format!("{path}.type"), "")),
        "KubeConfigFile" if file.as_os_str().is_empty() => causes.push(Cause::required(at, "")),
        "KubeConfigFile" if !file.is_absolute() => {
            causes.push(Cause::invalid(at, &json!(text(info, "kubeConfigFile")), "must be an absolute path"));
        }
        "KubeConfigFile" => {}
        kind => causes.push(Cause::not_supported(
            format!("{path}.type"),
            &json!(kind),
            &["InClusterConfig", "KubeConfigFile"],
        )),
    }
    file
}

fn one_of(of: &Value, field: &str, path: &str, known: &[&str], causes: &mut Vec<Cause>) -> String {
    let (value, at) = (text(of, field), format!("{path}.{field}"));
    if value.is_empty() {
        causes.push(Cause::required(at, ""));
    } else if !known.contains(&value) {
        causes.push(Cause::not_supported(at, &json!(value), known));
    }
    value.to_owned()
}

fn duration(of: &Value, field: &str, path: &str, default: Option<Duration>, causes: &mut Vec<Cause>) -> Duration {
    let (value, at) = (text(of, field), format!("{path}.{field}"));
    match (value, default) {
        ("", Some(default)) => default,
        ("", None) => {
            causes.push(Cause::required(at, ""));
            Duration::ZERO
        }
        (value, _) => match api::duration::parse(value).filter(|d| !d.is_zero()) {
            Some(duration) => duration,
            None => {
                causes.push(Cause::invalid(at, &json!(value), "must be > 0s"));
                Duration::ZERO
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read() {
        let check = |authorizers: Value, want: &str| {
            let config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration",
                "authorizers": authorizers});
            assert_eq!(parse(&config).map(|m| m.len().to_string()).unwrap_or_else(|why| why), want);
        };
        check(json!([{"type": "Node", "name": "node"}, {"type": "RBAC", "name": "rbac"}]), "2");
        check(json!([]), "authorizers: Required value: at least one authorization mode must be defined");
        check(
            json!([{"type": "X", "name": "x"}]),
            "authorizers[0].type: Unsupported value: \"X\": supported values: \"ABAC\", \"AlwaysAllow\", \"AlwaysDeny\", \"Node\", \"RBAC\", \"Webhook\"",
        );
        check(
            json!([{"type": "RBAC", "name": "a"}, {"type": "RBAC", "name": "a"}]),
            "[authorizers[1].type: Duplicate value: \"RBAC\", authorizers[1].name: Duplicate value: \"a\"]",
        );
        check(
            json!([{"type": "Webhook", "name": "w"}]),
            "authorizers[0].webhook: Required value: required when type=Webhook",
        );
    }

    #[test]
    fn durations_are_read() {
        let check = |text: &str, want: Option<u64>| assert_eq!(api::duration::parse(text).map(|d| d.as_secs()), want, "{text}");
        check("1m30s", Some(90));
        check("2h0m0s", Some(7200));
        check("1500ms", Some(1));
        check("", None);
        check("5", None);
        check("s", None);
    }
}
