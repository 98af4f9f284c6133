//! Device plugins (v1beta1): devices of the node that processes of their own know about.
//!
//! A plugin registers ([`registration`]) and streams its list of devices ([`plugin`]); healthy ones are the node's
//! allocatable. A pod's containers are given devices before anything of it runs ([`allocation`]); what was given
//! survives the kubelet ([`checkpoint`]) and is told to the runtime when a container is made ([`Manager::grant`]).
//!
//! Invariants: a device is given to one container at a time (init containers pass theirs on); a container that is
//! started again gets the same devices; a pod's devices are free again only when the pod is gone from the node.

mod allocation;
mod checkpoint;
mod plugin;
pub mod registration;

pub use allocation::AllocationError;

use parking_lot::Mutex;
use plugin::Plugin;
use protos::deviceplugin::ContainerAllocateResponse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a resource whose plugin is gone stays in the node's capacity, as upstream.
const GRACE: Duration = Duration::from_secs(300);

/// One device as its plugin last said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// `Healthy`
    pub healthy: bool,
    /// NUMA nodes it is near.
    pub numa: Vec<i64>,
}

/// What a container was given of one resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocation {
    /// Devices.
    pub ids: BTreeSet<String>,
    /// What the plugin wants of the container.
    pub response: ContainerAllocateResponse,
}

/// Allocations by pod uid, container and resource.
type Allocations = BTreeMap<String, BTreeMap<String, BTreeMap<String, Allocation>>>;

/// Devices that admission has set aside, by pod uid, container and resource: not given yet.
type SetAside = BTreeMap<String, BTreeMap<String, BTreeMap<String, BTreeSet<String>>>>;

/// A resource of the node.
struct Resource {
    devices: BTreeMap<String, Device>,
    /// `None` while its plugin is gone.
    plugin: Option<Arc<Plugin>>,
    gone_since: Option<Instant>,
}

#[derive(Default)]
struct State {
    resources: BTreeMap<String, Resource>,
    allocations: Allocations,
    set_aside: SetAside,
}

/// What a container's configuration gets from plugins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grant {
    /// Environment.
    pub envs: Vec<(String, String)>,
    /// Mounts.
    pub mounts: Vec<cri::Mount>,
    /// Device nodes.
    pub devices: Vec<cri::Device>,
    /// Annotations for the runtime.
    pub annotations: BTreeMap<String, String>,
    /// CDI devices.
    pub cdi_devices: Vec<String>,
}

/// Devices of the node, and what containers have of them.
pub struct Manager {
    dir: PathBuf,
    state: Mutex<State>,
    /// One allocation at a time: it chooses from what is free.
    allocating: tokio::sync::Mutex<()>,
    changed: Notify,
}

impl Manager {
    /// Reads what an earlier kubelet gave to containers.
    pub fn open(dir: &Path) -> Self {
        let (allocations, known) = checkpoint::read(dir);
        let gone = |ids: BTreeSet<String>| Resource {
            devices: ids.into_iter().map(|id| (id, Device::default())).collect(),
            plugin: None,
            gone_since: Some(Instant::now()),
        };
        let resources = known.into_iter().map(|(name, ids)| (name, gone(ids))).collect();
        Self {
            dir: dir.to_owned(),
            state: Mutex::new(State { resources, allocations, set_aside: SetAside::new() }),
            allocating: Default::default(),
            changed: Notify::new(),
        }
    }

    /// Waits until the node's resources may have changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Number of devices and of healthy ones by resource; zero of those whose plugin is long gone.
    pub fn amounts(&self) -> BTreeMap<String, (usize, usize)> {
        let state = self.state.lock();
        let count = |resource: &Resource| match resource.gone_since {
            Some(since) if since.elapsed() > GRACE => (0, 0),
            _ => (resource.devices.len(), resource.devices.values().filter(|d| d.healthy).count()),
        };
        state.resources.iter().map(|(name, resource)| (name.clone(), count(resource))).collect()
    }

    /// Healthy devices by resource.
    pub fn allocatable(&self) -> BTreeMap<String, BTreeMap<String, Device>> {
        let state = self.state.lock();
        let healthy =
            |r: &Resource| r.devices.iter().filter(|(_, d)| d.healthy).map(|(i, d)| (i.clone(), d.clone())).collect();
        state.resources.iter().map(|(name, resource)| (name.clone(), healthy(resource))).collect()
    }

    /// Devices of a container by resource, with what is known of each.
    pub fn of_container(&self, pod_uid: &str, container: &str) -> BTreeMap<String, BTreeMap<String, Device>> {
        let state = self.state.lock();
        let Some(given) = state.allocations.get(pod_uid).and_then(|c| c.get(container)) else { return BTreeMap::new() };
        let device = |resource: &str, id: &String| {
            let known = state.resources.get(resource).and_then(|r| r.devices.get(id)).cloned();
            (id.clone(), known.unwrap_or_default())
        };
        given.iter().map(|(name, a)| (name.clone(), a.ids.iter().map(|id| device(name, id)).collect())).collect()
    }

    /// Number of devices that containers have, by resource. A plugin that is not back yet after a restart, or whose
    /// devices fell ill, does not take them away: admission counts these as there.
    pub fn allocated(&self) -> BTreeMap<String, usize> {
        let state = self.state.lock();
        state.resources.keys().map(|name| (name.clone(), allocation::in_use(&state, name).len())).collect()
    }

