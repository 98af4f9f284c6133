//! Requests to one host for one repository: authentication, answers turned into errors, retries.

use super::auth::Authorizer;
use super::client::{Answer, Client};
use super::error::{Error, Result};
use super::hosts::Host;
use bytes::Bytes;
use cri::AuthConfig;
use http::header::{AUTHORIZATION, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde::Deserialize;
use std::time::Duration;

const ATTEMPTS: u32 = 4;
const DELAY: Duration = Duration::from_millis(250);
const DELAY_MAX: Duration = Duration::from_secs(30);
/// Registries refuse larger manifests too.
const DOCUMENT_MAX: usize = 4 << 20;
const DETAIL_MAX: usize = 64 << 10;

/// A host of the registry, or a mirror of it.
pub(crate) struct Endpoint {
    pub host: Host,
    client: Client,
    auth: Authorizer,
    repository: String,
}

impl Endpoint {
    pub fn new(host: Host, repository: &str, auth: &AuthConfig) -> Result<Endpoint> {
        let secure = host.base.starts_with("https://");
        Ok(Endpoint {
            client: Client::new(&host)?,
            auth: Authorizer::new(auth.clone(), format!("repository:{repository}:pull"), secure),
            repository: repository.to_owned(),
            host,
        })
    }

    /// Asks for `manifests/latest` or the like and reads the answer whole, again after transient failures.
    pub async fn request(&self, method: Method, what: &str, headers: &HeaderMap, attempts: u32) -> Result<Document> {
        let mut failures = 0;
        loop {
            match self.read(method.clone(), what, headers).await {
                Err(error) if error.is_transient() && failures + 1 < attempts => {
                    pause(failures, &error).await;
                    failures += 1;
                }
                result => return result,
            }
        }
    }

    async fn read(&self, method: Method, what: &str, headers: &HeaderMap) -> Result<Document> {
        let mut answer = self.attempt(method, what, headers).await?;
        let bytes = answer.bytes(DOCUMENT_MAX).await?;
        Ok(Document { headers: answer.response.headers().clone(), bytes })
    }

    /// Asks once.
    pub async fn attempt(&self, method: Method, what: &str, headers: &HeaderMap) -> Result<Answer> {
        let uri = self.uri(what)?;
        let mut renewed = 0;
        loop {
            let used = self.auth.header().await?;
            let mut headers = headers.clone();
            headers.extend(self.host.headers.iter().cloned().map(|(name, value)| (Some(name), value)));
            headers.insert(USER_AGENT, HeaderValue::from_static(concat!("sagong/", env!("CARGO_PKG_VERSION"))));
            headers.extend(used.clone().map(|value| (Some(AUTHORIZATION), value)));
            let answer = self.client.send(method.clone(), uri.clone(), headers, Bytes::new()).await?;
            // A challenge of another host, after a redirect, is not ours to answer.
            let ours = answer.uri.authority() == uri.authority();
            if answer.response.status() == StatusCode::UNAUTHORIZED && ours && renewed < 2 {
                renewed += 1;
                let challenges = answer.response.headers().get_all(WWW_AUTHENTICATE).iter();
                let challenges: Vec<_> =
                    challenges.filter_map(|value| value.to_str().ok()).flat_map(super::challenge::parse).collect();
                if self.auth.renew(&self.client, used.as_ref(), &challenges).await? {
                    continue;
                }
            }
            return accept(answer, || format!("{}/{what}", self.repository)).await;
        }
    }

    fn uri(&self, what: &str) -> Result<Uri> {
        let query = self.host.namespace.as_ref().map(|ns| {
            let ns: String = form_urlencoded::byte_serialize(ns.as_bytes()).collect();
            format!("?ns={ns}")
        });
        let text = format!("{}/{}/{what}{}", self.host.base, self.repository, query.unwrap_or_default());
        text.parse().map_err(|e| Error::protocol(text, e))
    }
}

/// A small answer.
pub(crate) struct Document {
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

/// What hosts answered who did not serve; the answer that got furthest is the one to report.
#[derive(Default)]
pub(crate) struct Failures(Option<Error>);

impl Failures {
    pub fn push(&mut self, endpoint: &Endpoint, error: Error) {
        tracing::debug!(host = endpoint.host.base, %error, "a host did not serve an image");
        if self.0.as_ref().is_none_or(|known| known.rank() < error.rank()) {
            self.0 = Some(error);
        }
    }

    pub fn worst(self, what: &str) -> Error {
        self.0.unwrap_or_else(|| Error::protocol(what, "no host of hosts.toml has the capability to serve it"))
    }
}

/// How often a request to a host is made: mirrors are not waited for when there is another host to ask.
pub(crate) fn attempts(is_last: bool) -> u32 {
    if is_last { ATTEMPTS } else { 1 }
}

/// Waits longer after each failure, or as long as the registry asks.
pub(crate) async fn pause(failures: u32, error: &Error) {
    let asked = match error {
        Error::Status { retry_after: Some(seconds), .. } => Duration::from_secs(*seconds),
        _ => Duration::ZERO,
    };
    let delay = (DELAY * 2u32.saturating_pow(failures)).max(asked).min(DELAY_MAX);
    tracing::debug!(%error, ?delay, "a registry failed; trying again");
    tokio::time::sleep(delay).await;
}

/// Turns every answer that is no success into an error.
pub(crate) async fn accept(answer: Answer, what: impl Fn() -> String) -> Result<Answer> {
    let status = answer.response.status();
    if status.is_success() {
        return Ok(answer);
    }
    if status == StatusCode::NOT_FOUND {
        return Err(Error::NotFound(what()));
    }
    let error = refused(answer).await;
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::Denied(error.to_string())),
        _ => Err(error),
    }
}

async fn refused(mut answer: Answer) -> Error {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Detail>,
    }
    #[derive(Deserialize)]
    struct Detail {
        code: String,
        #[serde(default)]
        message: String,
    }
    let retry_after = answer.response.headers().get(RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
    let body = answer.bytes(DETAIL_MAX).await.unwrap_or_default();
    let first = serde_json::from_slice::<Errors>(&body).ok().and_then(|errors| errors.errors.into_iter().next());
    let detail = first.map(|first| {
        let text: String = first.message.chars().filter(|c| !c.is_control()).take(500).collect();
        format!(": {}: {text}", first.code.to_lowercase())
    });
    Error::Status {
        method: answer.method.clone(),
        url: answer.uri.to_string(),
        status: answer.response.status(),
        detail: detail.unwrap_or_default(),
        retry_after,
    }
}
