//! Tokens that a webhook knows: `TokenReview`s sent to it, whose answers are kept for a while.

use super::{AUTHENTICATED, Refusal, UserInfo, kubeconfig};
use crate::cache::TimedCache;
use crate::server::ApiServer;
use crate::webhook::{Call, ClientConfig, Error};
use rand::RngExt;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(30);
/// Answers kept.
const ANSWERS: usize = 4096;

/// Where the webhook is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Kubeconfig file.
    pub kubeconfig: PathBuf,
    /// How long answers are kept.
    pub cache_ttl: Duration,
    /// Version of `authentication.k8s.io` that it speaks.
    pub version: String,
}

type Answer = Result<Option<(UserInfo, Vec<String>)>, Refusal>;

/// The webhook.
pub struct TokenReviews {
    client: Arc<ClientConfig>,
    version: String,
    answers: TimedCache<Answer>,
    ttl: Duration,
}

impl TokenReviews {
    /// A webhook; fails when its kubeconfig is of no use.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        if !["v1", "v1beta1"].contains(&settings.version.as_str()) {
            return Err(format!("--authentication-token-webhook-version {:?}: choose v1 or v1beta1", settings.version));
        }
        Ok(Self {
            client: Arc::new(kubeconfig::read(&settings.kubeconfig)?),
            version: settings.version.clone(),
            answers: TimedCache::new(ANSWERS),
            ttl: settings.cache_ttl,
        })
    }

    /// The user of a token and the audiences it is for; `None` when the webhook does not know it.
    pub async fn authenticate(&self, server: &ApiServer, token: &str, audiences: &[String]) -> Answer {
        let own = &server.config().api_audiences;
        let wanted = if audiences.is_empty() { own } else { audiences };
        let key = pki::sha256_hex(json!([token, wanted]).to_string().as_bytes());
        if let Some(answer) = self.answers.get(&key) {
            return answer;
        }
        let review = json!({"kind": "TokenReview", "apiVersion": format!("authentication.k8s.io/{}", self.version),
            "metadata": {}, "spec": {"token": token, "audiences": wanted}, "status": {"user": {}}});
        // A webhook that cannot be reached has said nothing worth keeping.
        let status = post(server, &self.client, &review).await.map_err(|e| e.to_string())?;
        let answer = read(&status, wanted, own);
        self.answers.put(key, answer.clone(), self.ttl);
        answer
    }
}

fn read(status: &Value, wanted: &[String], own: &[String]) -> Answer {
    let text = |pointer: &str| status.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
    if status.get("authenticated").and_then(Value::as_bool) != Some(true) {
        let why = text("/error");
        return if why.is_empty() { Ok(None) } else { Err(why) };
    }
    let list = |value: Option<&Value>| -> Vec<String> {
        let list = value.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut given = list(status.get("audiences"));
    if given.is_empty() {
        // It knows no audiences: its tokens are for this server.
        given = own.to_vec();
    }
    given.retain(|a| wanted.contains(a));
    if given.is_empty() {
        return Ok(None);
    }
    let extra = status.pointer("/user/extra").and_then(Value::as_object).into_iter().flatten();
    let mut user = UserInfo {
        name: text("/user/username"),
        uid: text("/user/uid"),
        groups: list(status.pointer("/user/groups")),
        extra: extra.map(|(k, v)| (k.clone(), list(Some(v)))).collect(),
    };
    if !user.is_in(AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.into());
    }
    Ok(Some((user, given)))
}

/// Sends a review and gives the `status` of the answer; tries again where the webhook cannot be reached or is ill.
pub async fn post(server: &ApiServer, client: &Arc<ClientConfig>, review: &Value) -> Result<Value, Error> {
    let body: bytes::Bytes = review.to_string().into();
    let mut pause = FIRST_PAUSE;
    for attempt in 1.. {
        let call = Call { body: body.clone(), timeout: TIMEOUT, announce: false, user_agent: "kube-apiserver" };
        let error = match server.webhooks().post(client, call).await {
            Ok(answer) => {
                let answer: Value = serde_json::from_slice(&answer).map_err(|e| Error::Config(e.to_string()))?;
                return Ok(answer.get("status").cloned().unwrap_or_default());
            }
            Err(error) => error,
        };
        let temporary = error.code().is_none_or(|code| code == 429 || code >= 500);
        if attempt == ATTEMPTS || !temporary || matches!(error, Error::Config(_)) {
            return Err(error);
        }
        let jitter = rand::rng().random_range(1.0..1.2);
        tokio::time::sleep(pause.mul_f64(jitter)).await;
        pause = pause.mul_f64(1.5);
    }
    Err(Error::Config("no attempt was made".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let own = ["a".to_owned()];
        let check = |status: Value, want: Result<Option<&str>, &str>| {
            let got = read(&status, &own, &own).map(|found| found.map(|(user, _)| user.name));
            assert_eq!(got, want.map(|n| n.map(str::to_owned)).map_err(str::to_owned), "{status}");
        };
        check(json!({"authenticated": true, "user": {"username": "u"}}), Ok(Some("u")));
        check(json!({"authenticated": true, "user": {"username": "u"}, "audiences": ["b"]}), Ok(None));
        check(json!({"authenticated": false}), Ok(None));
        check(json!({"error": "no"}), Err("no"));
        check(json!(null), Ok(None));
    }
}
