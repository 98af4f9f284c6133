//! Admission: plugins that change or refuse writes, in upstream's order.
//!
//! A plugin is a file and a line in [`PLUGINS`]. Mutating ones see the object before it is prepared and
//! validated, validating ones after; both may read the server's live caches.

mod authorizer;
mod certificate_approval;
mod certificate_signing;
mod certificate_subject_restriction;
mod conditions;
mod default_ingress_class;
mod default_storage_class;
mod default_toleration_seconds;
mod evaluation;
mod json_patch;
mod limit_ranger;
mod lives;
mod matching;
pub mod metrics;
mod mutating_admission_policy;
mod mutating_admission_webhook;
mod mutation_types;
mod namespace_lifecycle;
mod node_declared_features;
mod node_restriction;
mod persistent_volume_claim_resize;
mod pod_resize;
mod pod_security;
mod pod_topology_labels;
mod policies;
mod policy_params;
pub mod policy_status;
mod priority;
mod reinvocation;
mod resource_quota;
mod review;
mod runtime_class;
mod service_account;
mod storage_object_in_use;
mod taint_nodes;
mod validating_admission_policy;
mod validating_admission_webhook;
mod versions;
mod webhooks;

pub use lives::Lives;
pub use namespace_lifecycle::find as find_namespace;

use crate::handlers::Request;
use crate::registry::Resource;
use crate::server::ApiServer;
use api::{Object, Status, meta};
use async_trait::async_trait;
use parking_lot::Mutex;
use reinvocation::Reinvocation;
use serde_json::{Value, json};
use std::time::Instant;

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

impl Operation {
    /// `CREATE`, `UPDATE`, `DELETE`, `CONNECT`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
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
    /// The options of a deletion; those of other operations are the parameters of the request.
    pub options: Option<&'a Value>,
    /// What mutating plugins remember between their rounds; [`admit`] sets it.
    pub reinvocation: Option<&'a Mutex<Reinvocation>>,
}

impl Attributes<'_> {
    /// Whether it is about this resource of this group (of any version) itself, not a subresource.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.resource.group == group && self.resource.resource == resource && self.subresource.is_empty()
    }

    /// Whether it is about namespaces themselves.
    pub fn is_about_namespaces(&self) -> bool {
        self.resource.group.is_empty() && self.resource.resource == "namespaces"
    }

    /// The namespace that selectors and webhooks see: a namespace is in itself.
    pub fn namespace_name(&self) -> &str {
        if self.is_about_namespaces() { self.name } else { self.namespace }
    }

    /// Whether webhooks and policies have no say: they could make themselves irrevocable.
    pub fn is_exempt(&self) -> bool {
        const RESOURCES: [&str; 6] = [
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
            "mutatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "validatingwebhookconfigurations",
        ];
        self.resource.group == "admissionregistration.k8s.io" && RESOURCES.contains(&self.resource.resource.as_str())
    }

    /// The options of the operation as webhooks see them; a connection has none.
    pub fn options_object(&self) -> Value {
        let kind = match self.operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
            Operation::Connect => return Value::Null,
        };
        let mut options = self.options.cloned().unwrap_or_else(|| json!({}));
        options["kind"] = kind.into();
        options["apiVersion"] = "meta.k8s.io/v1".into();
        if self.operation != Operation::Delete {
            for field in ["fieldManager", "fieldValidation"] {
                let text = self.request.query.get(field);
                if !text.is_empty() {
                    options[field] = text.into();
                }
            }
        }
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        options
    }

    /// 403 `pods "x" is forbidden: why`.
    pub fn forbidden(&self, why: &str) -> Status {
        let name = if self.name.is_empty() { "Unknown" } else { self.name };
        Status::forbidden(&self.resource.group, &self.resource.resource, name, why)
    }
}

/// Fails for what cannot be a part of a path, where upstream's plugins ask the server itself for an object.
fn check_segment(name: &str) -> Result<(), String> {
    let wrong = resources::metadata::PATH_SEGMENT(name, false);
    match name {
        "" => Err("resource name may not be empty".into()),
        _ if wrong.is_empty() => Ok(()),
        name => Err(format!("invalid resource name {}: [{}]", api::quoted(name), wrong.join(" "))),
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
    &policy_params::PolicyParams,
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
    &pod_topology_labels::PodTopologyLabels,
    &node_declared_features::NodeDeclaredFeatureValidator,
    &pod_resize::PodResizeValidator,
    &mutating_admission_policy::MutatingAdmissionPolicy,
    &mutating_admission_webhook::MutatingAdmissionWebhook,
    &validating_admission_policy::ValidatingAdmissionPolicy,
    &validating_admission_webhook::ValidatingAdmissionWebhook,
    &resource_quota::ResourceQuota,
];

/// Runs the mutating side; once more where a webhook or policy changed what others had seen.
pub async fn admit(server: &ApiServer, attributes: &Attributes<'_>, object: &mut Object) -> Result<(), Status> {
    let begun = Instant::now();
    let outcome = rounds(server, attributes, object).await;
    metrics::step(attributes, "admit", &outcome, begun.elapsed());
    outcome
}

async fn rounds(server: &ApiServer, attributes: &Attributes<'_>, object: &mut Object) -> Result<(), Status> {
    let remembered = Mutex::new(Reinvocation::default());
    let attributes = &Attributes { reinvocation: Some(&remembered), ..*attributes };
    round(server, attributes, object).await?;
    if remembered.lock().wanted {
        remembered.lock().again = true;
        round(server, attributes, object).await?;
    }
    Ok(())
}

async fn round(server: &ApiServer, attributes: &Attributes<'_>, object: &mut Object) -> Result<(), Status> {
    for plugin in PLUGINS {
        let outcome = plugin.admit(server, attributes, object).await;
        outcome.map_err(|status| name_by_prefix(attributes, object, status))?;
    }
    Ok(())
}

/// Runs both sides for a connection, whose object are its options.
pub async fn connect(server: &ApiServer, attributes: &Attributes<'_>, mut options: Object) -> Result<(), Status> {
    mutating_admission_webhook::dispatch(server, attributes, Some(&mut options)).await?;
    validate(server, attributes, Some(&options)).await
}

/// A refusal names an object whose name is still to be generated by its prefix: `pods "web-" is forbidden`.
fn name_by_prefix(attributes: &Attributes<'_>, object: &Object, mut status: Status) -> Status {
    let prefix = meta::string(object, "generateName");
    let Some(why) = status.message.strip_prefix(&attributes.forbidden("").message) else { return status };
    if status.code == 403 && attributes.name.is_empty() && !prefix.is_empty() {
        let Resource { group, resource, .. } = attributes.resource;
        status.message = Status::forbidden(group, resource, prefix, why).message;
        if let Some(details) = status.details.as_object_mut() {
            details.insert("name".into(), prefix.into());
        }
    }
    status
}

/// Runs the validating side; a deletion, which has no object, is shown to mutating webhooks first.
pub async fn validate(server: &ApiServer, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
    let begun = Instant::now();
    let outcome = validate_all(server, attributes, object).await;
    metrics::step(attributes, "validate", &outcome, begun.elapsed());
    outcome
}

async fn validate_all(server: &ApiServer, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
    if attributes.operation == Operation::Delete {
        mutating_admission_webhook::dispatch(server, attributes, None).await?;
    }
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
