//! JSON Web Tokens of other issuers (OpenID Connect): verified with the issuer's keys, their claims mapped to a user.
//!
//! [`keys`] finds and keeps the keys, [`mapping`] makes a user of claims, [`expression`] is what CEL has a part in.
//!
//! Deliberately absent: distributed claims, egress selectors.

mod expression;
mod keys;
mod mapping;

use super::{Refusal, UserInfo};
use crate::server::ApiServer;
use api::Cause;
use jiff::Timestamp;
use keys::Keys;
use mapping::Mapping;
use pki::jwt::Jwt;
use serde_json::{Value, json};
use std::sync::Arc;

/// The algorithms a configured issuer may sign with.
const ALGORITHMS: [&str; 8] = ["RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512"];
/// Seconds by which the start of a token's time may lie ahead, as clocks differ.
const LEEWAY: i64 = 300;

/// One issuer.
pub struct Authenticator {
    /// Its URL, the `iss` of its tokens.
    pub issuer: String,
    /// What it may sign with.
    pub algorithms: Vec<String>,
    audiences: Vec<String>,
    keys: Arc<Keys>,
    mapping: Mapping,
}

/// Refuses members that are not known.
pub fn known_fields(entry: &Value, path: &str) -> Result<(), String> {
    const TABLE: &[(&str, &[&str])] = &[
        ("", &["issuer", "claimValidationRules", "claimMappings", "userValidationRules"]),
        (
            "issuer",
            &["url", "discoveryURL", "certificateAuthority", "audiences", "audienceMatchPolicy", "egressSelectorType"],
        ),
        ("claimMappings", &["username", "groups", "uid", "extra"]),
    ];
    for (member, known) in TABLE {
        let (of, path) = match *member {
            "" => (entry, path.to_owned()),
            member => (&entry[member], format!("{path}.{member}")),
        };
        super::config::known_fields(of, &path, known)?;
    }
    Ok(())
}

impl Authenticator {
    /// Reads an entry of the configuration; `None` with at least one cause when it is of no use.
    pub fn new(entry: &Value, path: &str, own_issuer: &str, causes: &mut Vec<Cause>) -> Option<Self> {
        let before = causes.len();
        let issuer = &entry["issuer"];
        let text = |key: &str| issuer.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let (url, discovery) = (text("url"), text("discoveryURL"));
        check_url(&url, &format!("{path}.issuer.url"), causes);
        if url == own_issuer && !url.is_empty() {
            let why = format!("URL must not overlap with disallowed issuers: [{own_issuer}]");
            causes.push(Cause::invalid(format!("{path}.issuer.url"), &json!(url), &why));
        }
        if !discovery.is_empty() {
            let at = format!("{path}.issuer.discoveryURL");
            if discovery.trim_end_matches('/') == url.trim_end_matches('/') {
                causes.push(Cause::invalid(&at, &json!(discovery), "discoveryURL must be different from URL"));
            }
            check_url(&discovery, &at, causes);
        }
        let audiences = audiences(issuer, path, causes);
        if !text("egressSelectorType").is_empty() {
            let why = "egress selectors are not supported";
            causes.push(Cause::forbidden(format!("{path}.issuer.egressSelectorType"), why));
        }
        let mapping = Mapping::new(entry, path, causes);
        let authority = text("certificateAuthority");
        (causes.len() == before).then(|| Self {
            keys: Arc::new(Keys::new(&url, &discovery, authority)),
            issuer: url,
            algorithms: ALGORITHMS.map(str::to_owned).into(),
            audiences,
            mapping,
        })
    }

    async fn authenticate(&self, server: &ApiServer, jwt: &Jwt<'_>) -> Result<UserInfo, Refusal> {
        self.verify(server, jwt).await.map_err(|why| format!("oidc: verify token: {why}"))?;
        self.mapping.user(&jwt.claims)
    }

