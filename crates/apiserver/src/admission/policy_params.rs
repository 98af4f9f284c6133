//! Who makes a policy about parameters may read them: a policy shows what they hold to those it refuses.

use super::{Attributes, Plugin};
use crate::authn::{MASTERS, UserInfo};
use crate::authz;
use crate::registry::create::invalid;
use crate::server::ApiServer;
use api::{Cause, Object, Status};
use async_trait::async_trait;
use resources::field::Fields;
use serde_json::Value;

const GROUP: &str = "admissionregistration.k8s.io";

/// The check; upstream's strategies make it after validation.
pub struct PolicyParams;

#[async_trait]
impl Plugin for PolicyParams {
    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(object) = object.filter(|_| a.resource.group == GROUP && a.subresource.is_empty()) else {
            return Ok(());
        };
        if a.request.user.is_in(MASTERS) {
            return Ok(());
        }
        let (spec, old) = (object.at("spec"), a.old.map_or(&Value::Null, |o| o.at("spec")));
        let refused = match a.resource.resource.as_str() {
            "validatingadmissionpolicies" | "mutatingadmissionpolicies" => policy(server, a, spec, old),
            "validatingadmissionpolicybindings" => binding(server, a, spec, old, "validatingadmissionpolicies").await?,
            "mutatingadmissionpolicybindings" => binding(server, a, spec, old, "mutatingadmissionpolicies").await?,
            _ => None,
        };
        refused.map_or(Ok(()), |cause| Err(invalid(a.resource, object, &[cause])))
    }
}

/// As much as is known of a parameter kind; all of what is not.
struct Target {
    group: String,
    version: String,
    resource: String,
    is_resolved: bool,
}

impl Target {
    fn new(server: &ApiServer, kind: &Value) -> Self {
        let any = || "*".to_owned();
        let Some(gv) = api::GroupVersion::parse(kind.text("apiVersion")).filter(|_| kind.is_object()) else {
            return Self { group: any(), version: any(), resource: any(), is_resolved: false };
        };
        let found = server.registry().of_kind(&gv.group, &gv.version, kind.text("kind"));
        let is_resolved = found.is_some();
        let resource = found.map_or_else(any, |r| r.resource.clone());
        Self { group: gv.group, version: gv.version, resource, is_resolved }
    }

    fn allows(&self, server: &ApiServer, user: &UserInfo, verb: &str, (namespace, name): (&str, &str)) -> bool {
        let attributes = authz::Attributes {
            user,
            verb,
            is_resource: true,
            group: &self.group,
            version: &self.version,
            namespace,
            resource: &self.resource,
            subresource: "",
            name,
            path: "",
            field_selector: "",
            label_selector: "",
        };
        authz::decide(server, &attributes, None).allowed
    }
}

fn policy(server: &ApiServer, a: &Attributes<'_>, spec: &Value, old: &Value) -> Option<Cause> {
    let kind = spec.at("paramKind");
    if !kind.is_object() || kind == old.at("paramKind") {
        return None;
    }
    let user = &a.request.user;
    if Target::new(server, kind).allows(server, user, "get", ("*", "*")) {
        return None;
    }
    let (name, api_version) = (kind.text("kind"), kind.text("apiVersion"));
    let why = format!(
        "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={name}, apiVersion={api_version})",
        shown(user)
    );
    Some(Cause::forbidden("spec.paramKind", &why))
}

async fn binding(
    server: &ApiServer,
    a: &Attributes<'_>,
    spec: &Value,
    old: &Value,
    policies: &str,
) -> Result<Option<Cause>, Status> {
    let of = spec.at("paramRef");
    if !of.is_object() || (of == old.at("paramRef") && spec.at("policyName") == old.at("policyName")) {
        return Ok(None);
    }
    let store = server.store(GROUP, policies).ok_or_else(Status::no_such_path)?;
    let policy = store.get("", spec.text("policyName")).await?.map(|s| s.object()).transpose()?;
    let kind = policy.as_ref().map_or(&Value::Null, |p| p.at("spec").at("paramKind"));
    let (target, user) = (Target::new(server, kind), &a.request.user);
    let verb = if of.text("name").is_empty() { "list" } else { "get" };
    if target.allows(server, user, verb, (of.text("namespace"), of.text("name"))) {
        return Ok(None);
    }
    let user = shown(user);
    let unknown = |what: String| {
        format!(
            "unable to {what} to determine minimum required permissions and user {user} does not have {verb:?} permission for all groups, versions and resources"
        )
    };
    let why = match (&policy, target.is_resolved || kind.is_null()) {
        (None, _) => unknown(format!("get policy {}", spec.text("policyName"))),
        (_, false) => unknown(format!("resolve paramKind {kind}")),
        _ => format!("user {user} does not have {verb:?} permission on the object referenced by paramRef"),
    };
    Ok(Some(Cause::forbidden("spec.paramRef", &why)))
}

/// A user as Go prints it.
fn shown(user: &UserInfo) -> String {
    let extra: Vec<String> = user.extra.iter().map(|(k, v)| format!("{k}:[{}]", v.join(" "))).collect();
    format!("&{{{} {} [{}] map[{}]}}", user.name, user.uid, user.groups.join(" "), extra.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_print_as_in_go() {
        assert_eq!(shown(&UserInfo::new("bob", &["a"])), "&{bob  [a system:authenticated] map[]}");
    }
}
