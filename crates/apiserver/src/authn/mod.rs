//! Authentication: who sends a request.
//!
//! Order: identity of the connection (in memory, or a verified client certificate) → bearer token
//! (service account, bootstrap) → anonymous. A credential that is given but wrong is 401, never anonymous.

mod bootstrap_token;
pub mod certificate;
pub mod impersonation;
pub mod service_account;

use crate::server::ApiServer;
use api::Status;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::collections::BTreeMap;
use std::sync::Arc;

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

    /// The name of the node this user is the kubelet of.
    pub fn node_name(&self) -> Option<&str> {
        if self.is_in("system:nodes") { self.name.strip_prefix("system:node:") } else { None }
    }
}

/// Why a credential is refused.
pub(crate) type Refusal = String;

/// Finds the sender of a request; `connection` is who the connection belongs to, when that is known.
pub async fn authenticate(
    server: &ApiServer,
    connection: Option<Arc<UserInfo>>,
    headers: &HeaderMap,
) -> Result<Arc<UserInfo>, Status> {
    if let Some(user) = connection {
        return Ok(user);
    }
    let Some(token) = bearer(headers) else { return Ok(Arc::new(UserInfo::anonymous())) };
    match authenticate_token(server, token, &[]).await {
        Ok((user, _)) => Ok(Arc::new(user)),
        Err(_) => Err(Status::unauthorized()),
    }
}

/// Finds the user of a bearer token and those of `audiences` (empty: the server's own) it is for.
pub async fn authenticate_token(
    server: &ApiServer,
    token: &str,
    audiences: &[String],
) -> Result<(UserInfo, Vec<String>), Refusal> {
    if let Some(user) = bootstrap_token::authenticate(server, token).await {
        return Ok((user, audiences.to_vec()));
    }
    service_account::authenticate(server, token, audiences).await
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
