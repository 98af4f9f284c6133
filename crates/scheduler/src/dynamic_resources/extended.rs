//! Extended resources that device classes stand for: the claim that is made of a pod's requests for them.

use super::needs::{ClaimNeeds, Classes};
use crate::Handle;
use crate::resources::Resources;
use api::k8s::core::v1::{Container, ContainerExtendedResourceRequest, Pod};
use api::k8s::resource::v1::{DeviceClass, DeviceRequest, ExactDeviceRequest, ResourceClaim};
use api::machinery::apis::meta::v1::{ObjectMeta, OwnerReference};
use api::quantity::Quantity;
use informer::Informer;
use kube::ResourceExt;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The name of the claim while it exists in memory alone; no claim in the API can have it.
pub(crate) const IN_MEMORY: &str = "<extended-resources>";
const ANNOTATION: &str = "resource.kubernetes.io/extended-resource-claim";
const CLASS_PREFIX: &str = "deviceclass.resource.kubernetes.io/";
/// The informer's index of device classes by the extended resource they stand for.
const INDEX: &str = "extendedResourceName";

/// A claim for one set of extended resources.
pub(crate) struct Extended {
    pub needs: ClaimNeeds,
    /// Which container's resource each request serves.
    pub mappings: Vec<ContainerExtendedResourceRequest>,
}

/// Indexes device classes for [`device_class`].
pub(crate) fn index(classes: &Informer<DeviceClass>) {
    classes.add_index(INDEX, |class| class.spec.extended_resource_name.clone().into_iter().collect());
}

/// The device class that stands for an extended resource: the newest, where several do.
pub(crate) fn device_class(handle: &Handle, resource: &str) -> Option<Arc<DeviceClass>> {
    if let Some(class) = resource.strip_prefix(CLASS_PREFIX) {
        return handle.device_classes.get("", class);
    }
    if !is_extended(resource) {
        return None;
    }
    let classes = handle.device_classes.by_index(INDEX, resource);
    let rank = |c: &Arc<DeviceClass>| (Reverse(c.metadata.creation_timestamp.clone()), c.metadata.name.clone());
    classes.into_iter().min_by_key(rank)
}

fn is_extended(resource: &str) -> bool {
    resource.contains('/') && !resource.contains("kubernetes.io/") && !resource.starts_with("requests.")
}

/// Whether a resource may be had of a device class.
pub(crate) fn is_candidate(resource: &str) -> bool {
    resource.starts_with(CLASS_PREFIX) || is_extended(resource)
}

/// The resources a pod requests that may be had of device classes, with their classes where there are.
pub(crate) fn of_pod(handle: &Handle, requests: &Resources) -> BTreeMap<String, Option<Arc<DeviceClass>>> {
    let wanted = requests.scalar.iter().filter(|(name, amount)| **amount != 0 && is_candidate(name));
    wanted.map(|(name, _)| (name.clone(), device_class(handle, name))).collect()
}

/// The claim that was made for a pod in an earlier cycle.
pub(crate) fn find(handle: &Handle, pod: &Pod) -> Option<Arc<ResourceClaim>> {
    let ours = |c: &&Arc<ResourceClaim>| {
        let mut owners = c.metadata.owner_references.iter().flatten();
        c.annotations().get(ANNOTATION).is_some_and(|v| v == "true")
            && owners.any(|o| o.controller == Some(true) && Some(&o.uid) == pod.metadata.uid.as_ref())
    };
    handle.resource_claims.list_in(&pod.namespace().unwrap_or_default()).iter().find(ours).cloned()
}

