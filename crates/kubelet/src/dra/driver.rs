//! One DRA driver: its connection and its calls.

use crate::plugins::rpc;
use parking_lot::Mutex;
use protos::dra::dra_plugin_client::DraPluginClient;
use protos::dra::{Claim, NodePrepareResourcesRequest, NodeUnprepareResourcesRequest};
use protos::socket::{self, MAX_MESSAGE};
use std::path::Path;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::PreparedDevice;

/// How drivers name the version of the service that is spoken here.
pub const SERVICE: &str = "v1.DRAPlugin";

/// A driver that is registered.
pub struct Driver {
    name: String,
    channel: Channel,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Driver {
    /// Connects when it is first called.
    pub fn new(name: &str, endpoint: &Path) -> Self {
        Self { name: name.to_owned(), channel: socket::connect_lazily(endpoint), task: Mutex::default() }
    }

    /// A task that ends with the driver.
    pub fn keep(&self, task: JoinHandle<()>) {
        *self.task.lock() = Some(task);
    }

    /// The connection.
    pub fn clone_channel(&self) -> Channel {
        self.channel.clone()
    }

    fn client(&self) -> DraPluginClient<Channel> {
        DraPluginClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Prepares a claim.
    pub async fn prepare(&self, claim: Claim) -> Result<Vec<PreparedDevice>, String> {
        let uid = claim.uid.clone();
        let fail = |why: String| format!("NodePrepareResources failed for driver {}: {why}", self.name);
        let call = NodePrepareResourcesRequest { claims: vec![claim] };
        let answer = self.client().node_prepare_resources(rpc::timed(call)).await.map_err(|s| fail(rpc::text(&s)))?;
        let mut claims = answer.into_inner().claims;
        let one = claims.remove(&uid).ok_or_else(|| fail(format!("claim {uid} is missing in the response")))?;
        if !one.error.is_empty() {
            return Err(fail(one.error));
        }
        let device = |d: protos::dra::Device| PreparedDevice {
            requests: d.request_names,
            pool: d.pool_name,
            name: d.device_name,
            cdi_ids: d.cdi_device_ids,
            share_id: d.share_id,
        };
        Ok(one.devices.into_iter().map(device).collect())
    }

    /// Undoes that.
    pub async fn unprepare(&self, claim: Claim) -> Result<(), String> {
        let uid = claim.uid.clone();
        let fail = |why: String| format!("NodeUnprepareResources failed for driver {}: {why}", self.name);
        let call = NodeUnprepareResourcesRequest { claims: vec![claim] };
        let answer = self.client().node_unprepare_resources(rpc::timed(call)).await.map_err(|s| fail(rpc::text(&s)))?;
        let mut claims = answer.into_inner().claims;
        let one = claims.remove(&uid).ok_or_else(|| fail(format!("claim {uid} is missing in the response")))?;
        if one.error.is_empty() { Ok(()) } else { Err(fail(one.error)) }
    }
}
