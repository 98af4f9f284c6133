//! The node's Lease in `kube-node-lease`: its heartbeat.

use crate::context::{Context, api_message, is_not_found};
use api::k8s::coordination::v1::{Lease, LeaseSpec};
use api::machinery::apis::meta::v1::{MicroTime, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const NAMESPACE: &str = "kube-node-lease";

/// Renews the lease four times in its duration; a failed renewal is repeated sooner.
pub async fn run(ctx: Arc<Context>) {
    let api: kube::Api<Lease> = kube::Api::namespaced(ctx.config.client.clone(), NAMESPACE);
    let renew_after = Duration::from_secs(u64::try_from(duration(&ctx)).unwrap_or_default().max(1)) / 4;
    let mut retry = Duration::from_millis(200);
    loop {
        let wait = match renew(&ctx, &api).await {
            Ok(()) => {
                retry = Duration::from_millis(200);
                renew_after
            }
            Err(error) => {
                tracing::warn!(error = api_message(&error), "cannot renew the node's lease");
                retry = (retry * 2).min(renew_after);
                retry
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Seconds.
fn duration(ctx: &Context) -> i32 {
    ctx.config.settings.node_lease_duration_seconds
}

async fn renew(ctx: &Context, api: &kube::Api<Lease>) -> kube::Result<()> {
    let now = MicroTime(jiff::Timestamp::now());
    let node = ctx.node.read().clone();
    let owner = node.metadata.uid.clone().map(|uid| OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: ctx.config.node_name.clone(),
        uid,
        ..OwnerReference::default()
    });
    let patch = json!({
        "metadata": {"ownerReferences": owner.iter().collect::<Vec<_>>()},
        "spec": {"holderIdentity": ctx.config.node_name, "leaseDurationSeconds": duration(ctx), "renewTime": now},
    });
    match api.patch(&ctx.config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(error) if is_not_found(&error) => {}
        result => return result.map(drop),
    }
    let mut lease = Lease::default();
    lease.metadata.name = Some(ctx.config.node_name.clone());
    lease.metadata.owner_references = owner.map(|o| vec![o]);
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(ctx.config.node_name.clone()),
        lease_duration_seconds: Some(duration(ctx)),
        renew_time: Some(now),
        ..LeaseSpec::default()
    });
    api.create(&PostParams::default(), &lease).await.map(drop)
}
