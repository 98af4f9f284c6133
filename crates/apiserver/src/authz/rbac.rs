//! Role-based access control over live caches of roles and bindings.

use super::rules::{Rule, rule_list};
use super::{Attributes, Decision};
use crate::authn::UserInfo;
use crate::live::Live;
use crate::store::Stored;
use serde_json::Value;
use std::sync::Arc;

/// A role, parsed.
pub struct Role {
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// A binding, parsed.
pub struct RoleBinding {
    subjects: Vec<Subject>,
    role_kind: String,
    role_name: String,
}

enum Subject {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

impl Subject {
    fn parse(value: &Value) -> Option<Self> {
        let field = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        match field("kind").as_str() {
            "User" => Some(Self::User(field("name"))),
            "Group" => Some(Self::Group(field("name"))),
            "ServiceAccount" => Some(Self::ServiceAccount { namespace: field("namespace"), name: field("name") }),
            _ => None,
        }
    }

    fn is(&self, user: &UserInfo, binding_namespace: &str) -> bool {
        match self {
            Self::User(name) => *name == user.name,
            Self::Group(group) => user.is_in(group),
            Self::ServiceAccount { namespace, name } => {
                let namespace = if namespace.is_empty() { binding_namespace } else { namespace };
                let rest = user.name.strip_prefix("system:serviceaccount:");
                rest.and_then(|r| r.split_once(':')) == Some((namespace, name)) && !namespace.is_empty()
            }
        }
    }
}

/// Parses a Role or ClusterRole.
pub fn parse_role(stored: &Stored) -> Option<Role> {
    Some(Role { rules: rule_list(&stored.object().ok()?) })
}

/// Parses a RoleBinding or ClusterRoleBinding.
pub fn parse_binding(stored: &Stored) -> Option<RoleBinding> {
    let object = stored.object().ok()?;
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
    let subjects = object.get("subjects").and_then(Value::as_array);
    Some(RoleBinding {
        subjects: subjects.into_iter().flatten().filter_map(Subject::parse).collect(),
        role_kind: text("/roleRef/kind"),
        role_name: text("/roleRef/name"),
    })
}

/// The RBAC authorizer.
pub struct Rbac {
    /// ClusterRoles.
    pub cluster_roles: Arc<Live<Role>>,
    /// ClusterRoleBindings.
    pub cluster_role_bindings: Arc<Live<RoleBinding>>,
    /// Roles.
    pub roles: Arc<Live<Role>>,
    /// RoleBindings.
    pub role_bindings: Arc<Live<RoleBinding>>,
}

impl Rbac {
    /// Waits until every cache has seen what existed at the start.
    pub async fn synced(&self) {
        self.cluster_roles.synced().await;
        self.cluster_role_bindings.synced().await;
        self.roles.synced().await;
        self.role_bindings.synced().await;
    }

    /// Whether some role bound to the user allows it.
    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let mut reason = String::new();
        let mut errors = Vec::new();
        let allowed = self.visit(attributes.user, attributes.namespace, &mut |found| match found {
            Found::Rules { role, source } => {
                if role.rules.iter().any(|rule| rule.allows(attributes)) {
                    reason = format!("RBAC: allowed by {source}");
                    return true;
                }
                false
            }
            Found::Missing(error) => {
                errors.push(error);
                false
            }
        });
        if !allowed && !errors.is_empty() {
            errors.dedup();
            let list = errors.join(", ");
            reason = if errors.len() == 1 { format!("RBAC: {list}") } else { format!("RBAC: [{list}]") };
        }
        if allowed { Decision::allow(reason) } else { Decision::no_opinion(reason) }
    }

    /// Every rule that applies to a user in a namespace, and what could not be resolved.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        self.visit(user, namespace, &mut |found| {
            match found {
                Found::Rules { role, .. } => rules.extend(role.rules.iter().cloned()),
                Found::Missing(error) => errors.push(error),
            }
            false
        });
        (rules, errors)
    }

    /// The rules of a role that a binding in `namespace` refers to.
    pub fn rules_of(&self, kind: &str, name: &str, namespace: &str) -> Result<Arc<Role>, String> {
        let (role, resource) = match kind {
            "ClusterRole" => (self.cluster_roles.get("", name), "clusterrole"),
            _ => (self.roles.get(namespace, name), "role"),
        };
        role.ok_or_else(|| format!("{resource}.rbac.authorization.k8s.io {name:?} not found"))
    }

    /// Shows every role of a user until `visitor` returns true; cluster roles first.
    fn visit(&self, user: &UserInfo, namespace: &str, visitor: &mut dyn FnMut(Found<'_>) -> bool) -> bool {
        for (name, binding) in self.cluster_role_bindings.in_namespace("") {
            if self.visit_binding(user, ("ClusterRoleBinding", "", &name), &binding, visitor) {
                return true;
            }
        }
        if namespace.is_empty() {
            return false;
        }
        let bindings = self.role_bindings.in_namespace(namespace);
        bindings.iter().any(|(name, b)| self.visit_binding(user, ("RoleBinding", namespace, name), b, visitor))
    }

    fn visit_binding(
        &self,
        user: &UserInfo,
        (kind, namespace, name): (&str, &str, &str),
        binding: &RoleBinding,
        visitor: &mut dyn FnMut(Found<'_>) -> bool,
    ) -> bool {
        let Some(subject) = binding.subjects.iter().find(|s| s.is(user, namespace)) else { return false };
        match self.rules_of(&binding.role_kind, &binding.role_name, namespace) {
            Ok(role) => {
                let full_name = if namespace.is_empty() { name.to_owned() } else { format!("{name}/{namespace}") };
                let subject = describe(subject, namespace);
                let (role_kind, role_name) = (&binding.role_kind, &binding.role_name);
                let source = format!("{kind} {full_name:?} of {role_kind} {role_name:?} to {subject}");
                visitor(Found::Rules { role: &role, source: &source })
            }
            Err(error) => visitor(Found::Missing(error)),
        }
    }
}

enum Found<'a> {
    Rules { role: &'a Role, source: &'a str },
    Missing(String),
}

fn describe(subject: &Subject, binding_namespace: &str) -> String {
    match subject {
        Subject::User(name) => format!("User {name:?}"),
        Subject::Group(name) => format!("Group {name:?}"),
        Subject::ServiceAccount { namespace, name } => {
            let namespace = if namespace.is_empty() { binding_namespace } else { namespace };
            format!("ServiceAccount {:?}", format!("{name}/{namespace}"))
        }
    }
}
