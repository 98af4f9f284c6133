//! Authorization: whether a user may do what a request asks.
//!
//! Order: `system:masters` → Node → RBAC. The first that allows decides; their reasons are shown together
//! when none does.

pub mod escalation;
pub mod node;
pub mod rbac;
mod rules;

pub use rules::{Rule, rule_list};

use crate::authn::{MASTERS, UserInfo};
use crate::request_info::RequestInfo;
use crate::server::ApiServer;
use api::Status;

/// What is asked of an authorizer.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a UserInfo,
    /// Does what.
    pub verb: &'a str,
    /// To a resource, or else to a path.
    pub is_resource: bool,
    /// API group.
    pub group: &'a str,
    /// Version.
    pub version: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Resource.
    pub resource: &'a str,
    /// Subresource.
    pub subresource: &'a str,
    /// Name.
    pub name: &'a str,
    /// Path, for other requests.
    pub path: &'a str,
}

impl<'a> Attributes<'a> {
    /// The attributes of a request.
    pub fn of(user: &'a UserInfo, info: &'a RequestInfo) -> Self {
        Self {
            user,
            verb: &info.verb,
            is_resource: info.is_resource && !info.resource.is_empty(),
            group: &info.group,
            version: &info.version,
            namespace: &info.namespace,
            resource: &info.resource,
            subresource: &info.subresource,
            name: &info.name,
            path: &info.path,
        }
    }

    /// `pods/log`, or the resource alone.
    pub fn resource_with_subresource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    fn message(&self) -> String {
        let (user, verb) = (&self.user.name, self.verb);
        if !self.is_resource {
            return format!("User {user:?} cannot {verb} path {:?}", self.path);
        }
        let (resource, group) = (self.resource_with_subresource(), self.group);
        let what = format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?}");
        if self.namespace.is_empty() {
            format!("{what} at the cluster scope")
        } else {
            format!("{what} in the namespace {:?}", self.namespace)
        }
    }
}

/// What the authorizers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether one of them allows it.
    pub allowed: bool,
    /// Why, or why not.
    pub reason: String,
}

/// Asks the authorizers in order.
pub fn decide(server: &ApiServer, attributes: &Attributes<'_>, selects_node: Option<&str>) -> Decision {
    if attributes.user.is_in(MASTERS) {
        return Decision { allowed: true, reason: String::new() };
    }
    let node = server.authorizers().node.authorize(attributes, selects_node);
    if node.allowed {
        return node;
    }
    let rbac = server.authorizers().rbac.authorize(attributes);
    if rbac.allowed {
        return rbac;
    }
    let reasons = [node.reason, rbac.reason];
    let reasons: Vec<_> = reasons.into_iter().filter(|r| !r.is_empty()).collect();
    Decision { allowed: false, reason: reasons.join("\n") }
}

/// 403 unless the authorizers allow it.
pub async fn authorize(server: &ApiServer, attributes: &Attributes<'_>) -> Result<(), Status> {
    check(server, attributes, None)
}

/// As [`authorize`]; `selects_node` is the node that the request's field selector is limited to.
pub fn check(server: &ApiServer, attributes: &Attributes<'_>, selects_node: Option<&str>) -> Result<(), Status> {
    let decision = decide(server, attributes, selects_node);
    if decision.allowed { Ok(()) } else { Err(forbidden(attributes, &decision.reason)) }
}

/// 403 as the API server words it.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> Status {
    let mut message = attributes.message();
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    Status::forbidden(attributes.group, attributes.resource, attributes.name, &message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;
    use http::Method;

    #[test]
    fn messages_are_those_of_kubernetes() {
        let user = UserInfo::new("x", &[]);
        let check = |path: &str, want: &str| {
            let info = RequestInfo::new(&Method::GET, path, &Query::default());
            assert_eq!(forbidden(&Attributes::of(&user, &info), "").message, want);
        };
        check(
            "/api/v1/namespaces/default/pods",
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#,
        );
        check(
            "/api/v1/nodes/n",
            r#"nodes "n" is forbidden: User "x" cannot get resource "nodes" in API group "" at the cluster scope"#,
        );
        check("/metrics", r#"forbidden: User "x" cannot get path "/metrics""#);
    }
}
