//! Encryption at rest: what the store keeps of some resources is sealed.
//!
//! [`Encryption`] knows which providers a resource has: the first seals what is written, every one opens what is
//! read. Without a configuration file, secrets are sealed with a [`key_file`] of the server's own. With a file
//! ([`config`], upstream's `EncryptionConfiguration`), its rules hold, and the own key opens what it has sealed.
//! Objects that another than the first provider has sealed are written anew when the server starts ([`rewrite`]).
//!
//! Sealed values begin with `k8s:enc:<provider>:v1:<key>:`, as upstream's. Absent: `kms` plug-ins.

pub mod config;
pub mod key_file;
mod legacy;
mod provider;
mod rewrite;

pub use provider::Provider;
pub use rewrite::{check, rewrite};

use crate::metrics::Family;
use bytes::Bytes;
use std::sync::Arc;

/// What sealed values begin with.
const MARK: &[u8] = b"k8s:enc:";

static OPERATIONS: Family = Family::counter(
    "apiserver_storage_transformation_operations_total",
    "Total number of transformations. Successful transformation will have a status 'OK' and a varied status string when \
     the transformation fails. The status, resource, and transformation_type fields can be used for alerting purposes.",
    &["resource", "status", "transformation_type", "transformer_prefix"],
);

/// Metrics of it.
pub const METRICS: &[&Family] = &[&OPERATIONS];

/// Why a value cannot be read or a configuration not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No provider knows the value's mark.
    #[error("no matching prefix found")]
    NoMatch,
    /// The key that sealed the value is not there.
    #[error("no matching key was found for the provided {0} transformer")]
    NoKey(&'static str),
    /// The value was changed or moved since it was sealed.
    #[error("the value does not belong here or is damaged")]
    Damaged,
    /// Something is wrong with the configuration; cause and fix.
    #[error("{0}")]
    Config(String),
}

/// Which providers each resource has.
#[derive(Clone, Debug, Default)]
pub struct Encryption {
    rules: Vec<Rule>,
    /// Opens what was sealed before there was a rule for a resource.
    fallback: Vec<Provider>,
}

/// The providers of some resources.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `secrets`, `deployments.apps`, `*.apps`, `*.` (the core group), `*.*`.
    pub resources: Vec<String>,
    /// Providers; the first seals.
    pub providers: Vec<Provider>,
}

impl Encryption {
    /// Encryption by rules, the first that names a resource; `own` opens what the server's own key has sealed, and goes
    /// on to seal secrets where no rule names them.
    pub fn new(mut rules: Vec<Rule>, own: Provider) -> Self {
        rules.push(Rule { resources: vec!["secrets".into()], providers: vec![own.clone(), Provider::Identity] });
        Self { rules, fallback: vec![own, Provider::Identity] }
    }

    /// Secrets sealed by the server's own key.
    pub fn own(own: Provider) -> Self {
        Self::new(Vec::new(), own)
    }

    /// The providers of a resource; `None` where nothing is sealed.
    pub fn cipher(&self, group: &str, resource: &str) -> Option<Arc<Cipher>> {
        let rule = self.rules.iter().find(|rule| rule.resources.iter().any(|r| names(r, group, resource)))?;
        let mut providers = rule.providers.clone();
        providers.extend(self.fallback.iter().filter(|own| !matches!(own, Provider::Identity)).cloned());
        Some(Arc::new(Cipher { resource: group_resource(group, resource), providers }))
    }
}