/// A claim without requests, which a node's set of resources completes.
pub(crate) fn template(pod: &Pod) -> ResourceClaim {
    let owner = OwnerReference {
        api_version: "v1".into(),
        controller: Some(true),
        kind: "Pod".into(),
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let metadata = ObjectMeta {
        annotations: Some(BTreeMap::from([(ANNOTATION.to_owned(), "true".to_owned())])),
        generate_name: Some(format!("{}-extended-resources-", pod.name_any())),
        name: Some(IN_MEMORY.into()),
        namespace: pod.namespace(),
        owner_references: Some(vec![owner]),
        uid: Some(uuid::Uuid::new_v4().to_string()),
        ..ObjectMeta::default()
    };
    ResourceClaim { metadata, ..ResourceClaim::default() }
}

/// Completes a template with requests for resources, each with its class.
pub(crate) fn complete(
    template: &ResourceClaim,
    pod: &Pod,
    resources: &BTreeMap<String, String>,
    classes: &Classes<'_>,
) -> Result<Extended, String> {
    let (mut requests, mut mappings) = (Vec::new(), Vec::new());
    for (resource, class) in resources {
        let of_resource = Requests::new(pod, resource, class);
        requests.extend(of_resource.requests);
        mappings.extend(of_resource.mappings);
    }
    requests.sort_by(|a, b| a.name.cmp(&b.name));
    let mut claim = template.clone();
    claim.spec.devices.get_or_insert_default().requests = Some(requests);
    Ok(Extended { needs: ClaimNeeds::new(classes, &Arc::new(claim))?, mappings })
}

/// Requests for one resource, and who uses them.
#[derive(Default)]
struct Requests {
    requests: Vec<DeviceRequest>,
    mappings: Vec<ContainerExtendedResourceRequest>,
}

impl Requests {
    /// Containers that run side by side have requests of their own; init containers use those of the containers that
    /// start after them, and share one request for what they need beyond that.
    fn new(pod: &Pod, resource: &str, class: &str) -> Self {
        let init = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten()).map(|c| (c, !is_sidecar(c)));
        let main = pod.spec.iter().flat_map(|s| &s.containers).map(|c| (c, false));
        let containers: Vec<(&Container, bool)> = init.chain(main).collect();
        let mut out = Self::default();
        let mut lasting: Vec<Option<DeviceRequest>> = vec![None; containers.len()];
        for (at, (container, _)) in containers.iter().enumerate().filter(|(_, (_, short))| !short) {
            lasting[at] = out.request((at, container), (resource, class), &[]);
        }
        let (mut passing, first) = (Vec::new(), out.mappings.len());
        for (at, (container, _)) in containers.iter().enumerate().filter(|(_, (_, short))| *short) {
            passing.extend(out.request((at, container), (resource, class), &lasting[at..]));
        }
        // The first of the largest serves them all.
        if let Some(largest) = passing.iter().min_by_key(|r| Reverse(count(r))).cloned() {
            let replaced = |m: &&mut ContainerExtendedResourceRequest| passing.iter().any(|r| r.name == m.request_name);
            out.mappings[first..].iter_mut().filter(replaced).for_each(|m| m.request_name.clone_from(&largest.name));
            out.requests.push(largest);
        }
        out.requests.extend(lasting.into_iter().flatten());
        out
    }

    /// Maps a container's resource to requests it can use and, for the rest, to one of its own.
    fn request(
        &mut self,
        (at, container): (usize, &Container),
        (resource, class): (&str, &str),
        reusable: &[Option<DeviceRequest>],
    ) -> Option<DeviceRequest> {
        let requests = container.resources.as_ref()?.requests.as_ref()?;
        let wanted = Quantity::parse(&requests.get(resource)?.0).ok().filter(Quantity::is_whole)?.value();
        if wanted == 0 {
            return None;
        }
        let mut map = |request: &str| {
            self.mappings.push(ContainerExtendedResourceRequest {
                container_name: container.name.clone(),
                request_name: request.to_owned(),
                resource_name: resource.to_owned(),
            });
        };
        let mut sum = 0;
        for there in reusable.iter().flatten() {
            sum += count(there);
            map(&there.name);
            if sum >= wanted {
                return None;
            }
        }
        let place = requests.keys().position(|name| name == resource).unwrap_or(0);
        let name = format!("container-{at}-request-{place}");
        map(&name);
        let exactly = ExactDeviceRequest {
            allocation_mode: Some("ExactCount".into()),
            count: Some(wanted - sum),
            device_class_name: class.to_owned(),
            ..ExactDeviceRequest::default()
        };
        Some(DeviceRequest { name, exactly: Some(exactly), ..DeviceRequest::default() })
    }
}

fn count(request: &DeviceRequest) -> i64 {
    request.exactly.as_ref().and_then(|e| e.count).unwrap_or(0)
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(init: Value, main: Value, requests: &[(&str, i64)], mappings: &[(&str, &str)]) {
        let pod =
            json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"initContainers": init, "containers": main}});
        let pod: Pod = serde_json::from_value(pod).expect("pod");
        let got = Requests::new(&pod, "x/gpu", "gpu");
        let got_requests: Vec<_> = got.requests.iter().map(|r| (r.name.as_str(), count(r))).collect();
        let got_mappings: Vec<_> =
            got.mappings.iter().map(|m| (m.container_name.as_str(), m.request_name.as_str())).collect();
        assert_eq!((got_requests.as_slice(), got_mappings.as_slice()), (requests, mappings));
    }

    #[test]
    fn init_containers_use_what_later_containers_have() {
        let container = |name: &str, count: &str, sidecar: bool| {
            let mut c = json!({"name": name, "resources": {"requests": {"cpu": "1", "x/gpu": count}}});
            if sidecar {
                c["restartPolicy"] = "Always".into();
            }
            c
        };
        let c = |name: &str, count: &str| container(name, count, false);
        check(json!([]), json!([c("a", "2")]), &[("container-0-request-1", 2)], &[("a", "container-0-request-1")]);
        check(
            json!([c("i", "1")]),
            json!([c("a", "2")]),
            &[("container-1-request-1", 2)],
            &[("a", "container-1-request-1"), ("i", "container-1-request-1")],
        );
        check(
            json!([c("i", "1"), c("j", "3"), container("s", "1", true)]),
            json!([{"name": "a"}]),
            &[("container-1-request-1", 2), ("container-2-request-1", 1)],
            &[
                ("s", "container-2-request-1"),
                ("i", "container-2-request-1"),
                ("j", "container-2-request-1"),
                ("j", "container-1-request-1"),
            ],
        );
    }
}
