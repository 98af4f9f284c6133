//! What a kubelet reports of containers: resources given to them, their users, claims made for the pod.

use crate::field::{Errors, Fields, Path};
use crate::names;
use serde_json::Value;

const HEALTH: [&str; 3] = ["Healthy", "Unhealthy", "Unknown"];
const MESSAGE_MAX: usize = 1024;
const ID_MAX: i64 = 2_147_483_647;
const CLAIM_FORM: &str = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty";

/// Errors of the claims made for a pod.
pub fn claims(errors: &mut Errors, pod: &Value, path: &Path<'_>) {
    let statuses = pod.at("status").list("resourceClaimStatuses");
    for (i, status) in statuses.iter().enumerate() {
        let (item, name) = (path.index(i), status.text("name"));
        if !pod.at("spec").list("resourceClaims").iter().any(|claim| claim.text("name") == name) {
            errors.invalid(&item.field("name"), name, "must match the name of an entry in `spec.resourceClaims`");
        }
        if statuses[..i].iter().any(|other| other.text("name") == name) {
            errors.duplicate(&item.field("name"), name);
        }
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
    for (i, status) in list.iter().enumerate() {
        let at = path.index(i);
        let at = at.field("allocatedResourcesStatus");
        let container = containers.iter().find(|c| c.text("name") == status.text("name"));
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

fn health(errors: &mut Errors, list: &[Value], path: &Path<'_>) {
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
        if list[..i].iter().any(|other| other.text("resourceID") == id) {
            errors.duplicate(&item.field("resourceID"), id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_not_asked_for_is_refused() {
        let containers = json!([{"name": "c", "resources": {"requests": {"cpu": "1"}, "claims": [{"name": "g", "request": "r"}]}}]);
        let check = |given: Value, want: &[&str]| {
            let mut errors = Errors::default();
            let status = json!([{"name": "c", "allocatedResourcesStatus": [given]}]);
            allocated(&mut errors, status.as_array().expect("list"), containers.as_array().expect("list"), &Path::root("s"));
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
