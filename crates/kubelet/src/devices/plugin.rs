//! One device plugin: its connection and its calls.

use super::Device;
use crate::context::Context;
use crate::plugins::rpc;
use protos::deviceplugin::device_plugin_client::DevicePluginClient;
use protos::deviceplugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse, ContainerPreferredAllocationRequest,
    DevicePluginOptions, Empty, ListAndWatchResponse, PreStartContainerRequest, PreferredAllocationRequest,
};
use protos::socket::{self, MAX_MESSAGE};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Channel;

const CONNECT: Duration = Duration::from_secs(10);
const PRE_START: Duration = Duration::from_secs(30);

/// A plugin that is connected.
pub struct Plugin {
    /// What it can do.
    pub options: DevicePluginOptions,
    client: DevicePluginClient<Channel>,
}

impl Plugin {
    /// Connects; the options given at registration are asked for where there were none.
    pub async fn connect(endpoint: &Path, options: Option<DevicePluginOptions>) -> Result<Self, String> {
        let channel = socket::connect(endpoint, CONNECT).await.map_err(|e| e.to_string())?;
        let mut client = DevicePluginClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let options = match options {
            Some(options) => options,
            None => {
                let answer = client.get_device_plugin_options(rpc::timed(Empty {})).await;
                answer.map_err(|s| rpc::text(&s))?.into_inner()
            }
        };
        Ok(Self { options, client })
    }

    /// Tells a plugin that a container with its devices is about to start.
    pub async fn pre_start(&self, ids: &BTreeSet<String>) -> Result<(), String> {
        let call = PreStartContainerRequest { devices_ids: ids.iter().cloned().collect() };
        let mut request = rpc::timed(call);
        request.set_timeout(PRE_START);
        self.client.clone().pre_start_container(request).await.map(drop).map_err(|s| rpc::text(&s))
    }

    /// Which of the available devices it would choose.
    pub async fn prefer(
        &self,
        available: &BTreeSet<String>,
        required: &BTreeSet<String>,
        count: usize,
    ) -> Result<Vec<String>, String> {
        let one = ContainerPreferredAllocationRequest {
            available_device_i_ds: available.iter().cloned().collect(),
            must_include_device_i_ds: required.iter().cloned().collect(),
            allocation_size: i32::try_from(count).unwrap_or(i32::MAX),
        };
        let call = PreferredAllocationRequest { container_requests: vec![one] };
        let answer = self.client.clone().get_preferred_allocation(rpc::timed(call)).await;
        let answer = answer.map_err(|s| rpc::text(&s))?.into_inner();
        Ok(answer.container_responses.into_iter().next().map(|r| r.device_i_ds).unwrap_or_default())
    }

    /// Gives devices to a container.
    pub async fn allocate(&self, ids: &BTreeSet<String>) -> Result<ContainerAllocateResponse, String> {
        let one = ContainerAllocateRequest { devices_ids: ids.iter().cloned().collect() };
        let call = AllocateRequest { container_requests: vec![one] };
        let answer = self.client.clone().allocate(rpc::timed(call)).await.map_err(|s| rpc::text(&s))?.into_inner();
        answer
            .container_responses
            .into_iter()
            .next()
            .ok_or_else(|| format!("no containers return in allocation response {}", "container_responses:[]"))
    }

    /// Follows its list of devices until the stream ends.
    async fn follow(self: &Arc<Self>, ctx: &Context, name: &str) -> Result<(), String> {
        let answer = self.client.clone().list_and_watch(Empty {}).await;
        let mut stream = answer.map_err(|s| rpc::text(&s))?.into_inner();
        while let Some(list) = stream.message().await.map_err(|s| rpc::text(&s))? {
            wake(ctx, &ctx.plugins.devices.listed(name, self, devices(list)));
        }
        Ok(())
    }
}

fn devices(list: ListAndWatchResponse) -> BTreeMap<String, Device> {
    let device = |d: protos::deviceplugin::Device| {
        let numa = d.topology.unwrap_or_default().nodes.into_iter().map(|n| n.id).collect();
        (d.id, Device { healthy: d.health == "Healthy", numa })
    };
    list.devices.into_iter().map(device).collect()
}

/// The life of a registered plugin: connected, followed, gone.
pub async fn run(ctx: Arc<Context>, name: String, endpoint: std::path::PathBuf, options: Option<DevicePluginOptions>) {
    let manager = &ctx.plugins.devices;
    let plugin = match Plugin::connect(&endpoint, options).await {
        Ok(plugin) => Arc::new(plugin),
        Err(error) => return tracing::warn!(resource = name, error, "cannot connect to a device plugin"),
    };
    manager.connected(&name, plugin.clone());
    tracing::info!(resource = name, "a device plugin has registered");
    if let Err(error) = plugin.follow(&ctx, &name).await {
        tracing::warn!(resource = name, error, "a device plugin's list of devices ended");
    }
    wake(&ctx, &manager.disconnected(&name, &plugin));
}

/// Has the health of devices shown by the status of those who have them.
fn wake(ctx: &Context, pods: &[String]) {
    pods.iter().for_each(|uid| (ctx.wake)(uid));
}
