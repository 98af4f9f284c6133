//! Service account tokens of pods, got by TokenRequest and renewed at 80 % of their life.

use crate::pod::PodExt;
use api::k8s::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use api::k8s::core::v1::{Pod, ServiceAccount};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const DEFAULT_SECONDS: i64 = 3600;
const LONGEST_USE: Duration = Duration::from_secs(24 * 3600);

type Key = (String, String, String, i64);

#[derive(Clone)]
struct Token {
    text: String,
    renew_at: Instant,
    expires_at: Instant,
    /// Unix seconds.
    until: i64,
}

/// A token and when its file has to be written anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedToken {
    /// The JWT.
    pub text: String,
    /// When to ask again.
    pub renew_at: Instant,
    /// When it expires, Unix seconds.
    pub expires_at: i64,
}

/// Tokens by pod, service account, audience and lifetime.
pub struct TokenManager {
    client: kube::Client,
    tokens: Mutex<HashMap<Key, Token>>,
}

impl TokenManager {
    /// Makes an empty manager.
    pub fn new(client: kube::Client) -> Self {
        Self { client, tokens: Mutex::default() }
    }

    /// A token bound to the pod. One that is due is renewed; while that fails, it is used until it expires.
    pub async fn get(&self, pod: &Pod, audience: &str, seconds: Option<i64>) -> Result<IssuedToken, String> {
        let account =
            pod.spec().service_account_name.clone().filter(|a| !a.is_empty()).unwrap_or_else(|| "default".into());
        let seconds = seconds.unwrap_or(DEFAULT_SECONDS);
        let key = (pod.uid().to_owned(), account.clone(), audience.to_owned(), seconds);
        let known = self.tokens.lock().get(&key).cloned();
        let now = Instant::now();
        if let Some(token) = known.as_ref().filter(|t| t.renew_at > now) {
            return Ok(IssuedToken { text: token.text.clone(), renew_at: token.renew_at, expires_at: token.until });
        }
        match self.request(pod, &account, audience, seconds).await {
            Ok(token) => {
                let issued =
                    IssuedToken { text: token.text.clone(), renew_at: token.renew_at, expires_at: token.until };
                self.tokens.lock().insert(key, token);
                Ok(issued)
            }
            Err(why) => match known.filter(|t| t.expires_at > now) {
                Some(token) => Ok(IssuedToken {
                    text: token.text,
                    renew_at: now + Duration::from_secs(10),
                    expires_at: token.until,
                }),
                None => Err(format!("failed to fetch token: {why}")),
            },
        }
    }

    /// Forgets a pod's tokens.
    pub fn release(&self, pod_uid: &str) {
        self.tokens.lock().retain(|(uid, ..), _| uid != pod_uid);
    }

    async fn request(&self, pod: &Pod, account: &str, audience: &str, seconds: i64) -> Result<Token, String> {
        let audiences = if audience.is_empty() { Vec::new() } else { vec![audience.to_owned()] };
        let bound = BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        };
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(audiences),
                bound_object_ref: Some(bound),
                expiration_seconds: Some(seconds),
            }),
            ..TokenRequest::default()
        };
        let api: kube::Api<ServiceAccount> = kube::Api::namespaced(self.client.clone(), pod.namespace());
        let answer: TokenRequest = api
            .create_subresource("token", account, &kube::api::PostParams::default(), &request)
            .await
            .map_err(|e| crate::context::api_message(&e))?;
        let status = answer.status.ok_or("the API server returned no token")?;
        let (Some(text), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err("the API server returned no token".into());
        };
        let until = expires.0.as_millisecond() - jiff::Timestamp::now().as_millisecond();
        let lifetime = Duration::from_millis(u64::try_from(until).unwrap_or(0));
        let now = Instant::now();
        let until = expires.0.as_second();
        Ok(Token { text, renew_at: now + (lifetime * 4 / 5).min(LONGEST_USE), expires_at: now + lifetime, until })
    }
}
