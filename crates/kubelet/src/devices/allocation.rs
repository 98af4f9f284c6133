//! Which devices a container gets.

use super::{Allocation, Device, Manager, State};
use crate::pod::{PodExt, is_sidecar};
use api::k8s::core::v1::{Container, Pod};
use api::quantity::Quantity;
use std::collections::{BTreeMap, BTreeSet};

/// Why a pod cannot have what it asks for; the kubelet rejects it with `UnexpectedAdmissionError`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("Allocate failed due to {0}, which is unexpected")]
pub struct AllocationError(pub String);

impl Manager {
    /// Gives devices to all containers of a pod; those that have theirs keep them. Idempotent.
    pub async fn allocate(&self, pod: &Pod) -> Result<(), AllocationError> {
        let _turn = self.allocating.lock().await;
        // What ended init containers had may be given to those after them.
        let mut reusable: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for container in pod.spec().init_containers.iter().flatten() {
            self.allocate_container(pod, container, &reusable).await?;
            self.update_reusable(pod, container, !is_sidecar(container), &mut reusable);
        }
        for container in &pod.spec().containers {
            self.allocate_container(pod, container, &reusable).await?;
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
    ) -> Result<(), AllocationError> {
        let limits = container.resources.as_ref().and_then(|r| r.limits.clone()).unwrap_or_default();
        for (resource, amount) in limits {
            let wanted = Quantity::parse(&amount.0).map_or(0, |q| usize::try_from(q.value()).unwrap_or(0));
            if wanted == 0 || !self.knows(&resource) {
                continue;
            }
            let none = BTreeSet::new();
            let reusable = reusable.get(&resource).unwrap_or(&none);
            let chosen = self.choose(pod.uid(), &container.name, &resource, wanted, reusable).await;
            let Some(ids) = chosen.map_err(AllocationError)? else { continue };
            self.ask(pod.uid(), &container.name, &resource, ids).await.map_err(AllocationError)?;
        }
        Ok(())
    }

    /// The devices of a container, or `None` where it has them already.
    async fn choose(
        &self,
        pod_uid: &str,
        container: &str,
        resource: &str,
        wanted: usize,
        reusable: &BTreeSet<String>,
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
            let must: BTreeSet<String> = reusable.iter().filter(healthy).take(wanted).cloned().collect();
            let used = in_use(&state, resource);
            let free = |(id, device): (&String, &Device)| {
                (device.healthy && !used.contains(id) || must.contains(id)).then(|| id.clone())
            };
            let available: BTreeSet<String> = known.devices.iter().filter_map(free).collect();
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
        self.save(&state);
        Ok(())
    }
}

pub(super) fn in_use(state: &State, resource: &str) -> BTreeSet<String> {
    let containers = state.allocations.values().flat_map(BTreeMap::values);
    containers.filter_map(|resources| resources.get(resource)).flat_map(|a| a.ids.iter().cloned()).collect()
}

fn unavailable(wanted: usize, available: usize, resource: &str) -> String {
    format!("requested number of devices unavailable for {resource}. Requested: {wanted}, Available: {available}")
}
