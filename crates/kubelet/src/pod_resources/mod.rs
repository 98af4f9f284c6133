//! `pod-resources/kubelet.sock`: what pods were given, for monitoring agents (v1).

use crate::context::Context;
use crate::devices::Device;
use crate::kubelet::Pods;
use crate::pod::{PodExt, is_sidecar};
use crate::resource_managers::cpuset::CpuSet;
use api::k8s::core::v1::{Container, Pod};
use protos::podresources as p;
use protos::podresources::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use protos::socket::{self, MAX_MESSAGE, Services};
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::{Request, Response, Status, async_trait};

struct Server {
    ctx: Arc<Context>,
    pods: Arc<Pods>,
}

/// Serves as long as the kubelet runs.
pub async fn run(ctx: Arc<Context>, pods: Arc<Pods>) {
    let path = ctx.config.root_dir.join("pod-resources/kubelet.sock");
    match socket::bind(&path, 0o600) {
        Ok(listener) => {
            let service = PodResourcesListerServer::new(Server { ctx, pods }).max_decoding_message_size(MAX_MESSAGE);
            socket::serve(listener, Services::default().with(service)).await;
        }
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "cannot serve pod resources");
            std::future::pending().await
        }
    }
}

#[async_trait]
impl PodResourcesLister for Server {
    async fn list(
        &self,
        _: Request<p::ListPodResourcesRequest>,
    ) -> Result<Response<p::ListPodResourcesResponse>, Status> {
        let pods = self.pods.active();
        let pod_resources = pods.iter().map(|pod| self.of_pod(pod)).collect();
        Ok(Response::new(p::ListPodResourcesResponse { pod_resources }))
    }

    async fn get(
        &self,
        request: Request<p::GetPodResourcesRequest>,
    ) -> Result<Response<p::GetPodResourcesResponse>, Status> {
        let request = request.into_inner();
        let missing = || {
            let (name, namespace) = (&request.pod_name, &request.pod_namespace);
            Status::unknown(format!("pod {name} in namespace {namespace} not found"))
        };
        let pod = self.pods.find(&request.pod_namespace, &request.pod_name).ok_or_else(missing)?;
        Ok(Response::new(p::GetPodResourcesResponse { pod_resources: Some(self.of_pod(&pod)) }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<p::AllocatableResourcesRequest>,
    ) -> Result<Response<p::AllocatableResourcesResponse>, Status> {
        let devices = self.ctx.plugins.devices.allocatable().into_iter();
        let devices = devices.flat_map(|(resource, devices)| one_by_one(&resource, devices)).collect();
        let managers = &self.ctx.managers;
        let memory = managers.allocatable_memory().into_iter().map(|(node, bytes)| memory(node, bytes)).collect();
        Ok(Response::new(p::AllocatableResourcesResponse { devices, cpu_ids: cpu_ids(managers.allocatable_cpus()), memory }))
    }
}

impl Server {
    fn of_pod(&self, pod: &Pod) -> p::PodResources {
        // Init containers have ended, but for sidecars.
        let sidecars = pod.spec().init_containers.iter().flatten().filter(|c| is_sidecar(c));
        let containers = sidecars.chain(&pod.spec().containers).map(|c| self.of_container(pod, c)).collect();
        p::PodResources { name: pod.name().to_owned(), namespace: pod.namespace().to_owned(), containers }
    }

    fn of_container(&self, pod: &Pod, container: &Container) -> p::ContainerResources {
        let plugins = &self.ctx.plugins;
        let devices = plugins.devices.of_container(pod.uid(), &container.name).into_iter();
        let claims = plugins.dra.claims_of(pod, container);
        let dynamic = plugins.dra.of_container(&claims).into_iter().map(|(claim, devices)| p::DynamicResource {
            claim_name: claim.name,
            claim_namespace: claim.namespace,
            claim_resources: devices.into_iter().map(claim_resource).collect(),
        });
        let blocks = self.ctx.managers.memory_of(pod.uid(), &container.name);
        p::ContainerResources {
            name: container.name.clone(),
            devices: devices.flat_map(|(resource, devices)| one_by_one(&resource, devices)).collect(),
            cpu_ids: cpu_ids(self.ctx.managers.exclusive(pod.uid(), &container.name)),
            memory: blocks.into_iter().map(|(node, bytes)| memory(node, bytes)).collect(),
            dynamic_resources: dynamic.collect(),
        }
    }
}

fn cpu_ids(cpus: Option<CpuSet>) -> Vec<i64> {
    cpus.iter().flat_map(CpuSet::iter).map(i64::from).collect()
}

/// Memory of one NUMA node.
fn memory(node: u32, size: u64) -> p::ContainerMemory {
    let topology = Some(p::TopologyInfo { nodes: vec![p::NumaNode { id: i64::from(node) }] });
    p::ContainerMemory { memory_type: "memory".into(), size, topology }
}

fn claim_resource((driver, device): (String, crate::dra::PreparedDevice)) -> p::ClaimResource {
    p::ClaimResource {
        cdi_devices: device.cdi_ids.into_iter().map(|name| p::CdiDevice { name }).collect(),
        driver_name: driver,
        pool_name: device.pool,
        device_name: device.name,
        share_id: device.share_id,
    }
}

/// One entry per device, as each may be near other memory.
fn one_by_one(resource: &str, devices: BTreeMap<String, Device>) -> Vec<p::ContainerDevices> {
    let topology = |numa: Vec<i64>| {
        let nodes = numa.into_iter().map(|id| p::NumaNode { id }).collect::<Vec<_>>();
        (!nodes.is_empty()).then_some(p::TopologyInfo { nodes })
    };
    let one = |(id, device): (String, Device)| p::ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids: vec![id],
        topology: topology(device.numa),
    };
    devices.into_iter().map(one).collect()
}
