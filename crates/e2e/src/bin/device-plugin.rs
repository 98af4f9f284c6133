//! A small device plugin and DRA driver, as a process of its own, for tests of the node.
//!
//! `device-plugin device RESOURCE COUNT DIR STATE` serves devices `dev-0…` from DIR (the kubelet's `device-plugins`);
//! the file STATE/unhealthy lists ids that are not healthy and is read again at SIGHUP. When the kubelet was restarted
//! (its socket is new), the plugin registers anew, as plugins must.
//! `device-plugin dra NAME ENDPOINT REGISTRATION STATE` prepares claims: each allocated claim becomes one CDI device.

use anyhow::Result;
use protos::deviceplugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use protos::deviceplugin::registration_client::RegistrationClient;
use protos::deviceplugin::*;
use protos::dra::dra_plugin_server::{DraPlugin, DraPluginServer};
use protos::dra::{
    NodePrepareResourceResponse, NodePrepareResourcesRequest, NodePrepareResourcesResponse,
    NodeUnprepareResourceResponse, NodeUnprepareResourcesRequest, NodeUnprepareResourcesResponse,
};
use protos::pluginregistration::registration_server::{Registration, RegistrationServer};
use protos::pluginregistration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use protos::socket::{self, Services};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, async_trait};

type Answer<T> = Result<Response<T>, Status>;

fn log(state: &Path, line: String) {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(state.join("calls.log"));
    if let Ok(mut file) = file {
        let _ = writeln!(file, "{line}");
    }
}

#[derive(Clone)]
struct Devices {
    list: watch::Receiver<ListAndWatchResponse>,
    state: PathBuf,
}

fn list(count: usize, state: &Path) -> ListAndWatchResponse {
    let bad = std::fs::read_to_string(state.join("unhealthy")).unwrap_or_default();
    let one = |i: usize| {
        let id = format!("dev-{i}");
        let health = if bad.split_whitespace().any(|b| b == id) { "Unhealthy" } else { "Healthy" };
        let topology = Some(TopologyInfo { nodes: vec![NumaNode { id: 0 }] });
        Device { id, health: health.into(), topology }
    };
    ListAndWatchResponse { devices: (0..count).map(one).collect() }
}

