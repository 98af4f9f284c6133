//! The keys of an issuer: found by discovery, kept, and fetched again when a token is signed with one that is new.

use crate::authn::Refusal;
use crate::server::ApiServer;
use crate::webhook::{Address, ClientConfig};
use pki::jwt::{Jwt, KeySet};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

const WELL_KNOWN: &str = "/.well-known/openid-configuration";
const TIMEOUT: Duration = Duration::from_secs(30);
/// Discovery that failed is not tried again sooner.
const DISCOVERY_PAUSE: Duration = Duration::from_secs(10);
/// Tokens with unknown keys make the server fetch keys no more often.
const FETCH_PAUSE: Duration = Duration::from_secs(1);

/// The keys of an issuer.
pub struct Keys {
    issuer: String,
    discovery: String,
    authority: String,
    state: Mutex<State>,
    known: parking_lot::RwLock<Arc<KeySet>>,
}

#[derive(Default)]
struct State {
    /// Where the keys are, once discovery has said it.
    address: Option<String>,
    /// The last attempt to fetch something, and whether it failed.
    tried: Option<(Instant, bool)>,
}

impl Keys {
    /// No keys yet; `discovery` is where the issuer's document is, when that is not at the issuer's URL.
    pub fn new(issuer: &str, discovery: &str, authority: String) -> Self {
        let well_known = format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'));
        let discovery = if discovery.is_empty() { well_known } else { discovery.to_owned() };
        Self { issuer: issuer.into(), discovery, authority, state: Mutex::default(), known: Default::default() }
    }

    /// Whether the issuer signed a token.
    pub async fn verify(&self, server: &ApiServer, jwt: &Jwt<'_>) -> Result<(), Refusal> {
        let known = self.known.read().clone();
        if known.verify(jwt) {
            return Ok(());
        }
        let newer = self.refresh(server, &known).await?;
        match newer.verify(jwt) {
            true => Ok(()),
            false => Err("failed to verify signature: failed to verify id token signature".into()),
        }
    }

    /// Keys that are newer than `known`; requests that wait for the same fetch share it.
    async fn refresh(&self, server: &ApiServer, known: &Arc<KeySet>) -> Result<Arc<KeySet>, Refusal> {
        let mut state = self.state.lock().await;
        let now = self.known.read().clone();
        if !Arc::ptr_eq(&now, known) {
            return Ok(now);
        }
        if let Some((at, failed)) = state.tried {
            let pause = if failed && state.address.is_none() { DISCOVERY_PAUSE } else { FETCH_PAUSE };
            if at.elapsed() < pause {
                return if failed { Err(self.uninitialized()) } else { Ok(now) };
            }
        }
        let fetched = self.fetch(server, &mut state).await;
        state.tried = Some((Instant::now(), fetched.is_err()));
        let keys = Arc::new(fetched.inspect_err(|why| {
            tracing::warn!(why, issuer = self.issuer, "the keys of a token issuer cannot be fetched");
        })?);
        *self.known.write() = keys.clone();
        Ok(keys)
    }

    fn uninitialized(&self) -> Refusal {
        format!("oidc: authenticator for issuer {:?} is not initialized", self.issuer)
    }

    async fn fetch(&self, server: &ApiServer, state: &mut State) -> Result<KeySet, Refusal> {
        let address = match &state.address {
            Some(address) => address.clone(),
            None => {
                let document = self.get(server, &self.discovery).await?;
                let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or("");
                if text("issuer") != self.issuer {
                    let (want, got) = (&self.issuer, text("issuer"));
                    return Err(format!(
                        "oidc: issuer did not match the issuer returned by provider, expected {want:?} got {got:?}"
                    ));
                }
                if text("jwks_uri").is_empty() {
                    return Err("provider did not return JWKS URL".into());
                }
                state.address.insert(text("jwks_uri").to_owned()).clone()
            }
        };
        let set = self.get(server, &address).await.map_err(|why| format!("fetching keys {why}"))?;
        KeySet::parse(&set).map_err(|e| e.to_string())
    }

    async fn get(&self, server: &ApiServer, url: &str) -> Result<Value, Refusal> {
        let config = ClientConfig::new(Address::Url(url.to_owned()), self.authority.clone());
        let body = server.webhooks().get(&Arc::new(config), TIMEOUT).await.map_err(|e| e.to_string())?;
        serde_json::from_slice(&body).map_err(|e| format!("{url}: {e}"))
    }
}
