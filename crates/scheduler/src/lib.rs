//! The scheduler: chooses a node for each pod and binds it.
//!
//! One task owns the node cache and the queue, so neither needs a lock: it takes informers' events, then
//! schedules active pods one by one (filter, score, reserve), assumes each on its node and hands the
//! binding to a task of its own, whose outcome comes back as one more event. Pods that fit nowhere wait
//! until an event comes that a plugin which rejected them says may help.
//!
//! Invariants: a pod is in exactly one of the queue's places or with a binding task; the cache counts a
//! pod once, assumed or seen; a decision is made on a state that no event interrupts.
//!
//! The plugins are those of v1.36's default profile, all of them; [`profile`] has their order.
//!
//! Deliberately absent: extenders, several profiles, sampling of nodes (every node is looked at), reuse of one pod's
//! result for the next, and what v1.36 has behind gates that are off: gangs, pod groups and topology-aware placement,
//! storage capacity as a score, drivers that must be on a node (volume limits), translation of in-tree volumes for CSI
//! migration (no driver of theirs is built in).

mod binding;
mod cache;
mod dynamic_resources;
mod events;
mod framework;
mod node_info;
mod plugins;
mod pod_info;
mod profile;
mod queue;
mod resources;
mod schedule;
mod selectors;

use api::k8s::apps::v1::{ReplicaSet, StatefulSet};
use api::k8s::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service,
};
use api::k8s::policy::v1::PodDisruptionBudget;
use api::k8s::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use api::k8s::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use informer::{CancellationToken, EventRecorder, Informer, InformerFactory};
use std::sync::Arc;

/// The `schedulerName` of pods that are ours, and the component of our events.
const NAME: &str = "default-scheduler";

/// What plugins and the scheduling loop look things up in and write through.
pub(crate) struct Handle {
    pub client: kube::Client,
    pub recorder: EventRecorder,
    pub pods: Informer<Pod>,
    pub nodes: Informer<Node>,
    pub namespaces: Informer<Namespace>,
    pub services: Informer<Service>,
    pub controllers: Informer<ReplicationController>,
    pub replica_sets: Informer<ReplicaSet>,
    pub stateful_sets: Informer<StatefulSet>,
    pub claims: Informer<PersistentVolumeClaim>,
    pub volumes: Informer<PersistentVolume>,
    pub classes: Informer<StorageClass>,
    pub budgets: Informer<PodDisruptionBudget>,
    pub csi_nodes: Informer<CSINode>,
    pub csi_drivers: Informer<CSIDriver>,
    pub capacities: Informer<CSIStorageCapacity>,
    pub attachments: Informer<VolumeAttachment>,
    pub device_classes: Informer<DeviceClass>,
    pub resource_claims: Informer<ResourceClaim>,
    pub resource_slices: Informer<ResourceSlice>,
}

impl Handle {
    fn new(factory: &InformerFactory, client: kube::Client) -> Arc<Self> {
        let recorder = EventRecorder::series(client.clone(), NAME, NAME);
        let handle = Self {
            client,
            recorder,
            pods: factory.informer(),
            nodes: factory.informer(),
            namespaces: factory.informer(),
            services: factory.informer(),
            controllers: factory.informer(),
            replica_sets: factory.informer(),
            stateful_sets: factory.informer(),
            claims: factory.informer(),
            volumes: factory.informer(),
            classes: factory.informer(),
            budgets: factory.informer(),
            csi_nodes: factory.informer(),
            csi_drivers: factory.informer(),
            capacities: factory.informer(),
            attachments: factory.informer(),
            device_classes: factory.informer(),
            resource_claims: factory.informer(),
            resource_slices: factory.informer(),
        };
        let resource = |class: &DeviceClass| class.spec.extended_resource_name.clone().into_iter().collect();
        handle.device_classes.add_index(dynamic_resources::extended::INDEX, resource);
        handle.attachments.add_index(plugins::ATTACHMENTS, |attachment| vec![attachment.spec.node_name.clone()]);
        Arc::new(handle)
    }

    async fn synced(&self) {
        self.namespaces.synced().await;
        self.services.synced().await;
        self.controllers.synced().await;
        self.replica_sets.synced().await;
        self.stateful_sets.synced().await;
        self.claims.synced().await;
        self.volumes.synced().await;
        self.classes.synced().await;
        self.budgets.synced().await;
        self.csi_nodes.synced().await;
        self.csi_drivers.synced().await;
        self.capacities.synced().await;
        self.attachments.synced().await;
        self.device_classes.synced().await;
        self.resource_claims.synced().await;
        self.resource_slices.synced().await;
        self.nodes.synced().await;
        self.pods.synced().await;
    }
}

/// Schedules pods until `shutdown`; `client` acts as `system:kube-scheduler`.
pub async fn run(factory: Arc<InformerFactory>, client: kube::Client, shutdown: CancellationToken) {
    let handle = Handle::new(&factory, client);
    tokio::select! {
        () = handle.synced() => {}
        () = shutdown.cancelled() => return,
    }
    schedule::Scheduler::new(handle).run(shutdown).await;
}
