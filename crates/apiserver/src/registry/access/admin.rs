//! Admin access to devices: only namespaces that are labelled for it may claim it, or be given it.

use super::{Check, Write};
use crate::admission::find_namespace;
use api::{Cause, CauseType, Object};
use async_trait::async_trait;
use serde_json::Value;

const LABEL: &str = "resource.kubernetes.io/admin-access";

/// Of a new object, whose spec does not change: where it has its requests.
pub struct Requested(pub &'static str);

/// Of a claim that gets its first such device.
pub struct Given;

#[async_trait]
impl Check for Requested {
    async fn causes(&self, write: &Write<'_>) -> Vec<Cause> {
        match requested(write.new, self.0) {
            Some(path) => allowed(write, path).await,
            None => Vec::new(),
        }
    }
}

#[async_trait]
impl Check for Given {
    async fn causes(&self, write: &Write<'_>) -> Vec<Cause> {
        match given(write.new) {
            Some(path) if given(write.old).is_none() => allowed(write, path).await,
            _ => Vec::new(),
        }
    }
}

/// The error where the namespace is not labelled for it.
async fn allowed(write: &Write<'_>, path: String) -> Vec<Cause> {
    match find_namespace(write.server, write.attributes.namespace).await {
        Ok(namespace) if namespace.pointer("/metadata/labels").is_some_and(|labels| labels[LABEL] == "true") => {
            Vec::new()
        }
        Ok(_) => {
            let detail =
                format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
            vec![Cause::forbidden(path, &detail)]
        }
        Err(why) => {
            let message =
                format!("Internal error: could not retrieve namespace to verify admin access: {}", why.message);
            vec![Cause { kind: CauseType::InternalError, field: path, message }]
        }
    }
}

/// The first request for it; templates are named as the claims that they make.
fn requested(object: &Object, at: &str) -> Option<String> {
    let of = |request: &Value| request.pointer("/exactly/adminAccess") == Some(&Value::Bool(true));
    let i = object.pointer(at)?.as_array()?.iter().position(of)?;
    Some(format!("spec.devices.requests[{i}].adminAccess"))
}

/// The first device that was given with it.
fn given(claim: &Object) -> Option<String> {
    let results = claim.pointer("/status/allocation/devices/results")?.as_array()?;
    let i = results.iter().position(|result| result["adminAccess"] == true)?;
    Some(format!("status.allocation.devices.results[{i}].adminAccess"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn admin_access_is_found_where_it_is() {
        let requests = json!([{"exactly": {}}, {"exactly": {"adminAccess": true}}]);
        let claim = json!({"spec": {"devices": {"requests": requests}}});
        assert_eq!(
            requested(&claim, "/spec/devices/requests").as_deref(),
            Some("spec.devices.requests[1].adminAccess")
        );
        assert_eq!(given(&claim), None);
        let claim = json!({"status": {"allocation": {"devices": {"results": [{"adminAccess": true}]}}}});
        assert_eq!(given(&claim).as_deref(), Some("status.allocation.devices.results[0].adminAccess"));
    }
}