    /// Whether a resource is one that plugins have.
    pub fn knows(&self, resource: &str) -> bool {
        self.state.lock().resources.contains_key(resource)
    }

    /// What a container's configuration gets; plugins that want to know of a start are told.
    pub async fn grant(&self, pod_uid: &str, container: &str) -> Result<Grant, String> {
        let given: Vec<(String, Allocation, Option<Arc<Plugin>>)> = {
            let state = self.state.lock();
            let given = state.allocations.get(pod_uid).and_then(|c| c.get(container)).cloned().unwrap_or_default();
            let plugin = |name: &str| state.resources.get(name).and_then(|r| r.plugin.clone());
            given.into_iter().map(|(name, allocation)| (name.clone(), allocation, plugin(&name))).collect()
        };
        let mut out = Grant::default();
        for (name, allocation, plugin) in given {
            if let Some(plugin) = plugin.filter(|p| p.options.pre_start_required) {
                plugin.pre_start(&allocation.ids).await.map_err(|why| {
                    format!("device plugin PreStartContainer rpc failed with err: {why} (resource {name})")
                })?;
            }
            out.add(allocation.response);
        }
        Ok(out)
    }

    /// Takes back what a pod had.
    pub fn release(&self, pod_uid: &str) {
        let mut state = self.state.lock();
        state.set_aside.remove(pod_uid);
        if state.allocations.remove(pod_uid).is_some() {
            self.save(&state);
        }
    }

    /// Takes back what pods had that the kubelet does not know.
    pub fn retain(&self, known: impl Fn(&str) -> bool) {
        let mut state = self.state.lock();
        let before = state.allocations.len();
        state.set_aside.retain(|uid, _| known(uid));
        state.allocations.retain(|uid, _| known(uid));
        if state.allocations.len() != before {
            self.save(&state);
        }
    }

    fn save(&self, state: &State) {
        let known = state.resources.iter().map(|(name, r)| (name.clone(), r.devices.keys().cloned().collect()));
        if let Err(error) = checkpoint::write(&self.dir, &state.allocations, known.collect()) {
            tracing::error!(%error, "cannot write the checkpoint of devices");
        }
    }

    /// A plugin has registered.
    fn connected(&self, name: &str, plugin: Arc<Plugin>) {
        let mut state = self.state.lock();
        let resource = state.resources.entry(name.to_owned()).or_insert_with(|| Resource {
            devices: BTreeMap::new(),
            plugin: None,
            gone_since: None,
        });
        (resource.plugin, resource.gone_since) = (Some(plugin), None);
    }

    /// A plugin has sent its list; the pods whose devices may have changed.
    fn listed(&self, name: &str, plugin: &Arc<Plugin>, devices: BTreeMap<String, Device>) -> Vec<String> {
        let mut state = self.state.lock();
        let Some(resource) = state.resources.get_mut(name) else { return Vec::new() };
        if resource.plugin.as_ref().is_none_or(|p| !Arc::ptr_eq(p, plugin)) || resource.devices == devices {
            return Vec::new();
        }
        resource.devices = devices;
        self.save(&state);
        self.changed.notify_one();
        users(&state, name)
    }

    /// A plugin's stream has ended: what it had is not healthy until it comes back. Pods as above.
    fn disconnected(&self, name: &str, plugin: &Arc<Plugin>) -> Vec<String> {
        let mut state = self.state.lock();
        let Some(resource) = state.resources.get_mut(name) else { return Vec::new() };
        if resource.plugin.as_ref().is_none_or(|p| !Arc::ptr_eq(p, plugin)) {
            // Another has taken its place.
            return Vec::new();
        }
        (resource.plugin, resource.gone_since) = (None, Some(Instant::now()));
        resource.devices.values_mut().for_each(|d| d.healthy = false);
        self.changed.notify_one();
        users(&state, name)
    }
}

/// Uids of the pods that have devices of a resource.
fn users(state: &State, resource: &str) -> Vec<String> {
    let has = |containers: &BTreeMap<String, BTreeMap<String, Allocation>>| {
        containers.values().any(|resources| resources.contains_key(resource))
    };
    state.allocations.iter().filter(|(_, c)| has(c)).map(|(uid, _)| uid.clone()).collect()
}

impl Grant {
    fn add(&mut self, response: ContainerAllocateResponse) {
        for (name, value) in response.envs {
            self.envs.retain(|(known, _)| *known != name);
            self.envs.push((name, value));
        }
        self.envs.sort();
        self.mounts.extend(response.mounts.into_iter().map(|m| cri::Mount {
            container_path: m.container_path,
            host_path: m.host_path,
            readonly: m.read_only,
            ..cri::Mount::default()
        }));
        self.devices.extend(response.devices.into_iter().map(|d| cri::Device {
            container_path: d.container_path,
            host_path: d.host_path,
            permissions: d.permissions,
        }));
        self.annotations.extend(response.annotations);
        for device in response.cdi_devices {
            if !self.cdi_devices.contains(&device.name) {
                self.cdi_devices.push(device.name);
            }
        }
    }
}

#[cfg(test)]
mod tests;
