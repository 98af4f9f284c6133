//! Authorization: whether a user may do what a request asks.
//!
//! Order: `system:masters` → the authorizers that are configured (Node, RBAC). The first that allows or denies
//! decides; their reasons are shown together when none does.

mod conditions;
pub mod config;
pub mod escalation;
pub mod node;
pub mod rbac;
mod rules;
mod webhook;

pub use config::Settings;
pub use rules::{Rule, rule_list};

use crate::authn::{MASTERS, UserInfo};
use crate::request_info::RequestInfo;
use crate::server::ApiServer;
use api::Status;
use config::Mode;
use node::Node;
use parking_lot::RwLock;
use rbac::Rbac;
use std::sync::Arc;

/// The authorizers of a server.
pub struct Authorizers {
    /// Kubelets.
    pub node: Node,
    /// Everyone.
    pub rbac: Rbac,
    /// Which of them are asked, and webhooks between them, in order.
    modes: RwLock<Arc<Vec<Mode>>>,
}

impl Authorizers {
    /// The authorizers that settings name.
    pub fn new(node: Node, rbac: Rbac, settings: &Settings) -> Result<Self, String> {
        Ok(Self { node, rbac, modes: RwLock::new(Arc::new(settings.modes()?)) })
    }

    fn modes(&self) -> Arc<Vec<Mode>> {
        self.modes.read().clone()
    }

    /// Whether a webhook is among them.
    pub fn has_webhook(&self) -> bool {
        self.modes().iter().any(|mode| matches!(mode, Mode::Webhook(_)))
    }

    /// Follows the configuration file, if there is one; ends with the server.
    pub fn follow(server: &Arc<ApiServer>) {
        let Some(path) = server.config().authorization.config_file.clone() else { return };
        let weak = Arc::downgrade(server);
        let reload = move || {
            let Some(server) = weak.upgrade() else { return };
            match server.config().authorization.modes() {
                Ok(modes) => {
                    *server.authorizers().modes.write() = Arc::new(modes);
                    tracing::info!("the authorization configuration was reloaded");
                }
                Err(error) => tracing::warn!(error, "the authorization configuration is of no use; the old one stays"),
            }
        };
        crate::authn::config_file::follow(path, server.stopping().clone(), reload);
    }
}

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
    /// Field selector of a request for many objects, as sent.
    pub field_selector: &'a str,
    /// Label selector of a request for many objects, as sent.
    pub label_selector: &'a str,
}

impl<'a> Attributes<'a> {
    /// The attributes of a request.
    pub fn of(user: &'a UserInfo, info: &'a RequestInfo) -> Self {
        Self {
            user,
            verb: &info.verb,
            is_resource: info.is_resource,
            group: &info.group,
            version: &info.version,
            namespace: &info.namespace,
            resource: &info.resource,
            subresource: &info.subresource,
            name: &info.name,
            path: &info.path,
            field_selector: &info.field_selector,
            label_selector: &info.label_selector,
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
            return format!("User {user} cannot {verb} path {:?}", self.path, user = api::quoted(user));
        }
        let (resource, group) = (self.resource_with_subresource(), self.group);
        let what =
            format!("User {user} cannot {verb} resource {resource:?} in API group {group:?}", user = api::quoted(user));
        if self.namespace.is_empty() {
            format!("{what} at the cluster scope")
        } else {
            format!("{what} in the namespace {:?}", self.namespace)
        }
    }
}

/// What the authorizers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether one of them allows it.
    pub allowed: bool,
    /// Whether one of them denies it, whatever those after it would say.
    pub denied: bool,
    /// Why, or why not.
    pub reason: String,
}

impl Decision {
    /// Allowed.
    pub fn allow(reason: impl Into<String>) -> Self {
        Self { allowed: true, denied: false, reason: reason.into() }
    }

    /// Denied.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self { allowed: false, denied: true, reason: reason.into() }
    }

    /// Neither.
    pub fn no_opinion(reason: impl Into<String>) -> Self {
        Self { allowed: false, denied: false, reason: reason.into() }
    }

    fn is_final(&self) -> bool {
        self.allowed || self.denied
    }
}

/// The reasons of authorizers without an opinion, one after another.
#[derive(Default)]
struct Undecided(Vec<String>);

impl Undecided {
    fn add(&mut self, decision: Decision) {
        if !decision.reason.is_empty() {
            self.0.push(decision.reason);
        }
    }

    fn decision(self) -> Decision {
        Decision::no_opinion(self.0.join("\n"))
    }
}

/// What an authorizer of the server itself says; `None` for a webhook.
fn local(server: &ApiServer, mode: &Mode, attributes: &Attributes<'_>, selects_node: Option<&str>) -> Option<Decision> {
    match mode {
        Mode::AlwaysAllow => Some(Decision::allow("")),
        Mode::AlwaysDeny => Some(Decision::no_opinion("Everything is forbidden.")),
        Mode::Node => Some(server.authorizers().node.authorize(attributes, selects_node)),
        Mode::Rbac => Some(server.authorizers().rbac.authorize(attributes)),
        Mode::Webhook(_) => None,
    }
}

/// Asks the authorizers in order.
pub async fn decision(server: &ApiServer, attributes: &Attributes<'_>, selects_node: Option<&str>) -> Decision {
    if attributes.user.is_in(MASTERS) {
        return Decision::allow("");
    }
    let mut undecided = Undecided::default();
    for mode in server.authorizers().modes().iter() {
        let decision = match mode {
            Mode::Webhook(webhook) => webhook.decide(server, attributes).await,
            mode => local(server, mode, attributes, selects_node).unwrap_or_default(),
        };
        if decision.is_final() {
            return decision;
        }
        undecided.add(decision);
    }
    undecided.decision()
}

/// As [`decision`], for callers that cannot wait: where a webhook must be asked, the thread blocks, which takes a
/// runtime of several threads.
pub fn decide(server: &ApiServer, attributes: &Attributes<'_>, selects_node: Option<&str>) -> Decision {
    if attributes.user.is_in(MASTERS) {
        return Decision::allow("");
    }
    if server.authorizers().has_webhook() {
        let runtime = tokio::runtime::Handle::current();
        return tokio::task::block_in_place(|| runtime.block_on(decision(server, attributes, selects_node)));
    }
    let mut undecided = Undecided::default();
    let modes = server.authorizers().modes();
    for decision in modes.iter().filter_map(|mode| local(server, mode, attributes, selects_node)) {
        if decision.is_final() {
            return decision;
        }
        undecided.add(decision);
    }
    undecided.decision()
}

/// 403 unless the authorizers allow it.
pub async fn authorize(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    selects_node: Option<&str>,
) -> Result<Decision, Status> {
    let decision = decision(server, attributes, selects_node).await;
    if decision.allowed { Ok(decision) } else { Err(forbidden(attributes, &decision.reason)) }
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
