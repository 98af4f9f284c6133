//! What all pods of the node share.

use crate::cgroups::Burstable;
use crate::config::Config;
use crate::eviction::Eviction;
use crate::events::Recorder;
use crate::image_gc::ImageGc;
use crate::images::ImageManager;
use crate::node::machine::Machine;
use crate::objects::{self, ObjectCache, Wake};
use crate::plugins::Plugins;
use crate::pod::PodExt;
use crate::probes::results::ProbeResults;
use crate::qos::{self, Resources};
use crate::resource_managers::ResourceManagers;
use crate::shutdown::Shutdown;
use crate::static_pods::mirror::Mirrors;
use crate::summary::rates::Rates;
use crate::summary::usage::UsageCache;
use crate::tokens::TokenManager;
use crate::userns::UserNamespaces;
use crate::volumes::trust_bundle::TrustBundles;
use api::quantity::{Format, Quantity};
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
    /// Trust bundles of the cluster.
    pub trust_bundles: TrustBundles,
    /// Tokens of pods.
    pub tokens: TokenManager,
    /// Pulls.
    pub images: ImageManager,
    /// Probes' last words.
    pub probes: ProbeResults,
    /// The machine.
    pub machine: Machine,
    /// Eviction's word on the node.
    pub eviction: Eviction,
    /// Image garbage collection.
    pub image_gc: ImageGc,
    /// Sizes of directories.
    pub usage: UsageCache,
    /// Rates of CPU use.
    pub rates: Rates,
    /// CPUs and memory of containers alone.
    pub managers: ResourceManagers,
    /// User namespaces.
    pub userns: UserNamespaces,
    /// Whether the node shuts down.
    pub shutdown: Shutdown,
    /// Weight of burstable pods.
    pub burstable: Burstable,
    /// Mirror pods.
    pub mirrors: Mirrors,
    /// CSI drivers, device plugins and DRA drivers.
    pub plugins: Plugins,
    /// Wakes the worker of a pod.
    pub wake: Wake,
    /// The node as last seen in the API.
    pub node: RwLock<Arc<Node>>,
    /// When the kubelet started.
    pub started: std::time::Instant,
}

impl Context {
    /// Puts the parts together; `wake` wakes a pod's worker.
    pub fn new(config: Config, factory: &InformerFactory, recorder: Recorder, wake: Wake) -> Self {
        let client = config.client.clone();
        let machine = Machine::read(&config.root_dir);
        Self {
            config_maps: ObjectCache::new("configmap", client.clone(), wake.clone()),
            secrets: ObjectCache::new("secret", client.clone(), wake.clone()),
            services: factory.informer(),
            trust_bundles: TrustBundles::new(client.clone(), wake.clone()),
            tokens: TokenManager::new(client),
            images: ImageManager::new(&config, recorder.clone()),
            probes: ProbeResults::new(wake.clone()),
            eviction: Eviction::default(),
            image_gc: ImageGc::default(),
            usage: UsageCache::default(),
            rates: Rates::default(),
            mirrors: Mirrors::default(),
            plugins: Plugins::new(&config.root_dir),
            wake,
            managers: ResourceManagers::new(&config.settings, &config.root_dir),
            userns: UserNamespaces::new(&config, machine.cpus()),
            shutdown: Shutdown::default(),
            burstable: Burstable::default(),
            machine,
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
        self.plugins.devices.release(pod_uid);
        self.userns.release(pod_uid);
        self.trust_bundles.release(pod_uid);
        self.probes.release(pod_uid);
    }

    /// What limits of pods and containers follow from.
    pub fn node_limits(&self) -> qos::Node<'_> {
        let allocatable = self.allocatable_of_pods();
        qos::Node {
            memory: self.machine.memory_bytes(),
            swap: self.machine.swap_bytes(),
            allocatable_memory: allocatable.get("memory").map_or(0, |q| q.value()),
            page_sizes: self.machine.page_sizes(),
            cgroup_version: self.config.runtime.features().cgroup_version,
            settings: &self.config.settings,
        }
    }

    /// What the scheduler may give to pods: capacity less what is reserved and what eviction keeps free.
    pub fn allocatable(&self) -> Resources {
        let mut out = crate::node::allocatable::of_scheduler(&self.machine, &self.config);
        let devices = self.plugins.devices.amounts().into_iter();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        out.extend(devices.map(|(name, (_, healthy))| (name, Quantity::from_units(count(healthy), Format::DecimalSi))));
        out
    }

    /// What pods may use together: capacity less what is reserved.
    pub fn allocatable_of_pods(&self) -> Resources {
        crate::node::allocatable::of_pods(&self.machine, &self.config)
    }

    /// When the kubelet started, as the API's time.
    pub fn started_at(&self) -> String {
        let ago = i64::try_from(self.started.elapsed().as_secs()).unwrap_or(0);
        let at = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second().saturating_sub(ago));
        at.map(|t| t.to_string()).unwrap_or_default()
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