fn group_resource(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

/// Whether a rule's entry names a resource.
fn names(entry: &str, group: &str, resource: &str) -> bool {
    match entry.split_once('.') {
        None => group.is_empty() && entry == resource,
        Some(("*", "*")) => true,
        Some((wanted, of)) => of == group && (wanted == "*" || wanted == resource),
    }
}

/// The providers of one resource.
#[derive(Clone, Debug)]
pub struct Cipher {
    resource: String,
    providers: Vec<Provider>,
}

impl Cipher {
    /// Seals a value for a key of the store.
    pub fn seal(&self, key: &str, plain: &[u8]) -> Result<Bytes, Error> {
        let provider = self.providers.first().ok_or(Error::NoMatch)?;
        let sealed = provider.seal(key, plain);
        self.count("to_storage", provider.prefix(), sealed.as_ref().err());
        sealed.map(Bytes::from)
    }

    /// Opens a value that was sealed for a key of the store.
    pub fn open(&self, key: &str, sealed: &Bytes) -> Result<Bytes, Error> {
        let mut failure = Error::NoMatch;
        for provider in self.providers.iter().filter(|p| p.is_marked(sealed)) {
            match provider.open(key, sealed) {
                Ok(plain) => {
                    self.count("from_storage", provider.prefix(), None);
                    return Ok(plain);
                }
                Err(error) => failure = error,
            }
        }
        self.count("from_storage", "unknown", Some(&failure));
        Err(failure)
    }

    /// Whether the first provider, with its first key, has sealed a value.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        self.providers.first().is_some_and(|provider| provider.is_current(sealed))
    }

    fn count(&self, kind: &str, prefix: &str, error: Option<&Error>) {
        let status = if error.is_some() { "Unknown" } else { "OK" };
        OPERATIONS.inc(&[&self.resource, status, kind, prefix]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use provider::Key;

    fn key(name: &str, byte: u8) -> Key {
        Key::new(name, vec![byte; 32])
    }

    #[test]
    fn the_first_seals_and_all_open() {
        let old = Encryption::own(Provider::Local(vec![key("1", 1)])).cipher("", "secrets").expect("cipher");
        let new =
            Encryption::own(Provider::Local(vec![key("2", 2), key("1", 1)])).cipher("", "secrets").expect("cipher");
        let other = Encryption::own(Provider::Local(vec![key("3", 3)])).cipher("", "secrets").expect("cipher");
        let (place, plain) = ("/registry/secrets/a/b", b"{\"data\":{}}");
        let sealed = old.seal(place, plain).expect("sealed");
        assert!(!sealed.windows(4).any(|w| w == b"data") && sealed.starts_with(b"k8s:enc:local:v1:1:"));
        assert_eq!(new.open(place, &sealed).as_deref(), Ok(&plain[..]));
        assert!(old.is_current(&sealed) && !new.is_current(&sealed));
        assert_eq!(other.open(place, &sealed), Err(Error::NoKey("local")));
        assert_eq!(old.open("/registry/secrets/a/c", &sealed), Err(Error::Damaged), "it cannot be moved");
        let mut bad = sealed.to_vec();
        *bad.last_mut().expect("byte") ^= 1;
        assert_eq!(old.open(place, &bad.into()), Err(Error::Damaged));
        assert_eq!(old.open(place, &Bytes::from_static(plain)).as_deref(), Ok(&plain[..]), "what was never sealed");
    }

    #[test]
    fn secrets_stay_sealed_where_a_file_does_not_name_them() {
        let own = Provider::Local(vec![key("1", 1)]);
        let sealed = Encryption::own(own.clone()).cipher("", "secrets").expect("cipher");
        let sealed = sealed.seal("/a", b"{}").expect("sealed");
        let rule = |resource: &str, provider| Rule { resources: vec![resource.into()], providers: vec![provider] };
        let file = Encryption::new(vec![rule("configmaps", Provider::Secretbox(vec![key("b", 2)]))], own.clone());
        let cipher = file.cipher("", "secrets").expect("cipher");
        assert!(cipher.open("/a", &sealed).is_ok() && cipher.is_current(&sealed));
        assert!(file.cipher("", "pods").is_none());
        let plain = Encryption::new(vec![rule("secrets", Provider::Identity)], own).cipher("", "secrets");
        assert!(plain.is_some_and(|cipher| cipher.open("/a", &sealed).is_ok() && !cipher.is_current(&sealed)));
    }

    #[test]
    fn rules_name_resources() {
        for (entry, group, resource, want) in [
            ("secrets", "", "secrets", true),
            ("secrets", "x", "secrets", false),
            ("deployments.apps", "apps", "deployments", true),
            ("*.apps", "apps", "deployments", true),
            ("*.", "", "pods", true),
            ("*.", "apps", "pods", false),
            ("*.*", "a.b", "c", true),
            ("things.a.b", "a.b", "things", true),
        ] {
            assert_eq!(names(entry, group, resource), want, "{entry}");
        }
    }
}
