//! Answers to a registry's challenges: basic credentials, or a token of its token server.
//!
//! Credentials are sent only after a challenge, except a registry token, which is one already.

use super::challenge::Challenge;
use super::client::Client;
use super::endpoint::accept;
use super::error::{Error, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cri::AuthConfig;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Uri};
use serde::Deserialize;
use tokio::sync::Mutex;

const TOKEN_MAX: usize = 1 << 20;

/// The credentials of one host and what came of them.
pub(crate) struct Authorizer {
    auth: AuthConfig,
    scope: String,
    /// The registry is spoken to by https.
    secure: bool,
    header: Mutex<Option<HeaderValue>>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Authorizer {
    pub fn new(auth: AuthConfig, scope: String, secure: bool) -> Authorizer {
        Authorizer { auth, scope, secure, header: Mutex::new(None) }
    }

    /// `Authorization` of the next request.
    pub async fn header(&self) -> Result<Option<HeaderValue>> {
        let mut header = self.header.lock().await;
        if header.is_none() && !self.auth.registry_token.is_empty() {
            *header = Some(sensitive("Bearer", &self.auth.registry_token)?);
        }
        Ok(header.clone())
    }

    /// Makes a new header after a 401; false if there is nothing better than what was `used`.
    pub async fn renew(&self, client: &Client, used: Option<&HeaderValue>, challenges: &[Challenge]) -> Result<bool> {
        let mut header = self.header.lock().await;
        if header.as_ref() != used {
            return Ok(true);
        }
        if let Some(challenge) = challenges.iter().find(|challenge| challenge.scheme == "bearer") {
            if let (Some(_), Some(error)) =
                (used, challenge.parameter("error").filter(|error| *error != "invalid_token"))
            {
                return Err(Error::Denied(format!("server message: {error}: authorization failed")));
            }
            let fresh = sensitive("Bearer", &self.fetch(client, challenge).await?)?;
            let better = used != Some(&fresh);
            *header = Some(fresh);
            return Ok(better);
        }
        if challenges.iter().any(|challenge| challenge.scheme == "basic") {
            if self.auth.username.is_empty() || self.auth.password.is_empty() {
                return Err(Error::Denied("authorization failed: no basic auth credentials".to_owned()));
            }
            let fresh = self.basic()?;
            let better = used != Some(&fresh);
            *header = Some(fresh);
            return Ok(better);
        }
        Ok(false)
    }

    fn basic(&self) -> Result<HeaderValue> {
        sensitive("Basic", &STANDARD.encode(format!("{}:{}", self.auth.username, self.auth.password)))
    }

    /// Gets a token (distribution's token and oauth2 specifications).
    async fn fetch(&self, client: &Client, challenge: &Challenge) -> Result<String> {
        let realm = challenge.parameter("realm").unwrap_or_default();
        let (method, uri, headers, body) = self.question(realm, challenge)?;
        let anonymous = headers.is_empty();
        let answer = accept(client.send(method, uri, headers, body).await?, || realm.to_owned()).await;
        let mut answer = answer.map_err(|error| match error {
            Error::Denied(text) => {
                let what = if anonymous { "anonymous" } else { "oauth" };
                Error::Denied(format!("failed to authorize: failed to fetch {what} token: {text}"))
            }
            other => other,
        })?;
        let bytes = answer.bytes(TOKEN_MAX).await?;
        let broken = |reason: &str| Error::protocol(realm, format!("failed to authorize: {reason}"));
        let token: Token = serde_json::from_slice(&bytes).map_err(|e| broken(&e.to_string()))?;
        let token = if token.token.is_empty() { token.access_token } else { token.token };
        if token.is_empty() {
            Err(broken("the token server did not include a token in the response"))
        } else {
            Ok(token)
        }
    }

    /// The request to the token server.
    fn question(&self, realm: &str, challenge: &Challenge) -> Result<(Method, Uri, HeaderMap, Bytes)> {
        let uri: Uri = realm.parse().map_err(|e| Error::protocol(realm, format!("is no token server: {e}")))?;
        if self.secure && uri.scheme_str() != Some("https") {
            return Err(Error::protocol(
                realm,
                "is a token server without https for a registry with https, which is refused",
            ));
        }
        let mut fields = form_urlencoded::Serializer::new(String::new());
        if let Some(service) = challenge.parameter("service") {
            fields.append_pair("service", service);
        }
        fields.append_pair("scope", challenge.parameter("scope").unwrap_or(&self.scope));
        let mut headers = HeaderMap::new();
        if self.auth.identity_token.is_empty() {
            if !self.auth.username.is_empty() && !self.auth.password.is_empty() {
                fields.append_pair("account", &self.auth.username);
                headers.insert(AUTHORIZATION, self.basic()?);
            }
            let joint = if realm.contains('?') { '&' } else { '?' };
            let full = format!("{realm}{joint}{}", fields.finish());
            Ok((Method::GET, full.parse().map_err(|e| Error::protocol(&full, e))?, headers, Bytes::new()))
        } else {
            fields.append_pair("grant_type", "refresh_token").append_pair("client_id", "sagong");
            fields.append_pair("refresh_token", &self.auth.identity_token);
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            Ok((Method::POST, uri, headers, fields.finish().into()))
        }
    }
}

fn sensitive(scheme: &str, secret: &str) -> Result<HeaderValue> {
    let value = HeaderValue::try_from(format!("{scheme} {secret}"));
    let mut value =
        value.map_err(|_| Error::Denied("authorization failed: the credentials are no header value".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}
