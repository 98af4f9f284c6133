//! What all pods of the node share.

use crate::config::Config;
use crate::events::Recorder;
use crate::images::ImageManager;
use crate::node::machine::Machine;
use crate::objects::{self, ObjectCache, Wake};
use crate::pod::PodExt;
use crate::probes::results::ProbeResults;
use crate::qos::Resources;
use crate::tokens::TokenManager;
use api::k8s::core::v1::{ConfigMap, Node, Pod, Secret, Service};
use informer::{Informer, InformerFactory};
use parking_lot::RwLock;
use std::sync::Arc;

/// The services of one kubelet, shared by its pods' workers and its server.
pub struct Context {
    /// What the kubelet was told.
    pub config: Config,
    /// Events.
    pub recorder: Recorder,
    /// Config maps that pods use.
    pub config_maps: ObjectCache<ConfigMap>,
    /// Secrets that pods use.
    pub secrets: ObjectCache<Secret>,
    /// All services.
    pub services: Informer<Service>,
    /// Tokens of pods.
    pub tokens: TokenManager,
    /// Pulls.
    pub images: ImageManager,
    /// Probes' last words.
    pub probes: ProbeResults,
    /// The machine.
    pub machine: Machine,
    /// The node as last seen in the API.
    pub node: RwLock<Arc<Node>>,
    /// When the kubelet started.
    pub started: std::time::Instant,
}

impl Context {
    /// Puts the parts together; `wake` wakes a pod's worker.
    pub fn new(config: Config, factory: &InformerFactory, recorder: Recorder, wake: Wake) -> Self {
        let client = config.client.clone();
        Self {
            config_maps: ObjectCache::new("configmap", client.clone(), wake.clone()),
            secrets: ObjectCache::new("secret", client.clone(), wake.clone()),
            services: factory.informer(),
            tokens: TokenManager::new(client),
            images: ImageManager::new(config.images.clone(), recorder.clone()),
            probes: ProbeResults::new(wake),
            machine: Machine::read(&config.root_dir),
            node: RwLock::default(),
            started: std::time::Instant::now(),
            config,
            recorder,
        }
    }

    /// A config map of the pod's namespace; `None` where it is optional and missing.
    pub async fn config_map(&self, pod: &Pod, name: &str, optional: bool) -> Result<Option<Arc<ConfigMap>>, String> {
        optional_object(self.config_maps.get(pod.uid(), pod.namespace(), name).await, optional)
    }

    /// A secret of the pod's namespace; `None` where it is optional and missing.
    pub async fn secret(&self, pod: &Pod, name: &str, optional: bool) -> Result<Option<Arc<Secret>>, String> {
        optional_object(self.secrets.get(pod.uid(), pod.namespace(), name).await, optional)
    }

    /// Forgets what a pod used.
    pub fn release(&self, pod_uid: &str) {
        self.config_maps.release(pod_uid);
        self.secrets.release(pod_uid);
        self.tokens.release(pod_uid);
        self.images.release(pod_uid);
    }

    /// Capacity less what is reserved.
    pub fn allocatable(&self) -> Resources {
        self.machine.allocatable(&self.config)
    }
}

fn optional_object<K>(result: Result<Arc<K>, objects::Error>, optional: bool) -> Result<Option<Arc<K>>, String> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(objects::Error::NotFound { .. }) if optional => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The API server's own words of a failed call.
pub fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether the API server said that the object does not exist.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
