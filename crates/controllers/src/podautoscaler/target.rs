//! What an autoscaler scales: found by kind, read and written through its scale.

use crate::discovery::{self, Served};
use crate::ownership::message;
use api::k8s::autoscaling::v1::Scale;
use kube::Client;
use parking_lot::Mutex;
use std::sync::Arc;

/// Finds resources by kind and handles their scales.
pub(super) struct Targets {
    client: Client,
    /// What the server served when it was last asked; asked again for a kind that is not in it.
    served: Mutex<Arc<Vec<Served>>>,
}

impl Targets {
    pub fn new(client: Client) -> Self {
        Self { client, served: Mutex::default() }
    }

    /// `deployments.apps` of a group and kind.
    pub async fn resource(&self, group: &str, kind: &str) -> Result<String, String> {
        Ok(self.find(group, kind).await?.group_resource())
    }

    async fn find(&self, group: &str, kind: &str) -> Result<Served, String> {
        let known = |all: &[Served]| all.iter().find(|s| s.resource.group == group && s.resource.kind == kind).cloned();
        if let Some(found) = known(&self.served.lock()) {
            return Ok(found);
        }
        let discovered = discovery::resources(&self.client).await.map_err(|error| message(&error))?;
        let all = Arc::new(discovered.resources);
        *self.served.lock() = all.clone();
        known(&all).ok_or_else(|| match group {
            "" => format!("no matches for kind {kind:?} in group \"\""),
            group => format!("no matches for kind {kind:?} in group {group:?}"),
        })
    }

    /// The path of a target's scale.
    pub async fn path(&self, namespace: &str, api_version: &str, kind: &str, name: &str) -> Result<String, String> {
        if api_version.matches('/').count() > 1 {
            return Err(format!("unexpected GroupVersion string: {api_version}"));
        }
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let resource = self.find(group, kind).await?.resource;
        let root = if resource.group.is_empty() { "api" } else { "apis" };
        Ok(format!("/{root}/{}/namespaces/{namespace}/{}/{name}/scale", resource.api_version, resource.plural))
    }

    pub async fn scale(&self, path: &str) -> Result<Scale, kube::Error> {
        let request = http::Request::get(path).header("accept", "application/json").body(Vec::new());
        self.client.request(request.map_err(kube::Error::HttpError)?).await
    }

    /// Sets the number of replicas; where another writer was faster, once more on the newest scale.
    pub async fn set(&self, path: &str, mut scale: Scale, replicas: i32) -> Result<(), kube::Error> {
        const ATTEMPTS: usize = 5;
        let mut attempt = 1;
        loop {
            scale.spec.get_or_insert_default().replicas = Some(replicas);
            let body = serde_json::to_vec(&scale).map_err(kube::Error::SerdeError)?;
            let request = http::Request::put(path).header("content-type", "application/json").body(body);
            match self.client.request::<Scale>(request.map_err(kube::Error::HttpError)?).await {
                Err(kube::Error::Api(status)) if status.code == 409 && attempt < ATTEMPTS => {
                    (attempt, scale) = (attempt + 1, self.scale(path).await?);
                }
                outcome => return outcome.map(drop),
            }
        }
    }
}
