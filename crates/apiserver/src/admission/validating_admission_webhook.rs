//! ValidatingAdmissionWebhook: webhooks refuse objects; they are called at the same time.

use super::matching::equivalents;
use super::versions::Version;
use super::webhooks::{Failure, Webhook, show};
use super::{Attributes, Plugin};
use crate::registry::Resource;
use crate::server::ApiServer;
use api::{Object, Status};
use async_trait::async_trait;
use futures::future::{BoxFuture, join_all};

const FAILED_OPEN: &str = "failed-open.validating.webhook.admission.k8s.io/";

/// The plugin.
pub struct ValidatingAdmissionWebhook;

#[async_trait]
impl Plugin for ValidatingAdmissionWebhook {
    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let configurations = server.lives().validating_webhooks.values();
        if configurations.is_empty() || a.is_exempt() {
            return Ok(());
        }
        let others = equivalents(server, a);
        let mut calls: Vec<BoxFuture<'_, Result<(), Status>>> = Vec::new();
        for hook in configurations.iter().flat_map(|c| c.iter()) {
            if let Some(resource) = hook.wants(server, a, object, &others).await? {
                calls.push(one(server, a, (hook, resource), object, calls.len()));
            }
        }
        join_all(calls).await.into_iter().collect()
    }
}

/// Boxed here, where every lifetime has a name: the compiler cannot see that a list of such futures is `Send`.
fn one<'a>(
    server: &'a ApiServer,
    a: &'a Attributes<'a>,
    (hook, resource): (&'a Webhook, &'a Resource),
    object: Option<&'a Object>,
    index: usize,
) -> BoxFuture<'a, Result<(), Status>> {
    Box::pin(async move {
        let version = Version::new(a, resource);
        let shown = show(a, &version, object).await?;
        match hook.call(server, a, (resource, &version), &shown, false).await {
            Ok(_) => Ok(()),
            Err(Failure::Refused(status)) => Err(status),
            Err(Failure::Calling(why)) if hook.ignores_failures => {
                tracing::warn!(webhook = hook.name, why, "failed calling webhook, failing open");
                a.request.annotate(&format!("{FAILED_OPEN}round_0_index_{index}"), &hook.name);
                Ok(())
            }
            Err(Failure::Calling(why)) => Err(hook.failed(&why)),
        }
    })
}
