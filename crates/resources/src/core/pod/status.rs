//! What a kubelet reports of containers: resources given to them, their users, claims made for the pod.

use crate::field::{Errors, Fields, Path, repeated};
use crate::names;
use crate::rules::Unique;
use serde_json::Value;
use std::collections::HashMap;

const HEALTH: [&str; 3] = ["Healthy", "Unhealthy", "Unknown"];
const MESSAGE_MAX: usize = 1024;
/// What a mapping says: whose request of which resource is which request of the claim.
const MAPPING: [&str; 3] = ["containerName", "resourceName", "requestName"];
const NO_SUCH_REQUEST: &str = "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests";
const NO_SUCH_CONTAINER: &str = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
const ID_MAX: i64 = 2_147_483_647;
const CLAIM_FORM: &str = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty";

/// Errors of the claims made for a pod.
pub fn claims(errors: &mut Errors, pod: &Value, path: &Path<'_>) {
    let claims = Unique::with(pod.at("spec").list("resourceClaims").iter().map(|claim| claim.text("name")));
    let mut names_so_far = Unique::default();
    for (i, status) in pod.at("status").list("resourceClaimStatuses").iter().enumerate() {
        let (item, name) = (path.index(i), status.text("name"));
        if !claims.has(name) {
            errors.invalid(&item.field("name"), name, "must match the name of an entry in `spec.resourceClaims`");
        }
        names_so_far.add(errors, name, &item.field("name"));
        if status.has("resourceClaimName") {
            let name = status.text("resourceClaimName");
            errors.invalid_each(&item.field("resourceClaimName"), name, names::dns1123_subdomain(name, false));
        }
    }
}

/// Errors of the users that containers run as.
pub fn users(errors: &mut Errors, list: &[Value], spec: &Value, path: &Path<'_>) {
    for (i, status) in list.iter().enumerate() {
        let (user, path) = (status.at("user").at("linux"), path.index(i));
        let path = path.field("user.linux");
        if user.is_null() {
            continue;
        }
        if spec.at("os").text("name") == "windows" {
            errors.forbidden(&path, "cannot be set for a windows pod");
            continue;
        }
        for field in ["uid", "gid"] {
            id(errors, user.int(field).unwrap_or(0), &path.field(field));
        }
        let groups = path.field("supplementalGroups");
        for (j, group) in user.list("supplementalGroups").iter().enumerate() {
            id(errors, group.as_i64().unwrap_or(0), &groups.index(j));
        }
    }
}

fn id(errors: &mut Errors, id: i64, path: &Path<'_>) {
    if !(0..=ID_MAX).contains(&id) {
        errors.invalid(path, id, &format!("must be between 0 and {ID_MAX}, inclusive"));
    }
}

/// Errors of the resources that containers have been given.
pub fn allocated(errors: &mut Errors, list: &[Value], containers: &[Value], path: &Path<'_>) {
    let by_name: HashMap<&str, &Value> = containers.iter().map(|c| (c.text("name"), c)).collect();
    for (i, status) in list.iter().enumerate() {
        let at = path.index(i);
        let at = at.field("allocatedResourcesStatus");
        let container = by_name.get(status.text("name"));
        for (j, given) in status.list("allocatedResourcesStatus").iter().enumerate() {
            let (item, name) = (at.index(j), given.text("name"));
            let wrong = container.and_then(|container| not_asked_for(container, name));
            wrong.into_iter().for_each(|text| errors.invalid(&item.field("name"), name, text));
            health(errors, given.list("resources"), &item.field("resources"));
        }
    }
}

/// Ephemeral containers are given none.
pub fn none_allocated(errors: &mut Errors, list: &[Value], path: &Path<'_>) {
    for (i, _) in list.iter().enumerate().filter(|(_, status)| !status.list("allocatedResourcesStatus").is_empty()) {
        let at = path.index(i);
        errors.forbidden(&at.field("allocatedResourcesStatus"), "must not be specified in container status");
    }
}

