//! Bootstrap tokens: `<id>.<secret>`, kept in secrets `kube-system/bootstrap-token-<id>`, for joining nodes.

use super::UserInfo;
use crate::server::ApiServer;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

/// The user of a bootstrap token; `None` when it is not one or not valid.
pub async fn authenticate(server: &ApiServer, token: &str) -> Option<UserInfo> {
    let (id, secret) = parse(token)?;
    let stored = server.store("", "secrets")?.get("kube-system", &format!("bootstrap-token-{id}")).await.ok()??;
    let object = stored.object().ok()?;
    user(&object, id, secret, Timestamp::now())
}

fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

fn user(object: &Value, id: &str, secret: &str, now: Timestamp) -> Option<UserInfo> {
    let field = |key: &str| {
        let text = object.get("data")?.get(key)?.as_str()?;
        String::from_utf8(STANDARD.decode(text).ok()?).ok()
    };
    let right_type = object.get("type").and_then(Value::as_str) == Some("bootstrap.kubernetes.io/token");
    let deleting = api::meta::is_deleting(object);
    let same =
        field("token-id")? == id && pki::equal_in_constant_time(field("token-secret")?.as_bytes(), secret.as_bytes());
    let expired = field("expiration").is_some_and(|t| t.parse::<Timestamp>().map_or(true, |t| t < now));
    let allowed = field("usage-bootstrap-authentication").as_deref() == Some("true");
    if !right_type || deleting || !same || expired || !allowed {
        return None;
    }
    let mut user = UserInfo::new(&format!("system:bootstrap:{id}"), &["system:bootstrappers"]);
    let more = field("auth-extra-groups").unwrap_or_default();
    let more = more.split(',').filter(|g| g.starts_with("system:bootstrappers:"));
    user.groups.extend(more.map(str::to_owned));
    Some(user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_are_checked() {
        let text = |s: &str| STANDARD.encode(s);
        let secret = |expiration: &str, usage: &str| {
            json!({"type": "bootstrap.kubernetes.io/token", "data": {"token-id": text("abcdef"),
                "token-secret": text("0123456789abcdef"), "expiration": text(expiration),
                "usage-bootstrap-authentication": text(usage)}})
        };
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
        let ok = |object: &Value, secret: &str| user(object, "abcdef", secret, now).is_some();
        assert!(ok(&secret("2027-01-01T00:00:00Z", "true"), "0123456789abcdef"));
        assert!(!ok(&secret("2025-01-01T00:00:00Z", "true"), "0123456789abcdef"), "expired");
        assert!(!ok(&secret("2027-01-01T00:00:00Z", "false"), "0123456789abcdef"), "not for authentication");
        assert!(!ok(&secret("2027-01-01T00:00:00Z", "true"), "0123456789abcdee"), "wrong secret");
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        assert_eq!(parse("a.b"), None);
    }
}
