//! Authentication: who sends a request.
//!
//! Order: identity of the connection in memory → headers of a front proxy → verified client certificate → bearer
//! token (file, bootstrap, service account, JWT issuers, webhook) → anonymous. A credential that is given but
//! wrong is 401, never anonymous.

mod bootstrap_token;
pub mod certificate;
pub mod config;
pub mod config_file;
mod connection;
pub mod front_proxy;
pub mod impersonation;
pub mod kubeconfig;
mod oidc;
pub mod service_account;
mod token_file;
mod webhook;

pub use config::Settings;
pub use connection::{Connection, Peer};
pub use webhook::Settings as WebhookSettings;

use crate::handlers::Request;
use crate::server::ApiServer;
use api::Status;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use config::Configured;
use front_proxy::FrontProxy;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderValue};
use parking_lot::RwLock;
use pki::tls::ClientVerifier;
use std::collections::BTreeMap;
use std::sync::Arc;
use token_file::TokenFile;
use webhook::TokenReviews;

/// Key of the extra that names the node a service account's pod runs on.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// Every authenticated user is in this group.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The anonymous user is in this group.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// Members may do everything.
pub const MASTERS: &str = "system:masters";
/// Key of the extra that names the credential used.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The sender of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// Name.
    pub name: String,
    /// UID, for service accounts.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Anything else that is known.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user with groups; `system:authenticated` is added.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        groups.push(AUTHENTICATED.into());
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// A member of `system:masters`, as the server's own parts that set it up.
    pub fn admin() -> Self {
        Self::new("system:apiserver", &[MASTERS])
    }

    /// The user without credentials.
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node that the pod of this service account's token runs on.
    pub fn pod_node(&self) -> Option<&str> {
        match self.extra.get(NODE_NAME).map(Vec::as_slice) {
            Some([node]) => Some(node),
            _ => None,
        }
    }

    /// The name of the node this user is the kubelet of.
    pub fn node_name(&self) -> Option<&str> {
        if self.is_in("system:nodes") { self.name.strip_prefix("system:node:") } else { None }
    }
}

/// Why a credential is refused.
pub(crate) type Refusal = String;

/// The authenticators of a server.
pub struct Authn {
    /// Verifies client certificates.
    pub(crate) clients: ClientVerifier,
    /// Verifies the certificates of front proxies.
    pub(crate) proxies: ClientVerifier,
    /// What front proxies may say, and how.
    pub(crate) front_proxy: FrontProxy,
    tokens: TokenFile,
    webhook: Option<TokenReviews>,
    configured: RwLock<Arc<Configured>>,
    /// How those who impersonate were last allowed to.
    pub(crate) last_modes: impersonation::LastModes,
}

impl Authn {
    /// The authenticators that a server's settings name.
    pub fn new(config: &crate::Config) -> Result<Self, crate::Error> {
        let settings = &config.authentication;
        let configured = settings.configured(&config.issuer).map_err(crate::Error::Config)?;
        let tokens = settings.token_file.as_deref().map(TokenFile::read).transpose().map_err(crate::Error::Config)?;
        let webhook = settings.webhook.as_ref().map(TokenReviews::new).transpose().map_err(crate::Error::Config)?;
        Ok(Self {
            clients: ClientVerifier::new(&[config.ca.cert_pem()])?,
            proxies: ClientVerifier::new(&[&config.front_proxy_ca_pem])?,
            front_proxy: settings.front_proxy.clone(),
            tokens: tokens.unwrap_or_default(),
            webhook,
            configured: RwLock::new(Arc::new(configured)),
            last_modes: impersonation::LastModes::default(),
        })
    }

    fn configured(&self) -> Arc<Configured> {
        self.configured.read().clone()
    }

    /// Follows the configuration file, if there is one; ends with the server.
    pub fn follow(server: &Arc<ApiServer>) {
        let Some(path) = server.config().authentication.config_file.clone() else { return };
        let weak = Arc::downgrade(server);
        let reload = move || {
            let Some(server) = weak.upgrade() else { return };
            let config = server.config();
            match config.authentication.configured(&config.issuer) {
                Ok(new) => {
                    *server.authn().configured.write() = Arc::new(new);
                    tracing::info!("the authentication configuration was reloaded");
                }
                Err(error) => tracing::warn!(error, "the authentication configuration is of no use; the old one stays"),
            }
        };
        config_file::follow(path, server.stopping().clone(), reload);
    }
}

/// Finds the sender of a request.
pub async fn authenticate(
    server: &ApiServer,
    connection: &Connection,
    request: &Request,
) -> Result<Arc<UserInfo>, Status> {
    let peer = match connection {
        Connection::Memory(user) => return Ok(user.clone()),
        Connection::Tls(peer) => peer,
    };
    let headers = &request.headers;
    if peer.is_front_proxy()
        && let Some(user) = server.authn().front_proxy.user(headers)
    {
        return Ok(Arc::new(user));
    }
    if let Some(user) = peer.user() {
        return Ok(user);
    }
    match bearer(headers) {
        Some(token) => match authenticate_token(server, request, &token, &[]).await {
            Ok((user, _)) => Ok(Arc::new(user)),
            Err(why) => {
                tracing::debug!(why, "a bearer token was refused");
                Err(Status::unauthorized())
            }
        },
        // A certificate that nobody vouches for is no anonymous request.
        None if peer.shown => Err(Status::unauthorized()),
        None if server.authn().configured().anonymous.admits(&request.info.path) => Ok(Arc::new(UserInfo::anonymous())),
        None => Err(Status::unauthorized()),
    }
}

