//! Which devices a container gets.

use super::{Allocation, Device, Manager, State};
use crate::pod::{PodExt, is_sidecar};
use crate::resource_managers::HintProvider;
use crate::resource_managers::topology::{Hints, Mask, bit, hints};
use api::k8s::core::v1::{Container, Pod};
use api::quantity::Quantity;
use std::collections::{BTreeMap, BTreeSet};

/// The NUMA nodes on which a container's devices are to be.
pub type Near<'a> = dyn Fn(&str) -> Option<Mask> + Send + Sync + 'a;

/// Why a pod cannot have what it asks for; the kubelet rejects it with `UnexpectedAdmissionError`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("Allocate failed due to {0}, which is unexpected")]
pub struct AllocationError(pub String);

impl Manager {
    /// Gives devices to all containers of a pod, on the NUMA nodes that `near` says where it can be; those that have
    /// theirs keep them. Idempotent.
    pub async fn allocate(&self, pod: &Pod, near: &Near<'_>) -> Result<(), AllocationError> {
        let _turn = self.allocating.lock().await;
        // What ended init containers had may be given to those after them.
        let mut reusable: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for container in pod.spec().init_containers.iter().flatten() {
            self.allocate_container(pod, container, &reusable, near(&container.name)).await?;
            self.update_reusable(pod, container, !is_sidecar(container), &mut reusable);
        }
        for container in &pod.spec().containers {
            self.allocate_container(pod, container, &reusable, near(&container.name)).await?;
            self.update_reusable(pod, container, false, &mut reusable);
        }
        Ok(())
    }

    fn update_reusable(
        &self,
        pod: &Pod,
        container: &Container,
        passes_on: bool,
        reusable: &mut BTreeMap<String, BTreeSet<String>>,
    ) {
        for (resource, devices) in self.of_container(pod.uid(), &container.name) {
            let free = reusable.entry(resource).or_default();
            for id in devices.into_keys() {
                if passes_on {
                    free.insert(id);
                } else {
                    free.remove(&id);
                }
            }
        }
    }

    async fn allocate_container(
        &self,
        pod: &Pod,
        container: &Container,
        reusable: &BTreeMap<String, BTreeSet<String>>,
        near: Option<Mask>,
    ) -> Result<(), AllocationError> {
        let limits = container.resources.as_ref().and_then(|r| r.limits.clone()).unwrap_or_default();
        for (resource, amount) in limits {
            let wanted = Quantity::parse(&amount.0).map_or(0, |q| usize::try_from(q.value()).unwrap_or(0));
            if wanted == 0 || !self.knows(&resource) {
                continue;
            }
            let none = BTreeSet::new();
            let reusable = reusable.get(&resource).unwrap_or(&none);
            let chosen = self.choose((pod.uid(), &container.name), &resource, wanted, reusable, near).await;
            let Some(ids) = chosen.map_err(AllocationError)? else { continue };
            self.ask(pod.uid(), &container.name, &resource, ids).await.map_err(AllocationError)?;
        }
        Ok(())
    }

    /// The devices of a container, or `None` where it has them already.
    async fn choose(
        &self,
        (pod_uid, container): (&str, &str),
        resource: &str,
        wanted: usize,
        reusable: &BTreeSet<String>,
        near: Option<Mask>,
    ) -> Result<Option<BTreeSet<String>>, String> {
        let (must, available, plugin) = {
            let state = self.state.lock();
            let given = state.allocations.get(pod_uid).and_then(|c| c.get(container)).and_then(|r| r.get(resource));
            if given.is_some_and(|a| a.ids.len() == wanted) {
                return Ok(None);
            }
            if let Some(given) = given {
                return Err(format!(
                    "pod {pod_uid:?} container {container:?} changed request for resource {resource:?} from {} to {wanted}",
                    given.ids.len()
                ));
            }
            let known = state.resources.get(resource).ok_or_else(|| unavailable(wanted, 0, resource))?;
            let plugin = known
                .plugin
                .clone()
                .ok_or_else(|| format!("no healthy devices present; cannot allocate unhealthy devices {resource}"))?;
            let healthy = |id: &&String| known.devices.get(*id).is_some_and(|d| d.healthy);
            let mut must: BTreeSet<String> = reusable.iter().filter(healthy).take(wanted).cloned().collect();
            let used = in_use(&state, resource).into_iter().chain(of_others(&state, resource, pod_uid)).collect::<BTreeSet<_>>();
            let free = |(id, device): (&String, &Device)| {
                (device.healthy && !used.contains(id) || must.contains(id)).then(|| id.clone())
            };
            let mut available: BTreeSet<String> = known.devices.iter().filter_map(free).collect();
            if let Some(nodes) = near {
                let is_near = |id: &&String| must.contains(*id) || known.devices[*id].is_on(nodes);
                let aligned: BTreeSet<String> = available.iter().filter(is_near).cloned().collect();
                if aligned.len() >= wanted {
                    available = aligned;
                } else {
                    must = aligned;
                }
            }
            (must, available, plugin)
        };
        if available.len() < wanted {
            return Err(unavailable(wanted, available.len(), resource));
        }
        let mut chosen = must.clone();
        if plugin.options.get_preferred_allocation_available && chosen.len() < wanted {
            match plugin.prefer(&available, &must, wanted).await {
                Ok(preferred) => {
                    let fits = |id: &String| available.contains(id);
                    let more: Vec<String> = preferred.into_iter().filter(fits).collect();
                    for id in more {
                        if chosen.len() < wanted {
                            chosen.insert(id);
                        }
                    }
                }
                Err(why) => return Err(format!("device plugin GetPreferredAllocation rpc failed with err: {why}")),
            }
        }
        let rest: Vec<String> = available.difference(&chosen).take(wanted - chosen.len()).cloned().collect();
        chosen.extend(rest);
        Ok(Some(chosen))
    }