fn not_asked_for(container: &Value, name: &str) -> Option<&'static str> {
    let resources = container.at("resources");
    let Some(claim) = name.strip_prefix("claim:") else {
        let asked = resources.at("requests").has(name);
        return (!asked).then_some("must match one of the container's resource requests");
    };
    let asked = resources.list("claims").iter().any(|c| match c.text("request") {
        "" => c.text("name") == claim,
        request => claim.split_once('/') == Some((c.text("name"), request)),
    });
    (!asked).then_some(CLAIM_FORM)
}

/// Errors of the claim that was made for extended resources.
pub fn extended_claim(errors: &mut Errors, pod: &Value, path: &Path<'_>) {
    let (spec, status) = (pod.at("spec"), pod.at("status").at("extendedResourceClaimStatus"));
    if status.is_null() {
        return;
    }
    let containers: HashMap<&str, &Value> =
        spec.list("initContainers").iter().chain(spec.list("containers")).map(|c| (c.text("name"), c)).collect();
    let (mappings, list) = (status.list("requestMappings"), path.field("requestMappings"));
    if mappings.is_empty() {
        errors.required(&list, "at least one request mapping is required");
    }
    let twice = repeated(mappings.iter().map(|mapping| MAPPING.map(|key| mapping.text(key))));
    for (i, mapping) in mappings.iter().enumerate() {
        let (item, [container, resource, request]) = (list.index(i), MAPPING.map(|key| mapping.text(key)));
        match containers.get(container) {
            Some(container) if container.at("resources").at("requests").has(resource) => {}
            Some(_) => errors.invalid(&item.field("resourceName"), resource, NO_SUCH_REQUEST),
            None => errors.invalid(&item.field("containerName"), container, NO_SUCH_CONTAINER),
        }
        errors.invalid_each(&path.field("requestName"), request, names::dns1123_label(request, false));
        if twice[i] {
            MAPPING.iter().for_each(|key| errors.duplicate(&item.field(key), mapping.text(key)));
        }
    }
    match status.text("resourceClaimName") {
        "" => errors.required(&path.field("resourceClaimName"), ""),
        name => errors.invalid_each(&path.field("resourceClaimName"), name, names::dns1123_subdomain(name, false)),
    }
}

fn health(errors: &mut Errors, list: &[Value], path: &Path<'_>) {
    let mut ids = Unique::default();
    for (i, resource) in list.iter().enumerate() {
        let (item, id) = (path.index(i), resource.text("resourceID"));
        errors.one_of(&item.field("health"), resource.text("health"), &HEALTH);
        if resource.has("message") {
            let (message, path) = (resource.text("message"), item.field("message"));
            match message.len() {
                0 => errors.required(&path, "must be non-empty if specified"),
                length if length > MESSAGE_MAX => errors.too_long(&path, MESSAGE_MAX),
                _ => {}
            }
        }
        ids.add(errors, id, &item.field("resourceID"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_not_asked_for_is_refused() {
        let containers =
            json!([{"name": "c", "resources": {"requests": {"cpu": "1"}, "claims": [{"name": "g", "request": "r"}]}}]);
        let check = |given: Value, want: &[&str]| {
            let mut errors = Errors::default();
            let status = json!([{"name": "c", "allocatedResourcesStatus": [given]}]);
            allocated(
                &mut errors,
                status.as_array().expect("list"),
                containers.as_array().expect("list"),
                &Path::root("s"),
            );
            assert_eq!(errors.0.iter().map(|c| c.field.as_str()).collect::<Vec<_>>(), want);
        };
        check(json!({"name": "cpu"}), &[]);
        check(json!({"name": "claim:g/r"}), &[]);
        check(json!({"name": "claim:g"}), &["s[0].allocatedResourcesStatus[0].name"]);
        check(
            json!({"name": "cpu", "resources": [{"resourceID": "a", "health": "Ill"}]}),
            &["s[0].allocatedResourcesStatus[0].resources[0].health"],
        );
    }
}
