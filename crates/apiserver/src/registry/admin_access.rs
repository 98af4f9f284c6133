//! Admin access to devices: only namespaces that are labelled for it may claim it, or be given it.

use super::Resource;
use crate::admission::find_namespace;
use crate::server::ApiServer;
use api::{Cause, CauseType, Object};
use serde_json::Value;

const LABEL: &str = "resource.kubernetes.io/admin-access";

/// The error of an object that asks for, or is given, admin access where that is not allowed. A spec is judged when
/// the object is made, as it does not change; a status when it gets its first such device.
pub async fn check(
    server: &ApiServer,
    resource: &Resource,
    namespace: &str,
    new: &Object,
    old: Option<&Object>,
) -> Vec<Cause> {
    let path = match (resource.group.as_str(), resource.resource.as_str(), old) {
        ("resource.k8s.io", "resourceclaims", None) => requested(new, "/spec/devices/requests"),
        ("resource.k8s.io", "resourceclaimtemplates", None) => requested(new, "/spec/spec/devices/requests"),
        ("resource.k8s.io", "resourceclaims", Some(old)) if given(old).is_none() => given(new),
        _ => None,
    };
    let Some(path) = path else { return Vec::new() };
    match find_namespace(server, namespace).await {
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
