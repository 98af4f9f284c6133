//! The authorizer that expressions ask: the server's own.

use crate::authn::UserInfo;
use crate::authz;
use crate::server::ApiServer;
use expression::library::authorizer::{Attributes, Authorizer, Decision, User};
use std::sync::{Arc, Weak};

/// Asks a server's authorizers.
#[derive(Debug)]
pub struct ServerAuthorizer(Weak<ApiServer>);

impl ServerAuthorizer {
    /// The authorizer of a server.
    pub fn new(server: &ApiServer) -> Arc<Self> {
        Arc::new(Self(server.weak()))
    }
}

impl Authorizer for ServerAuthorizer {
    fn authorize(&self, asked: &Attributes) -> Decision {
        let Some(server) = self.0.upgrade() else {
            return Decision { error: Some("the server is stopping".into()), ..Decision::default() };
        };
        let User { name, uid, groups, extra } = asked.user.as_ref().clone();
        let user = UserInfo { name, uid, groups, extra: extra.into_iter().collect() };
        let is_resource = asked.is_resource();
        let attributes = authz::Attributes {
            user: &user,
            verb: &asked.verb,
            is_resource,
            group: &asked.group,
            version: if is_resource { "*" } else { "" },
            namespace: &asked.namespace,
            resource: &asked.resource,
            subresource: &asked.subresource,
            name: &asked.name,
            path: &asked.path,
            field_selector: &asked.field_selector,
            label_selector: &asked.label_selector,
        };
        let decision = authz::decide(&server, &attributes, None);
        Decision { allowed: decision.allowed, reason: decision.reason, error: None }
    }
}

/// A user as expressions know users.
pub fn user(user: &UserInfo) -> Arc<User> {
    let UserInfo { name, uid, groups, extra } = user.clone();
    Arc::new(User { name, uid, groups, extra: extra.into_iter().collect() })
}
