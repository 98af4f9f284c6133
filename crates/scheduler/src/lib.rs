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
mod changes;
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
mod storage_class;
mod waiters;

use api::k8s::apps::v1::{ReplicaSet, StatefulSet};
use api::k8s::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service,
};
use api::k8s::policy::v1::PodDisruptionBudget;
use api::k8s::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use api::k8s::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use api::machinery::apis::meta::v1::ObjectMeta;
use informer::{CancellationToken, EventRecorder, Informer, InformerFactory};
use std::sync::Arc;

/// The `schedulerName` of pods that are ours, and the component of our events.
const NAME: &str = "default-scheduler";

/// Makes [`Handle`] of the kinds that plugins and the scheduling loop look at, each with its informer's name.
macro_rules! handle {
    ($($name:ident: $kind:ty,)*) => {
        /// What plugins and the scheduling loop look things up in and write through.
        pub(crate) struct Handle {
            pub client: kube::Client,
            pub recorder: EventRecorder,
            $(pub $name: Informer<$kind>,)*
        }

        impl Handle {
            fn new(factory: &InformerFactory, client: kube::Client) -> Arc<Self> {
                let recorder = EventRecorder::series(client.clone(), NAME, NAME);
                Arc::new(Self { client, recorder, $($name: factory.informer(),)* })
            }

            async fn synced(&self) {
                $(self.$name.synced().await;)*
            }
        }
    };
}

handle! {
    pods: Pod,
    nodes: Node,
    namespaces: Namespace,
    services: Service,
    controllers: ReplicationController,
    replica_sets: ReplicaSet,
    stateful_sets: StatefulSet,
    claims: PersistentVolumeClaim,
    volumes: PersistentVolume,
    classes: StorageClass,
    budgets: PodDisruptionBudget,
    csi_nodes: CSINode,
    csi_drivers: CSIDriver,
    capacities: CSIStorageCapacity,
    attachments: VolumeAttachment,
    device_classes: DeviceClass,
    resource_claims: ResourceClaim,
    resource_slices: ResourceSlice,
}

/// The resource version of an object, as a number.
pub(crate) fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
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
