//! Plugins of the node: CSI drivers, device plugins and DRA drivers, each a process behind a Unix socket.
//!
//! [`watcher`] finds the sockets in `plugins_registry` and asks each what it is; the module of its type takes it
//! over. What a type does lives with its subject: `volumes/csi`, `devices`, `dra`.

pub mod health;
pub mod rpc;
mod watcher;

use crate::context::Context;
use crate::{devices, dra, volumes::csi};
use std::path::Path;
use std::sync::Arc;

/// The plugins of one kubelet.
pub struct Plugins {
    /// CSI drivers.
    pub csi: csi::Drivers,
    /// Device plugins and what they gave to containers.
    pub devices: devices::Manager,
    /// DRA drivers and what they prepared.
    pub dra: dra::Manager,
}

impl Plugins {
    /// Reads what an earlier kubelet gave to pods; no plugin is known yet.
    pub fn new(root_dir: &Path) -> Self {
        Self {
            csi: csi::Drivers::default(),
            devices: devices::Manager::open(&root_dir.join("device-plugins")),
            dra: dra::Manager::open(root_dir),
        }
    }
}

/// Finds plugins and serves what they and monitoring agents call; runs as long as the kubelet.
pub async fn run(ctx: Arc<Context>, pods: Arc<crate::kubelet::Pods>) {
    csi::node_info::initialize(&ctx).await;
    tokio::join!(
        watcher::run(ctx.clone()),
        devices::registration::run(ctx.clone()),
        crate::pod_resources::run(ctx, pods)
    );
}
