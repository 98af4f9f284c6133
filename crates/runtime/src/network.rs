//! What the runtime needs of its neighbours: pod networking and images.

use async_trait::async_trait;
use cri::PortMapping;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// Gives pods their network. Errors are texts for people.
#[async_trait]
pub trait PodNetwork: Send + Sync {
    /// Connects a network namespace (a bind-mounted file) and returns the pod's addresses.
    async fn attach(&self, sandbox_id: &str, netns: &Path, ports: &[PortMapping]) -> Result<Vec<IpAddr>, String>;
    /// Takes everything back, idempotent; the namespace may be gone.
    async fn detach(&self, sandbox_id: &str, netns: &Path) -> Result<(), String>;
    /// Whether pods can be connected; the reason where not.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Gives containers their root file systems. Errors are texts for people.
pub trait ImageSource: Send + Sync {
    /// Finds an image and keeps it from being collected while the container exists.
    fn hold(&self, container_id: &str, image: &str) -> Result<images::ImageInfo, String>;
    /// Ends that; idempotent.
    fn release(&self, container_id: &str) -> Result<(), String>;
}

/// The image store, seen by one node of those that share it.
pub struct NodeImages {
    /// The store.
    pub store: Arc<images::Store>,
    /// Name of the node.
    pub owner: String,
}

impl ImageSource for NodeImages {
    fn hold(&self, container_id: &str, image: &str) -> Result<images::ImageInfo, String> {
        self.store.hold(&self.owner, container_id, image).map_err(|e| e.to_string())
    }

    fn release(&self, container_id: &str) -> Result<(), String> {
        self.store.release(&self.owner, container_id).map_err(|e| e.to_string())
    }
}
