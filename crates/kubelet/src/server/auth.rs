//! Who calls, and whether they may: client certificates or tokens (TokenReview), then SubjectAccessReview.

use crate::config::Config;
use api::k8s::authentication::v1::{TokenReview, TokenReviewSpec};
use api::k8s::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use http::{HeaderMap, Method, header};
use kube::api::PostParams;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long answers of the API server hold, as upstream's defaults are (shorter where access was refused).
const TOKEN_TTL: Duration = Duration::from_secs(120);
const ALLOWED_TTL: Duration = Duration::from_secs(300);
const DENIED_TTL: Duration = Duration::from_secs(30);
const MAX_ENTRIES: usize = 1024;

/// A caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Extra fields.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Authenticator and authorizer.
pub struct Auth {
    node: String,
    client: kube::Client,
    tokens: Cache<[u8; 32], Option<User>>,
    decisions: Cache<(User, String, String), Option<String>>,
}

struct Cache<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.0.lock().get(key).filter(|(_, until)| *until > Instant::now()).map(|(value, _)| value.clone())
    }

    fn put(&self, key: K, value: V, ttl: Duration) {
        let mut entries = self.0.lock();
        if entries.len() >= MAX_ENTRIES {
            let now = Instant::now();
            entries.retain(|_, (_, until)| *until > now);
            if entries.len() >= MAX_ENTRIES {
                entries.clear();
            }
        }
        entries.insert(key, (value, Instant::now() + ttl));
    }
}

/// The user a verified client certificate names: CN and Os.
pub fn certificate_user(certificate: &CertificateDer<'_>) -> Option<User> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned)).collect();
    Some(User { name, groups, ..User::default() })
}

impl Auth {
    /// Asks with the kubelet's own identity.
    pub fn new(config: &Config) -> Self {
        let (tokens, decisions) = (Cache(Mutex::default()), Cache(Mutex::default()));
        Self { node: config.node_name.clone(), client: config.client.clone(), tokens, decisions }
    }

    /// The caller: of the certificate, else of the bearer token. There are no anonymous callers.
    pub async fn authenticate(&self, certificate: Option<User>, headers: &HeaderMap) -> Option<User> {
        let mut user = match certificate {
            Some(user) => user,
            None => {
                let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
                let (scheme, token) = value.split_once(' ')?;
                self.token(token.trim()).await.filter(|_| scheme.eq_ignore_ascii_case("bearer"))?
            }
        };
        let everyone = "system:authenticated".to_owned();
        if !user.groups.contains(&everyone) {
            user.groups.push(everyone);
        }
        Some(user)
    }

    async fn token(&self, token: &str) -> Option<User> {
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.tokens.get(&key) {
            return known;
        }
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api: kube::Api<TokenReview> = kube::Api::all(self.client.clone());
        let answer = match api.create(&PostParams::default(), &review).await {
            Ok(answer) => answer.status.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(error = crate::context::api_message(&error), "cannot review a token");
                return None;
            }
        };
        let user = answer.user.filter(|_| answer.authenticated == Some(true)).map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        });
        self.tokens.put(key, user.clone(), if user.is_some() { TOKEN_TTL } else { DENIED_TTL });
        user
    }

    /// Whether the caller may; the error is the answer's text.
    pub async fn authorize(&self, user: &User, method: &Method, path: &str) -> Result<(), String> {
        let verb = verb(method);
        let mut reason = String::new();
        for subresource in subresources(path) {
            match self.decide(user, verb, subresource).await {
                None => return Ok(()),
                Some(why) => reason = why,
            }
        }
        let (name, list) = (&user.name, crate::format::list(subresources(path)));
        tracing::debug!(user = name, reason, "refused");
        Err(format!("Forbidden (user={name}, verb={verb}, resource=nodes, subresource(s)={list})\n"))
    }

    /// `None`: allowed; else why not.
    async fn decide(&self, user: &User, verb: &str, subresource: &str) -> Option<String> {
        let key = (user.clone(), verb.to_owned(), subresource.to_owned());
        if let Some(known) = self.decisions.get(&key) {
            return known;
        }
        let attributes = ResourceAttributes {
            name: Some(self.node.clone()),
            resource: Some("nodes".into()),
            subresource: Some(subresource.into()),
            verb: Some(verb.into()),
            version: Some("v1".into()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
            groups: Some(user.groups.clone()),
            resource_attributes: Some(attributes),
            uid: Some(user.uid.clone()).filter(|u| !u.is_empty()),
            user: Some(user.name.clone()),
            ..SubjectAccessReviewSpec::default()
        };
        let api: kube::Api<SubjectAccessReview> = kube::Api::all(self.client.clone());
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let answer = match api.create(&PostParams::default(), &review).await {
            Ok(answer) => answer.status.unwrap_or_default(),
            Err(error) => return Some(crate::context::api_message(&error)),
        };
        let decision = if answer.allowed { None } else { Some(answer.reason.unwrap_or_else(|| "not allowed".into())) };
        self.decisions.put(key, decision.clone(), if decision.is_none() { ALLOWED_TTL } else { DENIED_TTL });
        decision
    }
}

fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "get",
    }
}

/// The subresources of the node of which one must be allowed.
fn subresources(path: &str) -> &'static [&'static str] {
    match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        _ => &["proxy"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_subresources_of_the_node() {
        for (path, want) in [
            ("/exec/a/b/c", ["proxy"].as_slice()),
            ("/pods", &["pods", "proxy"]),
            ("/metrics/resource", &["metrics"]),
            ("/", &["proxy"]),
        ] {
            assert_eq!(subresources(path), want, "{path}");
        }
    }

    #[test]
    fn answers_expire_and_the_cache_is_bounded() {
        let cache: Cache<usize, bool> = Cache(Mutex::default());
        cache.put(0, true, Duration::ZERO);
        assert_eq!(cache.get(&0), None);
        (0..3000).for_each(|i| cache.put(i, true, Duration::from_secs(60)));
        assert!(cache.0.lock().len() <= MAX_ENTRIES);
    }
}
