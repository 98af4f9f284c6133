//! Reasons of the kubelet's events, and where events go.

use crate::pod::{ContainerType, PodExt};
use api::k8s::core::v1::{Container, Node, ObjectReference, Pod};
use informer::EventRecorder;
pub use informer::EventType;

/// Reasons, named as upstream's `events` package names them.
pub mod reason {
    #![allow(missing_docs)]
    pub const CREATED: &str = "Created";
    pub const STARTED: &str = "Started";
    pub const FAILED: &str = "Failed";
    pub const KILLING: &str = "Killing";
    pub const BACK_OFF: &str = "BackOff";
    pub const PULLING: &str = "Pulling";
    pub const PULLED: &str = "Pulled";
    pub const INSPECT_FAILED: &str = "InspectFailed";
    pub const ERR_IMAGE_NEVER_PULL: &str = "ErrImageNeverPull";
    pub const FAILED_KILL_POD: &str = "FailedKillPod";
    pub const FAILED_MOUNT: &str = "FailedMount";
    pub const NETWORK_NOT_READY: &str = "NetworkNotReady";
    pub const SANDBOX_CHANGED: &str = "SandboxChanged";
    pub const FAILED_CREATE_POD_SANDBOX: &str = "FailedCreatePodSandBox";
    pub const FAILED_CREATE_POD_CONTAINER: &str = "FailedCreatePodContainer";
    pub const UNHEALTHY: &str = "Unhealthy";
    pub const PROBE_WARNING: &str = "ProbeWarning";
    pub const FAILED_POST_START_HOOK: &str = "FailedPostStartHook";
    pub const FAILED_PRE_STOP_HOOK: &str = "FailedPreStopHook";
    pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
    pub const EVICTED: &str = "Evicted";
    pub const EVICTION_THRESHOLD_MET: &str = "EvictionThresholdMet";
    pub const FREE_DISK_SPACE_FAILED: &str = "FreeDiskSpaceFailed";
    pub const INVALID_DISK_CAPACITY: &str = "InvalidDiskCapacity";
    pub const NODE_ALLOCATABLE_ENFORCED: &str = "NodeAllocatableEnforced";
    pub const LIFECYCLE_HTTP_FALLBACK: &str = "LifecycleHTTPFallback";
    pub const FAILED_NODE_ALLOCATABLE: &str = "FailedNodeAllocatableEnforcement";
    pub const NODE_SHUTDOWN: &str = "Shutdown";
    pub const STARTING: &str = "Starting";
    pub const NODE_READY: &str = "NodeReady";
    pub const NODE_NOT_READY: &str = "NodeNotReady";
    pub const DNS_CONFIG_FORMING: &str = "DNSConfigForming";
    pub const MISSING_CLUSTER_DNS: &str = "MissingClusterDNS";
    pub const IMAGE_PULL_SECRET: &str = "FailedToRetrieveImagePullSecret";
}

/// Where events go; the informer crate's recorder in a cluster, a list in tests.
pub trait Sink: Send + Sync {
    /// Records one event; never blocks.
    fn record(&self, regarding: ObjectReference, kind: EventType, reason: &str, message: String);

    /// As [`Self::record`], with annotations, where the sink can keep them.
    fn record_annotated(
        &self,
        regarding: ObjectReference,
        _annotations: std::collections::BTreeMap<String, String>,
        kind: EventType,
        reason: &str,
        message: String,
    ) {
        self.record(regarding, kind, reason, message);
    }
}

impl Sink for EventRecorder {
    fn record(&self, regarding: ObjectReference, kind: EventType, reason: &str, message: String) {
        self.event(&regarding, kind, reason, message);
    }

    fn record_annotated(
        &self,
        regarding: ObjectReference,
        annotations: std::collections::BTreeMap<String, String>,
        kind: EventType,
        reason: &str,
        message: String,
    ) {
        self.annotated(&regarding, annotations, kind, reason, message);
    }
}

/// Records events about pods, their containers and the node.
#[derive(Clone)]
pub struct Recorder(std::sync::Arc<dyn Sink>);

impl Recorder {
    /// Wraps a sink.
    pub fn new(sink: std::sync::Arc<dyn Sink>) -> Self {
        Self(sink)
    }

    /// An event about a pod.
    pub fn pod(&self, pod: &Pod, kind: EventType, reason: &str, message: impl Into<String>) {
        self.0.record(pod_reference(pod), kind, reason, message.into());
    }

    /// An event about a pod, with annotations.
    pub fn annotated_pod(
        &self,
        pod: &Pod,
        annotations: std::collections::BTreeMap<String, String>,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.0.record_annotated(pod_reference(pod), annotations, kind, reason, message.into());
    }

    /// An event about a container of a pod (`fieldPath` says which).
    pub fn container(
        &self,
        pod: &Pod,
        container: &Container,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let list = match pod.container(&container.name) {
            Some((ContainerType::Init, _)) => "initContainers",
            Some((ContainerType::Ephemeral, _)) => "ephemeralContainers",
            _ => "containers",
        };
        let field_path = Some(format!("spec.{list}{{{}}}", container.name));
        self.0.record(ObjectReference { field_path, ..pod_reference(pod) }, kind, reason, message.into());
    }

    /// An event about the node.
    pub fn node(&self, node: &Node, kind: EventType, reason: &str, message: impl Into<String>) {
        let reference = ObjectReference {
            kind: Some("Node".into()),
            name: node.metadata.name.clone(),
            uid: node.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        self.0.record(reference, kind, reason, message.into());
    }
}

fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}
