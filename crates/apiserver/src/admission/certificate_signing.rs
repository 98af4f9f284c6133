//! CertificateSigning: who issues a certificate or sets a condition must be allowed to sign for the signer.

use super::certificate_approval::{is_authorized, is_update_of, signer_name};
use super::{Attributes, Plugin};
use crate::server::ApiServer;
use api::{Object, Status};
use async_trait::async_trait;
use serde_json::Value;

/// The plugin.
pub struct CertificateSigning;

#[async_trait]
impl Plugin for CertificateSigning {
    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, new: Option<&Object>) -> Result<(), Status> {
        let (Some(old), Some(new)) = (a.old.filter(|_| is_update_of(a, "status")), new) else { return Ok(()) };
        let signer = signer_name(old);
        if !changes(new, old) || is_authorized(server, a, "sign", signer) {
            return Ok(());
        }
        Err(a.forbidden(&format!("user not permitted to sign requests with signerName {signer:?}")))
    }
}

/// Whether the certificate or the conditions change; what is absent equals what is empty.
fn changes(new: &Object, old: &Object) -> bool {
    let field = |object: &Object, name: &str| {
        let value = object.pointer("/status").and_then(|s| s.get(name)).cloned().unwrap_or_default();
        if matches!(&value, Value::Array(list) if list.is_empty()) || value == "" { Value::Null } else { value }
    };
    ["certificate", "conditions"].iter().any(|name| field(new, name) != field(old, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_of_status_are_seen() {
        let check = |new: Value, old: Value, want: bool| {
            assert_eq!(changes(&json!({"status": new.clone()}), &json!({ "status": old })), want, "{new}");
        };
        check(json!({}), json!({"conditions": []}), false);
        check(json!({"certificate": "eA=="}), json!({}), true);
        check(json!({"conditions": [{"type": "Failed"}]}), json!({}), true);
        check(json!({"certificate": "eA=="}), json!({"certificate": "eA=="}), false);
    }
}
