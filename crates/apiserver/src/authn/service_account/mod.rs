//! Service account tokens: signature, issuer, time, audience, and that all they are bound to still lives.

mod legacy;

use super::{AUTHENTICATED, CREDENTIAL_ID, Refusal, UserInfo};
use crate::handlers::Request;
use crate::server::ApiServer;
use api::{Object, meta};
use jiff::Timestamp;
use pki::TokenClaims;
use pki::token::Reference;
use serde_json::Value;

const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// Seconds by which clocks may differ.
const LEEWAY: i64 = 60;
const INVALIDATED: &str = "service account token has been invalidated";

/// The user of a token and those of `audiences` (empty: the server's own) it is for.
pub async fn authenticate(
    server: &ApiServer,
    request: &Request,
    token: &str,
    audiences: &[String],
) -> Result<(UserInfo, Vec<String>), Refusal> {
    let none = String::new;
    let payload = server.config().sa_key.verify(token).map_err(|_| none())?;
    if payload.get("iss").and_then(Value::as_str) == Some(LEGACY_ISSUER) {
        // Such a token names no audience: it is for this server alone.
        let own = &server.config().api_audiences;
        let matching: Vec<_> = own.iter().filter(|a| audiences.is_empty() || audiences.contains(a)).cloned().collect();
        if matching.is_empty() {
            return Err(none());
        }
        let user = legacy::user(server, request, &payload, token).await?;
        return Ok((user, matching));
    }
    let claims: TokenClaims = serde_json::from_value(payload).map_err(|_| none())?;
    if claims.iss != server.config().issuer {
        return Err(none());
    }
    let wanted = if audiences.is_empty() { &server.config().api_audiences } else { audiences };
    let matching: Vec<String> = wanted.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
    if matching.is_empty() {
        let why =
            format!("token audiences {} is invalid for the target audiences {}", quoted(&claims.aud), quoted(wanted));
        return Err(why);
    }
    let now = Timestamp::now().as_second();
    check_times(&claims, now)?;
    check_bindings(server, &claims).await?;
    if let Some(after) = claims.kubernetes.warnafter.filter(|after| now > *after) {
        let (user, late) = (&claims.sub, jiff::SignedDuration::from_secs(now - after));
        request.annotate(
            "authentication.k8s.io/stale-token",
            format!("subject: {user}, seconds after warning threshold: {}", late.as_secs()),
        );
    }
    Ok((user(&claims), matching))
}

fn quoted(list: &[String]) -> String {
    let list: Vec<_> = list.iter().map(|a| format!("{a:?}")).collect();
    format!("[{}]", list.join(" "))
}

fn check_times(claims: &TokenClaims, now: i64) -> Result<(), &'static str> {
    match () {
        () if claims.exp <= now => Err("service account token has expired"),
        () if claims.nbf > now + LEEWAY => Err("service account token is not valid yet"),
        () => Ok(()),
    }
}

async fn check_bindings(server: &ApiServer, claims: &TokenClaims) -> Result<(), String> {
    let bound = &claims.kubernetes;
    let namespace = &bound.namespace;
    bound_object(server, "serviceaccounts", namespace, &bound.serviceaccount).await?;
    // A pod's token names the node it runs on for information; only a token bound to the node alone dies with it.
    let node = bound.node.as_ref().filter(|_| bound.pod.is_none());
    let others =
        [("secrets", namespace.as_str(), bound.secret.as_ref()), ("pods", namespace, bound.pod.as_ref()), ("nodes", "", node)];
    for (resource, namespace, reference) in others {
        if let Some(reference) = reference {
            bound_object(server, resource, namespace, reference).await?;
        }
    }
    Ok(())
}

/// What a token is bound to, if it still lives.
async fn bound_object(
    server: &ApiServer,
    resource: &str,
    namespace: &str,
    reference: &Reference,
) -> Result<Object, String> {
    let store = server.store("", resource).ok_or(INVALIDATED)?;
    let stored = store.get(namespace, &reference.name).await.map_err(|e| e.message)?.ok_or(INVALIDATED)?;
    if stored.meta.uid != reference.uid {
        return Err(INVALIDATED.into());
    }
    let object = stored.object().map_err(|e| e.message)?;
    match is_long_deleted(meta::string(&object, "deletionTimestamp"), Timestamp::now()) {
        true => Err(INVALIDATED.into()),
        false => Ok(object),
    }
}

/// Whether the time from which an object is to be gone has passed for longer than clocks may differ: a
/// finalizer must not keep its tokens valid.
fn is_long_deleted(deletion: &str, now: Timestamp) -> bool {
    deletion.parse::<Timestamp>().is_ok_and(|at| at.as_second() + LEEWAY < now.as_second())
}

/// The user that claims speak for.
pub fn user(claims: &TokenClaims) -> UserInfo {
    let bound = &claims.kubernetes;
    let mut user = account_user(&bound.namespace, &bound.serviceaccount.name, &bound.serviceaccount.uid);
    if !claims.jti.is_empty() {
        user.extra.insert(CREDENTIAL_ID.into(), vec![format!("JTI={}", claims.jti)]);
    }
    for (kind, reference) in [("pod", &bound.pod), ("node", &bound.node)] {
        if let Some(reference) = reference {
            user.extra.insert(format!("authentication.kubernetes.io/{kind}-name"), vec![reference.name.clone()]);
            user.extra.insert(format!("authentication.kubernetes.io/{kind}-uid"), vec![reference.uid.clone()]);
        }
    }
    user
}

/// A service account as a user.
pub fn account_user(namespace: &str, name: &str, uid: &str) -> UserInfo {
    let mut user = UserInfo { name: format!("system:serviceaccount:{namespace}:{name}"), ..UserInfo::default() };
    user.uid = uid.into();
    user.groups = groups(namespace);
    user.groups.push(AUTHENTICATED.into());
    user
}

/// The groups of a namespace's service accounts.
pub fn groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_end_with_what_they_are_bound_to() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().expect("time");
        let check = |deletion: &str, want: bool| assert_eq!(is_long_deleted(deletion, now), want, "{deletion}");
        check("", false);
        check("2026-01-01T00:10:30Z", false);
        check("2026-01-01T00:09:30Z", false);
        check("2026-01-01T00:08:59Z", true);
    }
}
