//! The live caches that plugins read.

use super::mutating_admission_policy::{self, Mutating};
use super::policies::{self, Binding};
use super::validating_admission_policy::{self, Validating};
use super::webhooks::{self, Webhook};
use crate::live::Live;
use crate::registry::Registry;
use crate::server::{Error, live};
use crate::store::Stored;
use api::Object;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const REGISTRATION: &str = "admissionregistration.k8s.io";

/// Objects that admission looks up on many writes; they are small and few.
pub struct Lives {
    /// Namespaces.
    pub namespaces: Arc<Live<Object>>,
    /// Service accounts.
    pub service_accounts: Arc<Live<Object>>,
    /// Priority classes.
    pub priority_classes: Arc<Live<Object>>,
    /// Storage classes.
    pub storage_classes: Arc<Live<Object>>,
    /// Ingress classes.
    pub ingress_classes: Arc<Live<Object>>,
    /// Runtime classes.
    pub runtime_classes: Arc<Live<Object>>,
    /// Ranges of service addresses.
    pub service_cidrs: Arc<Live<Object>>,
    /// Limit ranges.
    pub limit_ranges: Arc<Live<Object>>,
    /// Resource quotas.
    pub resource_quotas: Arc<Live<Object>>,
    /// Webhooks that change objects, by configuration.
    pub mutating_webhooks: Arc<Live<Vec<Webhook>>>,
    /// Webhooks that refuse objects, by configuration.
    pub validating_webhooks: Arc<Live<Vec<Webhook>>>,
    /// Policies that change objects.
    pub mutating_policies: Arc<Live<Mutating>>,
    /// Their bindings.
    pub mutating_bindings: Arc<Live<Binding>>,
    /// Policies that refuse objects.
    pub validating_policies: Arc<Live<Validating>>,
    /// Their bindings.
    pub validating_bindings: Arc<Live<Binding>>,
}

impl Lives {
    /// Starts the caches.
    pub fn start(registry: &Registry, token: &CancellationToken) -> Result<Self, Error> {
        let of = |group: &str, resource: &str| live(registry, token, (group, resource), parse);
        let bindings = |resource: &str| live(registry, token, (REGISTRATION, resource), policies::parse_binding);
        let hooks = |resource: &str| live(registry, token, (REGISTRATION, resource), webhooks::parse);
        Ok(Self {
            namespaces: of("", "namespaces")?,
            service_accounts: of("", "serviceaccounts")?,
            priority_classes: of("scheduling.k8s.io", "priorityclasses")?,
            storage_classes: of("storage.k8s.io", "storageclasses")?,
            ingress_classes: of("networking.k8s.io", "ingressclasses")?,
            runtime_classes: of("node.k8s.io", "runtimeclasses")?,
            service_cidrs: of("networking.k8s.io", "servicecidrs")?,
            limit_ranges: of("", "limitranges")?,
            resource_quotas: of("", "resourcequotas")?,
            mutating_webhooks: hooks("mutatingwebhookconfigurations")?,
            validating_webhooks: hooks("validatingwebhookconfigurations")?,
            mutating_policies: live(
                registry,
                token,
                (REGISTRATION, "mutatingadmissionpolicies"),
                mutating_admission_policy::parse,
            )?,
            mutating_bindings: bindings("mutatingadmissionpolicybindings")?,
            validating_policies: live(
                registry,
                token,
                (REGISTRATION, "validatingadmissionpolicies"),
                validating_admission_policy::parse,
            )?,
            validating_bindings: bindings("validatingadmissionpolicybindings")?,
        })
    }

    /// Waits until every cache has seen what existed at the start.
    pub async fn synced(&self) {
        self.namespaces.synced().await;
        self.service_accounts.synced().await;
        self.priority_classes.synced().await;
        self.storage_classes.synced().await;
        self.ingress_classes.synced().await;
        self.runtime_classes.synced().await;
        self.service_cidrs.synced().await;
        self.limit_ranges.synced().await;
        self.resource_quotas.synced().await;
        self.mutating_webhooks.synced().await;
        self.validating_webhooks.synced().await;
        self.mutating_policies.synced().await;
        self.mutating_bindings.synced().await;
        self.validating_policies.synced().await;
        self.validating_bindings.synced().await;
    }
}

/// managedFields are most of a small object and of no use here.
fn parse(stored: &Stored) -> Option<Object> {
    let mut object = stored.object().ok()?;
    api::meta::set(&mut object, "managedFields", serde_json::Value::Null);
    Some(object)
}
