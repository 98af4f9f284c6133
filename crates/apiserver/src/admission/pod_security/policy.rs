//! What a namespace's `pod-security.kubernetes.io/*` labels ask for.

use api::{Cause, Object, meta};
use std::fmt;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much is allowed, the least strict first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    Privileged,
    /// What does not lead to known privilege escalations.
    Baseline,
    /// What follows the practices of hardening.
    Restricted,
}

/// A level as one minor version of Kubernetes defined it (`None`: the latest).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard {
    /// Level.
    pub level: Level,
    /// Minor version.
    pub version: Option<u32>,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

/// The policy of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What pods must keep to.
    pub enforce: Standard,
    /// What violations are warned of.
    pub warn: Standard,
}

impl Policy {
    /// The policy of a namespace's labels, and what is wrong with them. Labels that cannot be read enforce the
    /// strictest level and warn of nothing.
    pub fn of(namespace: &Object) -> (Self, Vec<Cause>) {
        let mut errors = Vec::new();
        let (enforce, explicit) = standard(namespace, "enforce", Level::Restricted, &mut errors);
        // Read for its errors only: nothing is audited.
        standard(namespace, "audit", Level::Privileged, &mut errors);
        let (mut warn, _) = standard(namespace, "warn", Level::Privileged, &mut errors);
        let silent = meta::label(namespace, &format!("{PREFIX}warn")).is_none();
        if silent && explicit && enforce.level > warn.level {
            warn.level = enforce.level;
            if meta::label(namespace, &format!("{PREFIX}warn-version")).is_none() {
                warn.version = enforce.version;
            }
        }
        (Self { enforce, warn }, errors)
    }
}

/// One mode's labels, and whether they name a level.
fn standard(namespace: &Object, mode: &str, otherwise: Level, errors: &mut Vec<Cause>) -> (Standard, bool) {
    let (mut found, mut named) = (Standard { level: Level::Privileged, version: None }, false);
    let mut invalid = |label: &str, value: &str, why: &str| {
        errors.push(Cause::invalid(format!("metadata.labels[{label}]"), &value.into(), why));
    };
    let label = format!("{PREFIX}{mode}");
    if let Some(text) = meta::label(namespace, &label) {
        match level(text) {
            Some(level) => (found.level, named) = (level, true),
            None => {
                found.level = otherwise;
                invalid(&label, text, "must be one of privileged, baseline, restricted");
            }
        }
    }
    let label = format!("{PREFIX}{mode}-version");
    if let Some(text) = meta::label(namespace, &label) {
        match version(text) {
            Some(version) => found.version = version,
            None => invalid(&label, text, "must be \"latest\" or \"v1.x\""),
        }
    }
    (found, named)
}

fn level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

/// `latest` or `v1.x`, without leading zeros.
fn version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
    if plain { minor.parse().ok().map(Some) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(labels: Value, enforce: &str, warn: &str, wrong: &[&str]) {
        let namespace = json!({"metadata": {"labels": labels.clone()}});
        let (policy, errors) = Policy::of(&namespace);
        assert_eq!((policy.enforce.to_string(), policy.warn.to_string()), (enforce.into(), warn.into()), "{labels}");
        let texts: Vec<_> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
        assert_eq!(texts, wrong, "{labels}");
    }

    #[test]
    fn labels_make_a_policy() {
        check(json!({}), "privileged:latest", "privileged:latest", &[]);
        check(json!({"pod-security.kubernetes.io/enforce": "baseline"}), "baseline:latest", "baseline:latest", &[]);
        check(
            json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.24",
                "pod-security.kubernetes.io/warn": "restricted"}),
            "baseline:v1.24",
            "restricted:latest",
            &[],
        );
        check(
            json!({"pod-security.kubernetes.io/enforce": "nope"}),
            "restricted:latest",
            "privileged:latest",
            &[
                "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"nope\": must be one of privileged, baseline, restricted",
            ],
        );
        check(
            json!({"pod-security.kubernetes.io/warn-version": "v1.01"}),
            "privileged:latest",
            "privileged:latest",
            &[
                "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"v1.01\": must be \"latest\" or \"v1.x\"",
            ],
        );
    }
}
