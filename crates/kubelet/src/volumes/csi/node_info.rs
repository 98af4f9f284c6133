//! What the API is told of the node's drivers: the CSINode, topology labels and the node id annotation.

use crate::context::{Context, api_message, is_not_found};
use api::k8s::core::v1::Node;
use api::k8s::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use api::machinery::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams, PostParams};
use protos::csi::NodeGetInfoResponse;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const NODE_ID: &str = "csi.volume.kubernetes.io/nodeid";
const MIGRATED: &str = "storage.alpha.kubernetes.io/migrated-plugins";
/// In-tree plugins that CSI has replaced; none is left here.
const MIGRATED_PLUGINS: &str = "kubernetes.io/aws-ebs,kubernetes.io/azure-disk,kubernetes.io/azure-file,kubernetes.io/cinder,kubernetes.io/gce-pd,kubernetes.io/portworx-volume,kubernetes.io/vsphere-volume";
const ATTEMPTS: usize = 10;
const RETRY: Duration = Duration::from_millis(200);

/// Makes the CSINode when the kubelet starts; drivers of an earlier life stay until they register anew.
pub async fn initialize(ctx: &Context) {
    if let Err(error) = change(ctx, |_| false).await {
        tracing::warn!(error, "cannot make the CSINode");
    }
}

/// Adds a driver, or replaces what was said of it.
pub async fn install(ctx: &Context, name: &str, info: &NodeGetInfoResponse) -> Result<(), String> {
    let topology: BTreeMap<String, String> =
        info.accessible_topology.clone().unwrap_or_default().segments.into_iter().collect();
    label_node(ctx, name, &info.node_id, &topology).await?;
    let count = i32::try_from(info.max_volumes_per_node).unwrap_or(i32::MAX);
    let driver = CSINodeDriver {
        name: name.to_owned(),
        node_id: info.node_id.clone(),
        topology_keys: Some(topology.into_keys().collect()),
        allocatable: (count > 0).then_some(VolumeNodeResources { count: Some(count) }),
    };
    change(ctx, |drivers| {
        if drivers.contains(&driver) {
            return false;
        }
        drivers.retain(|d| d.name != driver.name);
        drivers.push(driver.clone());
        true
    })
    .await
}

/// Takes a driver out.
pub async fn uninstall(ctx: &Context, name: &str) -> Result<(), String> {
    change(ctx, |drivers| {
        let before = drivers.len();
        drivers.retain(|d| d.name != name);
        drivers.len() != before
    })
    .await?;
    let node = ctx.node.read().clone();
    let mut ids = node_ids(&node);
    if ids.remove(name).is_none() {
        return Ok(());
    }
    let value = if ids.is_empty() { Value::Null } else { json!(json!(ids).to_string()) };
    patch_node(ctx, json!({"metadata": {"annotations": {NODE_ID: value}}})).await
}

fn node_ids(node: &Node) -> BTreeMap<String, String> {
    let text = node.metadata.annotations.as_ref().and_then(|a| a.get(NODE_ID));
    text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default()
}

async fn label_node(ctx: &Context, name: &str, id: &str, topology: &BTreeMap<String, String>) -> Result<(), String> {
    let node = ctx.node.read().clone();
    let labels = node.metadata.labels.clone().unwrap_or_default();
    for (key, value) in topology {
        if let Some(other) = labels.get(key).filter(|v| *v != value) {
            return Err(format!(
                "detected topology value collision: driver reported {key:?}:{value:?} but existing label is {key:?}:{other:?}"
            ));
        }
    }
    let mut ids = node_ids(&node);
    ids.insert(name.to_owned(), id.to_owned());
    patch_node(ctx, json!({"metadata": {"labels": topology, "annotations": {NODE_ID: json!(ids).to_string()}}})).await
}

async fn patch_node(ctx: &Context, patch: Value) -> Result<(), String> {
    let api: kube::Api<Node> = kube::Api::all(ctx.config.client.clone());
    let patched = api.patch(&ctx.config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.map(drop).map_err(|e| format!("error updating node: {}", api_message(&e)))
}

/// Changes the list of drivers, making the CSINode where there is none; a write that met another is repeated.
async fn change(ctx: &Context, mut edit: impl FnMut(&mut Vec<CSINodeDriver>) -> bool) -> Result<(), String> {
    let api: kube::Api<CSINode> = kube::Api::all(ctx.config.client.clone());
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let written = match api.get(&ctx.config.node_name).await {
            Ok(mut known) => {
                let edited = edit(&mut known.spec.drivers);
                let annotations = known.metadata.annotations.get_or_insert_default();
                if !edited && annotations.contains_key(MIGRATED) {
                    return Ok(());
                }
                annotations.insert(MIGRATED.into(), MIGRATED_PLUGINS.into());
                api.replace(&ctx.config.node_name, &PostParams::default(), &known).await
            }
            Err(error) if is_not_found(&error) => {
                let mut fresh = fresh(ctx);
                edit(&mut fresh.spec.drivers);
                api.create(&PostParams::default(), &fresh).await
            }
            Err(error) => Err(error),
        };
        match written {
            Ok(_) => return Ok(()),
            Err(error) => last = api_message(&error),
        }
        tokio::time::sleep(RETRY).await;
    }
    Err(format!("error updating CSINode: timed out waiting for the condition; caused by: {last}"))
}

fn fresh(ctx: &Context) -> CSINode {
    let node = ctx.node.read().clone();
    let mut fresh = CSINode { metadata: Default::default(), spec: CSINodeSpec { drivers: Vec::new() } };
    fresh.metadata.name = Some(ctx.config.node_name.clone());
    fresh.metadata.annotations = Some([(MIGRATED.to_owned(), MIGRATED_PLUGINS.to_owned())].into());
    // It goes with its node.
    fresh.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: ctx.config.node_name.clone(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }]);
    fresh
}
