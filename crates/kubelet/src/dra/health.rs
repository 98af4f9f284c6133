//! What drivers say of their devices' health.

use crate::context::Context;
use protos::dra_health::dra_resource_health_client::DraResourceHealthClient;
use protos::dra_health::{HealthStatus, NodeWatchResourcesRequest};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::Code;
use tonic::transport::Channel;

/// How drivers name the service.
pub const SERVICE: &str = "v1alpha1.DRAResourceHealth";
const RETRY: Duration = Duration::from_secs(5);
/// Health of which nothing was heard for longer is not known.
const STALE: Duration = Duration::from_secs(30);

/// Health of a device, as last heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    healthy: Option<bool>,
    /// Text of the driver.
    pub message: String,
    until: Instant,
}

impl Health {
    /// `Healthy`, `Unhealthy` or `Unknown`, as a container's status shows it.
    pub fn word(&self) -> &'static str {
        match self.healthy {
            _ if self.until < Instant::now() => "Unknown",
            Some(true) => "Healthy",
            Some(false) => "Unhealthy",
            None => "Unknown",
        }
    }
}

/// Follows a driver's stream, again whenever it ends, until the driver is gone.
pub async fn follow(ctx: Arc<Context>, channel: Channel, driver: String) {
    let mut client = DraResourceHealthClient::new(channel);
    loop {
        match client.node_watch_resources(NodeWatchResourcesRequest {}).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                while let Ok(Some(answer)) = stream.message().await {
                    ctx.plugins.dra.heard(&ctx, &driver, answer.devices);
                }
            }
            Err(status) if status.code() == Code::Unimplemented => return,
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

impl super::Manager {
    fn heard(&self, ctx: &Context, driver: &str, devices: Vec<protos::dra_health::DeviceHealth>) {
        let mut changed = false;
        {
            let mut known = self.health.lock();
            for device in devices {
                let healthy = match device.health() {
                    HealthStatus::Healthy => Some(true),
                    HealthStatus::Unhealthy => Some(false),
                    HealthStatus::Unknown => None,
                };
                let lasts = u64::try_from(device.health_check_timeout_seconds).ok().filter(|s| *s > 0);
                let until = Instant::now() + lasts.map_or(STALE, Duration::from_secs);
                let id = device.device.unwrap_or_default();
                let health = Health { healthy, message: device.message, until };
                let before = known.insert((driver.to_owned(), id.pool_name, id.device_name), health.clone());
                changed |= before.is_none_or(|b| b.healthy != health.healthy || b.message != health.message);
            }
        }
        if changed {
            let claims = self.claims.lock();
            claims
                .values()
                .filter(|c| c.drivers.contains(driver))
                .flat_map(|c| &c.pods)
                .for_each(|uid| (ctx.wake)(uid));
        }
    }

    /// Health of a device, where its driver has told it.
    pub fn health(&self, driver: &str, pool: &str, device: &str) -> Option<Health> {
        self.health.lock().get(&(driver.to_owned(), pool.to_owned(), device.to_owned())).cloned()
    }
}
