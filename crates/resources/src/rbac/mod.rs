//! `rbac.authorization.k8s.io`: roles and bindings. Their names may be any path segment.

pub mod binding;
pub mod role;
