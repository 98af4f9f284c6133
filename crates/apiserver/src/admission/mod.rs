//! Admission: plugins that change or refuse writes, in upstream's order.
//!
//! A plugin is a file and a line in [`PLUGINS`]. Mutating ones see the object before it is prepared and
//! validated, validating ones after; both may read the server's live caches.

mod certificate_approval;
mod certificate_signing;
mod certificate_subject_restriction;
mod default_ingress_class;
mod default_storage_class;
mod default_toleration_seconds;
mod limit_ranger;
mod lives;
mod namespace_lifecycle;
mod node_restriction;
mod persistent_volume_claim_resize;
mod pod_security;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_object_in_use;
mod taint_nodes;

pub use lives::Lives;

use crate::handlers::Request;
use crate::registry::Resource;
use crate::server::ApiServer;
use api::{Object, Status};
use async_trait::async_trait;

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object, or a `create` of a subresource.
    Create,
    /// A changed object.
    Update,
    /// A deletion.
    Delete,
    /// `exec`, `attach`, `portforward`, `proxy`.
    Connect,
}

/// What a plugin sees of a request.
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    /// The request.
    pub request: &'a Request,
    /// The resource.
    pub resource: &'a Resource,
    /// What is done.
    pub operation: Operation,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Namespace, or empty.
    pub namespace: &'a str,
    /// Name; empty while it is to be generated.
    pub name: &'a str,
    /// The object before an update or deletion.
    pub old: Option<&'a Object>,
    /// Whether nothing will be written.
    pub dry_run: bool,
}

impl Attributes<'_> {
    /// Whether it is about this resource of this group (of any version) itself, not a subresource.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.resource.group == group && self.resource.resource == resource && self.subresource.is_empty()
    }

    /// 403 `pods "x" is forbidden: why`.
    pub fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(&self.resource.group, &self.resource.resource, self.name, why)
    }
}

/// An admission plugin.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// Changes a new or changed object, or refuses it.
    async fn admit(&self, _server: &ApiServer, _a: &Attributes<'_>, _object: &mut Object) -> Result<(), Status> {
        Ok(())
    }

    /// Refuses; a deletion has no object.
    async fn validate(&self, _server: &ApiServer, _a: &Attributes<'_>, _o: Option<&Object>) -> Result<(), Status> {
        Ok(())
    }
}

/// The plugins in order.
const PLUGINS: &[&dyn Plugin] = &[
    &namespace_lifecycle::NamespaceLifecycle,
    &limit_ranger::LimitRanger,
    &service_account::ServiceAccount,
    &node_restriction::NodeRestriction,
    &taint_nodes::TaintNodesByCondition,
    &pod_security::PodSecurity,
    &priority::Priority,
    &default_toleration_seconds::DefaultTolerationSeconds,
    &default_storage_class::DefaultStorageClass,
    &storage_object_in_use::StorageObjectInUseProtection,
    &persistent_volume_claim_resize::PersistentVolumeClaimResize,
    &runtime_class::RuntimeClass,
    &certificate_approval::CertificateApproval,
    &certificate_signing::CertificateSigning,
    &certificate_subject_restriction::CertificateSubjectRestriction,
    &default_ingress_class::DefaultIngressClass,
    &resource_quota::ResourceQuota,
];

/// Runs the mutating side.
pub async fn admit(server: &ApiServer, attributes: &Attributes<'_>, object: &mut Object) -> Result<(), Status> {
    for plugin in PLUGINS {
        plugin.admit(server, attributes, object).await?;
    }
    Ok(())
}

/// Runs the validating side.
pub async fn validate(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    object: Option<&Object>,
) -> Result<(), Status> {
    for plugin in PLUGINS {
        plugin.validate(server, attributes, object).await?;
    }
    Ok(())
}

/// What plugins charged for a write that passed [`validate`], to be given back should it not be stored.
pub struct Undo(resource_quota::Charges);

impl Undo {
    /// What the write was charged.
    pub fn of(server: &ApiServer, attributes: &Attributes<'_>, object: &Object) -> Self {
        Self(resource_quota::charged(server, attributes, object))
    }

    /// Gives it back.
    pub async fn run(self, server: &ApiServer, attributes: &Attributes<'_>) {
        resource_quota::give_back(server, attributes, &self.0).await;
    }
}
