//! The live caches that plugins read.

use crate::live::Live;
use crate::registry::Registry;
use crate::server::{Error, live};
use crate::store::Stored;
use api::Object;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

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
    /// Limit ranges.
    pub limit_ranges: Arc<Live<Object>>,
    /// Resource quotas.
    pub resource_quotas: Arc<Live<Object>>,
}

impl Lives {
    /// Starts the caches.
    pub fn start(registry: &Registry, token: &CancellationToken) -> Result<Self, Error> {
        let of = |group: &str, resource: &str| live(registry, token, (group, resource), parse);
        Ok(Self {
            namespaces: of("", "namespaces")?,
            service_accounts: of("", "serviceaccounts")?,
            priority_classes: of("scheduling.k8s.io", "priorityclasses")?,
            storage_classes: of("storage.k8s.io", "storageclasses")?,
            ingress_classes: of("networking.k8s.io", "ingressclasses")?,
            runtime_classes: of("node.k8s.io", "runtimeclasses")?,
            limit_ranges: of("", "limitranges")?,
            resource_quotas: of("", "resourcequotas")?,
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
        self.limit_ranges.synced().await;
        self.resource_quotas.synced().await;
    }
}

/// managedFields are most of a small object and of no use here.
fn parse(stored: &Stored) -> Option<Object> {
    let mut object = stored.object().ok()?;
    api::meta::set(&mut object, "managedFields", serde_json::Value::Null);
    Some(object)
}
