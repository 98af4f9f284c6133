//! PersistentVolumeClaimResize: a claim grows only when it is bound and its class allows expansion.

use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use api::quantity::Quantity;
use api::{Object, Status, meta};
use async_trait::async_trait;
use serde_json::Value;

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const FIXED: &str =
    "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";

/// The plugin.
pub struct PersistentVolumeClaimResize;

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, new: Option<&Object>) -> Result<(), Status> {
        let (Some(old), Some(new)) = (a.old, new) else { return Ok(()) };
        if a.operation != Operation::Update || !a.is("", "persistentvolumeclaims") || size(new) <= size(old) {
            return Ok(());
        }
        if old.pointer("/status/phase").and_then(Value::as_str) != Some("Bound") {
            return Err(a.forbidden("Only bound persistent volume claims can be expanded"));
        }
        let class = class(new);
        let found =
            (!class.is_empty() && class == self::class(old)).then(|| server.lives().storage_classes.get("", class));
        let expands = found.flatten().is_some_and(|c| c.get("allowVolumeExpansion") == Some(&Value::Bool(true)));
        if expands { Ok(()) } else { Err(a.forbidden(FIXED)) }
    }
}

fn size(claim: &Object) -> Quantity {
    let text = claim.pointer("/spec/resources/requests/storage").and_then(Value::as_str);
    text.and_then(|t| Quantity::parse(t).ok()).unwrap_or_else(|| Quantity::from_milli(0))
}

/// The storage class of a claim, empty when it names none.
pub(super) fn class(claim: &Object) -> &str {
    let field = || claim.pointer("/spec/storageClassName").and_then(Value::as_str);
    meta::annotation(claim, BETA_CLASS).or_else(field).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_and_classes_are_read() {
        let claim =
            json!({"metadata": {}, "spec": {"storageClassName": "a", "resources": {"requests": {"storage": "1Gi"}}}});
        assert!(size(&claim) > size(&json!({"spec": {}})));
        assert_eq!(class(&claim), "a");
        assert_eq!(
            class(&json!({"metadata": {"annotations": {BETA_CLASS: "b"}}, "spec": {"storageClassName": "a"}})),
            "b"
        );
        assert_eq!(class(&json!({})), "");
    }
}
