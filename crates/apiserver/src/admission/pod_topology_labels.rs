//! PodTopologyLabels: a pod gets the zone and region of its node as labels when it is bound.

use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use api::{Object, Status, meta};
use async_trait::async_trait;
use resources::field::Fields;
use serde_json::json;

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// The plugin.
pub struct PodTopologyLabels;

#[async_trait]
impl Plugin for PodTopologyLabels {
    async fn admit(&self, server: &ApiServer, a: &Attributes<'_>, object: &mut Object) -> Result<(), Status> {
        let pods = a.resource.group.is_empty() && a.resource.resource == "pods";
        if a.operation != Operation::Create || !pods {
            return Ok(());
        }
        // A binding's labels are given to its pod.
        let node = match a.subresource {
            "" => object.at("spec").text("nodeName").to_owned(),
            "binding" if object.at("target").text("kind") == "Node" => object.at("target").text("name").to_owned(),
            _ => return Ok(()),
        };
        let Some(store) = server.store("", "nodes").filter(|_| !node.is_empty()) else { return Ok(()) };
        let Some(stored) = store.get("", &node).await? else { return Ok(()) };
        for key in LABELS {
            if let Some(value) = stored.meta.label(key) {
                let labels = meta::metadata_mut(object).entry("labels").or_insert_with(|| json!({}));
                if labels.is_null() {
                    *labels = json!({});
                }
                labels[key] = value.into();
            }
        }
        Ok(())
    }
}
