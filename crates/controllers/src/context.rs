//! What a controller is given: informers, its own client, its event recorder.

use crate::Config;
use informer::{CancellationToken, EventRecorder, EventType, Informer, InformerFactory, Stored, reference};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Api, Client, Resource};
use std::sync::Arc;

/// The part every controller shares.
pub(crate) struct Shared {
    pub factory: Arc<InformerFactory>,
    pub config: Config,
    pub shutdown: CancellationToken,
}

/// The surroundings of one controller; cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    shared: Arc<Shared>,
    /// Acts as the controller's service account.
    pub client: Client,
    recorder: EventRecorder,
}

impl Context {
    pub fn new(shared: Arc<Shared>, client: Client, name: &str) -> Self {
        let recorder = EventRecorder::new(client.clone(), name, "");
        Self { shared, client, recorder }
    }

    /// The shared informer of a kind.
    pub fn informer<K: Stored<DynamicType = ()>>(&self) -> Informer<K> {
        self.shared.factory.informer()
    }

    pub fn factory(&self) -> &InformerFactory {
        &self.shared.factory
    }

    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    pub fn shutdown(&self) -> CancellationToken {
        self.shared.shutdown.clone()
    }

    /// The API of a namespaced kind.
    pub fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The API of a cluster-scoped kind.
    pub fn cluster_api<K: Resource<DynamicType = (), Scope = ClusterResourceScope>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// Records a `Normal` event.
    pub fn normal<K: Resource<DynamicType = ()>>(&self, obj: &K, reason: &str, message: impl Into<String>) {
        self.recorder.event(&reference(obj), EventType::Normal, reason, message);
    }

    /// Records a `Warning` event.
    pub fn warning<K: Resource<DynamicType = ()>>(&self, obj: &K, reason: &str, message: impl Into<String>) {
        self.recorder.event(&reference(obj), EventType::Warning, reason, message);
    }
}

/// Waits for informers to have their first list.
macro_rules! synced {
    ($($informer:expr),+ $(,)?) => { $( $informer.synced().await; )+ };
}
pub(crate) use synced;