#[async_trait]
impl DevicePlugin for Devices {
    async fn get_device_plugin_options(&self, _: Request<Empty>) -> Answer<DevicePluginOptions> {
        Ok(Response::new(options()))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Answer<BoxStream<ListAndWatchResponse>> {
        let stream = futures::stream::unfold((self.list.clone(), true), |(mut list, first)| async move {
            if !first {
                list.changed().await.ok()?;
            }
            let now = list.borrow_and_update().clone();
            Some((Ok(now), (list, false)))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Answer<PreferredAllocationResponse> {
        // The last ones first, so that a test sees that it was asked.
        let choose = |mut r: ContainerPreferredAllocationRequest| {
            r.available_device_i_ds.sort();
            r.available_device_i_ds.reverse();
            let size = usize::try_from(r.allocation_size).unwrap_or(0);
            r.available_device_i_ds.truncate(size);
            ContainerPreferredAllocationResponse { device_i_ds: r.available_device_i_ds }
        };
        let container_responses = request.into_inner().container_requests.into_iter().map(choose).collect();
        Ok(Response::new(PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(&self, request: Request<AllocateRequest>) -> Answer<AllocateResponse> {
        let one = |r: ContainerAllocateRequest| {
            log(&self.state, format!("Allocate {}", r.devices_ids.join(",")));
            let node = DeviceSpec {
                container_path: "/dev/dongle".into(),
                host_path: "/dev/null".into(),
                permissions: "rw".into(),
            };
            ContainerAllocateResponse {
                envs: [("DONGLES".to_owned(), r.devices_ids.join(","))].into(),
                mounts: vec![Mount {
                    container_path: "/dongle".into(),
                    host_path: self.state.display().to_string(),
                    read_only: true,
                }],
                devices: vec![node],
                annotations: [("example.com/dongle".to_owned(), "yes".to_owned())].into(),
                cdi_devices: Vec::new(),
            }
        };
        let container_responses = request.into_inner().container_requests.into_iter().map(one).collect();
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Answer<PreStartContainerResponse> {
        log(&self.state, format!("PreStart {}", request.into_inner().devices_ids.join(",")));
        Ok(Response::new(PreStartContainerResponse {}))
    }
}

fn options() -> DevicePluginOptions {
    DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: true }
}

async fn devices(resource: &str, count: usize, dir: &Path, state: &Path) -> Result<()> {
    let (sender, receiver) = watch::channel(list(count, state));
    let mut hang_up = signal(SignalKind::hangup())?;
    let name = format!("{}.sock", resource.replace('/', "-"));
    loop {
        let listener = socket::bind(&dir.join(&name), 0o600)?;
        let plugin = Devices { list: receiver.clone(), state: state.to_owned() };
        let server = tokio::spawn(socket::serve(listener, Services::default().with(DevicePluginServer::new(plugin))));
        let identity = register(dir, &name, resource).await;
        loop {
            // A test's helper may look now and then; the socket of the kubelet is what tells of its restart.
            tokio::select! {
                _ = hang_up.recv() => drop(sender.send(list(count, state))),
                () = tokio::time::sleep(Duration::from_millis(200)) => {
                    if inode(&dir.join("kubelet.sock")).is_some_and(|now| Some(now) != identity) {
                        break;
                    }
                }
            }
        }
        server.abort();
    }
}

fn inode(path: &Path) -> Option<(u64, i64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|m| (m.ino(), m.ctime_nsec()))
}

async fn register(dir: &Path, name: &str, resource: &str) -> Option<(u64, i64)> {
    loop {
        let identity = inode(&dir.join("kubelet.sock"));
        if let Ok(channel) = socket::connect(&dir.join("kubelet.sock"), Duration::from_secs(5)).await {
            let request = RegisterRequest {
                version: "v1beta1".into(),
                endpoint: name.to_owned(),
                resource_name: resource.to_owned(),
                options: Some(options()),
            };
            match RegistrationClient::new(channel).register(request).await {
                Ok(_) => return identity,
                Err(status) => eprintln!("cannot register: {status}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[derive(Clone)]
struct Dra {
    name: String,
    endpoint: PathBuf,
    state: PathBuf,
}

#[async_trait]
impl DraPlugin for Dra {
    async fn node_prepare_resources(
        &self,
        request: Request<NodePrepareResourcesRequest>,
    ) -> Answer<NodePrepareResourcesResponse> {
        let one = |claim: protos::dra::Claim| {
            log(&self.state, format!("Prepare {}/{}", claim.namespace, claim.name));
            let device = protos::dra::Device {
                pool_name: "pool".into(),
                device_name: "d0".into(),
                cdi_device_ids: vec!["example.com/dra=d0".into()],
                ..Default::default()
            };
            (claim.uid, NodePrepareResourceResponse { devices: vec![device], error: String::new() })
        };
        let claims = request.into_inner().claims.into_iter().map(one).collect();
        Ok(Response::new(NodePrepareResourcesResponse { claims }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<NodeUnprepareResourcesRequest>,
    ) -> Answer<NodeUnprepareResourcesResponse> {
        let one = |claim: protos::dra::Claim| {
            log(&self.state, format!("Unprepare {}/{}", claim.namespace, claim.name));
            (claim.uid, NodeUnprepareResourceResponse::default())
        };
        let claims = request.into_inner().claims.into_iter().map(one).collect();
        Ok(Response::new(NodeUnprepareResourcesResponse { claims }))
    }
}

#[async_trait]
impl Registration for Dra {
    async fn get_info(&self, _: Request<InfoRequest>) -> Answer<PluginInfo> {
        Ok(Response::new(PluginInfo {
            r#type: "DRAPlugin".into(),
            name: self.name.clone(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: vec!["v1.DRAPlugin".into()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Answer<RegistrationStatusResponse> {
        let status = request.into_inner();
        log(&self.state, format!("registered {} {}", status.plugin_registered, status.error));
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["device", resource, count, dir, state] => {
            std::fs::create_dir_all(state)?;
            devices(resource, count.parse()?, Path::new(dir), Path::new(state)).await
        }
        ["dra", name, endpoint, registration, state] => {
            std::fs::create_dir_all(state)?;
            let driver = Dra { name: (*name).into(), endpoint: endpoint.into(), state: state.into() };
            let served = socket::bind(Path::new(endpoint), 0o600)?;
            let registered = socket::bind(Path::new(registration), 0o600)?;
            let services = Services::default().with(DraPluginServer::new(driver.clone()));
            let registration = Services::default().with(RegistrationServer::new(driver));
            tokio::join!(socket::serve(served, services), socket::serve(registered, registration));
            Ok(())
        }
        _ => {
            anyhow::bail!("usage: device-plugin device RESOURCE COUNT DIR STATE | dra NAME ENDPOINT REGISTRATION STATE")
        }
    }
}