/// What a sender has tried, for the audit log.
pub fn attempted(connection: &Connection, request: &Request) -> String {
    let header = request.headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or("").trim();
    let scheme = header.split_once(' ').map_or("", |(scheme, _)| scheme);
    let shown = matches!(connection, Connection::Tls(peer) if peer.shown);
    let ways = [
        ("basic", scheme.eq_ignore_ascii_case("basic")),
        ("bearer", scheme.eq_ignore_ascii_case("bearer")),
        ("access_token", !request.query.get("access_token").trim().is_empty()),
        ("x509", shown),
    ];
    let tried: Vec<_> = ways.iter().filter(|(_, tried)| *tried).map(|(name, _)| *name).collect();
    match tried.is_empty() {
        true => "Authentication failed, no credentials provided".into(),
        false => format!("Authentication failed, attempted: {}", tried.join(", ")),
    }
}

/// Finds the user of a bearer token and those of `audiences` (empty: the server's own) it is for.
pub async fn authenticate_token(
    server: &ApiServer,
    request: &Request,
    token: &str,
    audiences: &[String],
) -> Result<(UserInfo, Vec<String>), Refusal> {
    let authn = server.authn();
    // Tokens that name no audience are for this server, and for nobody else who asks.
    let own = own_audiences(server, audiences);
    if let Some(user) = authn.tokens.user(token).filter(|_| !own.is_empty()) {
        return Ok((user, own));
    }
    if let Some(user) = bootstrap_token::authenticate(server, token).await.filter(|_| !own.is_empty()) {
        return Ok((user, own));
    }
    let mut refusals = match service_account::authenticate(server, request, token, audiences).await {
        Ok(found) => return Ok(found),
        Err(why) => vec![why],
    };
    match oidc::authenticate(server, &authn.configured().jwt, token).await {
        Some(Ok(user)) => {
            return if own.is_empty() { Err(refused(refusals)) } else { Ok((user, own)) };
        }
        Some(Err(why)) => refusals.push(why),
        None => {}
    }
    if let Some(webhook) = &authn.webhook {
        match webhook.authenticate(server, token, audiences).await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(why) => refusals.push(why),
        }
    }
    Err(refused(refusals))
}

/// Those of the audiences that a credential without any of its own is for: the server's.
fn own_audiences(server: &ApiServer, wanted: &[String]) -> Vec<String> {
    let own = &server.config().api_audiences;
    own.iter().filter(|a| wanted.is_empty() || wanted.contains(a)).cloned().collect()
}

/// All refusals as one text, a list where there are several.
fn refused(mut refusals: Vec<Refusal>) -> Refusal {
    refusals.retain(|why| !why.is_empty());
    refusals.insert(0, "invalid bearer token".into());
    if refusals.len() == 1 { refusals.concat() } else { format!("[{}]", refusals.join(", ")) }
}

/// What a subprotocol that is a token begins with.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Takes the token out of a WebSocket's subprotocols.
pub(crate) fn without_token(headers: &mut HeaderMap) {
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let all: Vec<_> = protocols.flat_map(|v| v.split(',')).map(str::trim).collect();
    let kept: Vec<_> = all.iter().filter(|p| !p.starts_with(TOKEN_PROTOCOL)).copied().collect();
    if kept.len() == all.len() {
        return;
    }
    match HeaderValue::from_str(&kept.join(", ")) {
        Ok(kept) if !kept.is_empty() => drop(headers.insert(SEC_WEBSOCKET_PROTOCOL, kept)),
        _ => drop(headers.remove(SEC_WEBSOCKET_PROTOCOL)),
    }
}

/// The bearer token: of `Authorization`, or of a WebSocket's subprotocols, where browsers can put it.
fn bearer(headers: &HeaderMap) -> Option<String> {
    // A credential that cannot be read is a wrong one, and none that is missing.
    if let Some(value) = headers.get(AUTHORIZATION).map(|v| String::from_utf8_lossy(v.as_bytes())) {
        let (scheme, token) = value.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let encoded = protocols.flat_map(|v| v.split(',')).find_map(|p| p.trim().strip_prefix(TOKEN_PROTOCOL))?;
    let token = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?).ok()?;
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    #[test]
    fn tokens_among_subprotocols_stay_here() {
        let check = |value: &'static str, want: Option<&str>| {
            let mut headers = HeaderMap::from_iter([(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value))]);
            without_token(&mut headers);
            assert_eq!(headers.get(SEC_WEBSOCKET_PROTOCOL).map(|v| v.to_str().expect("text")), want);
        };
        check("a,b", Some("a,b"));
        check("base64url.bearer.authorization.k8s.io.YQ, v4.channel.k8s.io,b", Some("v4.channel.k8s.io, b"));
        check("base64url.bearer.authorization.k8s.io.YQ", None);
    }

    #[test]
    fn bearer_tokens_are_found() {
        let check = |name: HeaderName, value: &str, want: Option<&str>| {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_bytes(value.as_bytes()).expect("value"))]);
            assert_eq!(bearer(&headers).as_deref(), want, "{value}");
        };
        check(AUTHORIZATION, "Bearer a.b", Some("a.b"));
        check(AUTHORIZATION, "bearer  a ", Some("a"));
        check(AUTHORIZATION, "Basic a", None);
        check(AUTHORIZATION, "Bearer ", None);
        check(AUTHORIZATION, "Bearer \u{e9}", Some("\u{e9}"));
        check(SEC_WEBSOCKET_PROTOCOL, "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj", Some("abc"));
        check(SEC_WEBSOCKET_PROTOCOL, "base64url.bearer.authorization.k8s.io.!", None);
    }

    #[test]
    fn refusals_are_one_text() {
        assert_eq!(refused(vec![String::new()]), "invalid bearer token");
        assert_eq!(refused(vec!["a".into(), "b".into()]), "[invalid bearer token, a, b]");
    }
}
