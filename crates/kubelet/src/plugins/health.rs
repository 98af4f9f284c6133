//! `allocatedResourcesStatus`: health of the devices a container was given.

use super::Plugins;
use crate::dra::PreparedDevice;
use crate::pod::PodExt;
use api::k8s::core::v1::{Container, Pod, ResourceHealth, ResourceStatus};

/// What a container's status says of its devices; `None` for one that has none.
pub fn of_container(plugins: &Plugins, pod: &Pod, container: &Container) -> Option<Vec<ResourceStatus>> {
    let mut out = devices(plugins, pod, container);
    for (name, uid, request) in plugins.dra.named_claims_of(pod, container) {
        let given = plugins.dra.of_container(&[(uid, request.clone())]);
        let mut resources: Vec<ResourceHealth> = Vec::new();
        for (driver, device) in given.iter().flat_map(|(_, devices)| devices) {
            let one = dynamic(plugins, driver, device);
            if !resources.iter().any(|known| known.resource_id == one.resource_id) {
                resources.push(one);
            }
        }
        if !resources.is_empty() {
            let request = request.map(|r| format!("/{r}")).unwrap_or_default();
            out.push(ResourceStatus { name: format!("claim:{name}{request}"), resources: Some(resources) });
        }
    }
    (!out.is_empty()).then_some(out)
}

fn devices(plugins: &Plugins, pod: &Pod, container: &Container) -> Vec<ResourceStatus> {
    let given = plugins.devices.of_container(pod.uid(), &container.name).into_iter();
    let health = |(id, device): (String, crate::devices::Device)| ResourceHealth {
        health: Some(if device.healthy { "Healthy" } else { "Unhealthy" }.to_owned()),
        message: None,
        resource_id: id,
    };
    let status = |(name, devices): (String, std::collections::BTreeMap<_, _>)| ResourceStatus {
        name,
        resources: Some(devices.into_iter().map(health).collect()),
    };
    given.map(status).collect()
}

fn dynamic(plugins: &Plugins, driver: &str, device: &PreparedDevice) -> ResourceHealth {
    let health = plugins.dra.health(driver, &device.pool, &device.name);
    let by_name = || format!("{driver}/{}/{}", device.pool, device.name);
    ResourceHealth {
        health: Some(health.as_ref().map_or("Unknown", |h| h.word()).to_owned()),
        message: health.map(|h| h.message).filter(|m| !m.is_empty()),
        resource_id: device.cdi_ids.first().cloned().unwrap_or_else(by_name),
    }
}