    /// Asks the plugin for chosen devices and keeps what it answers.
    async fn ask(&self, pod_uid: &str, container: &str, resource: &str, ids: BTreeSet<String>) -> Result<(), String> {
        let plugin = self.state.lock().resources.get(resource).and_then(|r| r.plugin.clone());
        let plugin = plugin.ok_or_else(|| format!("unknown Device Plugin {resource}"))?;
        let response = plugin.allocate(&ids).await?;
        let mut state = self.state.lock();
        let pod = state.allocations.entry(pod_uid.to_owned()).or_default();
        pod.entry(container.to_owned()).or_default().insert(resource.to_owned(), Allocation { ids, response });
        if let Some(resources) = state.set_aside.get_mut(pod_uid).and_then(|c| c.get_mut(container)) {
            resources.remove(resource);
        }
        self.save(&state);
        Ok(())
    }
}

impl Device {
    /// Whether it is near one of these NUMA nodes.
    fn is_on(&self, nodes: Mask) -> bool {
        self.numa.iter().filter_map(|n| u32::try_from(*n).ok()).any(|node| nodes & bit(node) != 0)
    }
}

impl HintProvider for Manager {
    fn hints(&self, pod: &Pod, container: &Container, nodes: &[u32]) -> Hints {
        let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
        let state = self.state.lock();
        let mut out = Hints::new();
        for (name, amount) in limits.into_iter().flatten() {
            let wanted = Quantity::parse(&amount.0).map_or(0, |q| u64::try_from(q.value()).unwrap_or(0));
            let Some(resource) = state.resources.get(name).filter(|_| wanted > 0) else { continue };
            let given = state.allocations.get(pod.uid()).and_then(|c| c.get(&container.name)).and_then(|r| r.get(name));
            let used = unavailable_to(&state, name, pod);
            let free = |id: &String, device: &Device| match given {
                Some(given) => given.ids.contains(id),
                None => device.healthy && !used.contains(id),
            };
            let count = |nodes: Mask, counts: &dyn Fn(&String, &Device) -> bool| {
                resource.devices.iter().filter(|(id, d)| d.is_on(nodes) && counts(id, d)).count() as u64
            };
            // Devices that are everywhere alike have no wish.
            let aligned = resource.devices.values().any(|d| !d.numa.is_empty());
            let wishes = aligned.then(|| hints(nodes, wanted, |m| count(m, &free), |m| count(m, &|_, _| true)));
            out.insert(name.clone(), wishes);
        }
        out
    }

    fn set_aside(&self, pod: &Pod, container: &Container, nodes: Option<Mask>) {
        let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
        let mut state = self.state.lock();
        for (name, amount) in limits.into_iter().flatten() {
            let wanted = Quantity::parse(&amount.0).map_or(0, |q| usize::try_from(q.value()).unwrap_or(0));
            let given = state.allocations.get(pod.uid()).and_then(|c| c.get(&container.name)?.get(name)).is_some();
            let Some(resource) = state.resources.get(name).filter(|_| wanted > 0 && !given) else { continue };
            let used = unavailable_to(&state, name, pod);
            let free = resource.devices.iter().filter(|(id, d)| d.healthy && !used.contains(*id));
            let (near, far): (Vec<_>, Vec<_>) = free.partition(|(_, d)| nodes.is_none_or(|nodes| d.is_on(nodes)));
            let ids = near.into_iter().chain(far).take(wanted).map(|(id, _)| id.clone()).collect();
            let containers = state.set_aside.entry(pod.uid().to_owned()).or_default();
            containers.entry(container.name.clone()).or_default().insert(name.clone(), ids);
        }
    }

    fn give_up(&self, pod: &Pod) {
        self.state.lock().set_aside.remove(pod.uid());
    }
}

/// What is set aside for other pods.
fn of_others<'a>(state: &'a State, resource: &'a str, pod_uid: &'a str) -> impl Iterator<Item = String> + 'a {
    let others = state.set_aside.iter().filter(move |(uid, _)| *uid != pod_uid);
    others.flat_map(|(_, containers)| containers.values()).filter_map(|r| r.get(resource)).flatten().cloned()
}

/// What the next container of a pod cannot have: all that is given or set aside, but for what the pod's init containers
/// pass on.
fn unavailable_to(state: &State, resource: &str, pod: &Pod) -> BTreeSet<String> {
    let mut used: BTreeSet<String> = in_use(state, resource).into_iter().chain(of_others(state, resource, pod.uid())).collect();
    let passes_on = |name: &str| pod.spec().init_containers.iter().flatten().any(|c| c.name == name && !is_sidecar(c));
    let own = state.set_aside.get(pod.uid()).into_iter().flatten().filter(|(name, _)| !passes_on(name));
    used.extend(own.filter_map(|(_, resources)| resources.get(resource)).flatten().cloned());
    used
}

pub(super) fn in_use(state: &State, resource: &str) -> BTreeSet<String> {
    let containers = state.allocations.values().flat_map(BTreeMap::values);
    containers.filter_map(|resources| resources.get(resource)).flat_map(|a| a.ids.iter().cloned()).collect()
}

fn unavailable(wanted: usize, available: usize, resource: &str) -> String {
    format!("requested number of devices unavailable for {resource}. Requested: {wanted}, Available: {available}")
}