    async fn verify(&self, server: &ApiServer, jwt: &Jwt<'_>) -> Result<(), Refusal> {
        let given: Vec<&str> = match jwt.claims.get("aud") {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !self.audiences.iter().any(|a| given.contains(&a.as_str())) {
            return Err(format!("oidc: expected audience in {:?} got {given:?}", self.audiences));
        }
        check_times(&jwt.claims, Timestamp::now().as_second())?;
        if !self.algorithms.contains(&jwt.algorithm) {
            let (given, want) = (&jwt.algorithm, &self.algorithms);
            return Err(format!("oidc: id token signed with unsupported algorithm, expected {want:?} got {given:?}"));
        }
        self.keys.verify(server, jwt).await
    }
}

fn check_times(claims: &Value, now: i64) -> Result<(), Refusal> {
    // NumericDate (RFC 7519) may have a fraction.
    let time = |claim: &str| claims.get(claim).and_then(Value::as_f64);
    let Some(expiry) = time("exp") else { return Err("oidc: token has no expiry".into()) };
    if expiry < now as f64 {
        return Err("oidc: token is expired".into());
    }
    match time("nbf") {
        Some(start) if start > (now + LEEWAY) as f64 => {
            Err("oidc: current time before the nbf (not before) time".into())
        }
        _ => Ok(()),
    }
}

fn check_url(url: &str, path: &str, causes: &mut Vec<Cause>) {
    let mut invalid = |why: &str| causes.push(Cause::invalid(path, &json!(url), why));
    match url.parse::<http::Uri>() {
        _ if url.is_empty() => causes.push(Cause::required(path, "")),
        Err(_) => invalid("URL cannot be parsed"),
        Ok(uri) => {
            let authority = uri.authority().map_or("", http::uri::Authority::as_str);
            if uri.scheme_str() != Some("https") {
                invalid("URL scheme must be https");
            }
            if authority.contains('@') {
                invalid("URL must not contain a username or password");
            }
            if uri.query().is_some() {
                invalid("URL must not contain a query");
            }
            if url.contains('#') {
                invalid("URL must not contain a fragment");
            }
        }
    }
}

fn audiences(issuer: &Value, path: &str, causes: &mut Vec<Cause>) -> Vec<String> {
    let at = format!("{path}.issuer.audiences");
    let list = issuer.get("audiences").and_then(Value::as_array).into_iter().flatten();
    let list: Vec<String> = list.filter_map(Value::as_str).map(str::to_owned).collect();
    if list.is_empty() {
        causes.push(Cause::required(&at, &format!("at least one {at} is required")));
    }
    for (n, audience) in list.iter().enumerate() {
        let at = format!("{at}[{n}]");
        if audience.is_empty() {
            causes.push(Cause::required(at, ""));
        } else if list[..n].contains(audience) {
            causes.push(Cause::duplicate(at, &json!(audience)));
        }
    }
    let policy = issuer.get("audienceMatchPolicy").and_then(Value::as_str).unwrap_or("");
    let at = format!("{path}.issuer.audienceMatchPolicy");
    if list.len() > 1 && policy != "MatchAny" {
        let why = "audienceMatchPolicy must be MatchAny for multiple audiences";
        causes.push(Cause::invalid(&at, &json!(policy), why));
    }
    if list.len() == 1 && !["", "MatchAny"].contains(&policy) {
        let why = "audienceMatchPolicy must be empty or MatchAny for single audience";
        causes.push(Cause::invalid(&at, &json!(policy), why));
    }
    list
}

/// The user of a token; `None` when it is of none of these issuers.
pub async fn authenticate(
    server: &ApiServer,
    issuers: &[Authenticator],
    token: &str,
) -> Option<Result<UserInfo, Refusal>> {
    if issuers.is_empty() {
        return None;
    }
    let jwt = Jwt::parse(token).ok()?;
    let issuer = issuers.iter().find(|i| i.issuer == jwt.text("iss"))?;
    Some(issuer.authenticate(server, &jwt).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_checked() {
        let check = |claims: Value, want: bool| assert_eq!(check_times(&claims, 1000).is_ok(), want, "{claims}");
        check(json!({"exp": 1001}), true);
        check(json!({"exp": 1000.5, "nbf": 1200}), true);
        check(json!({"exp": 999}), false);
        check(json!({"exp": 2000, "nbf": 1301}), false);
        check(json!({}), false);
    }
}
