//! What a node should have attached, by its pods.

use super::Nodes;
use crate::pods;
use api::k8s::core::v1::Pod;
use kube::ResourceExt;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// A volume that pods of a node use.
pub(super) struct Wanted {
    /// Name of the persistent volume.
    pub volume: String,
    /// Driver.
    pub driver: String,
    /// Name in the node's status.
    pub unique: String,
    /// Whether several nodes may have it.
    pub shared: bool,
    /// Who uses it.
    pub pods: Vec<Arc<Pod>>,
}

/// Names of the claims of a pod.
pub(super) fn claims(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let name = |v: &api::k8s::core::v1::Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name_any(), v.name)),
        _ => None,
    };
    volumes.filter_map(name).collect()
}

/// Whether a pod has any.
pub(super) fn has_claims(pod: &Pod) -> bool {
    !claims(pod).is_empty()
}

/// The name the kubelet looks for.
pub(super) fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    let digest = Sha256::digest(format!("{handle}{driver}{node}").as_bytes());
    digest.iter().fold("csi-".to_owned(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A volume's name in a node's status.
pub(super) fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

impl Nodes {
    /// Attachments that should be, by name.
    pub(super) fn wanted(&self, node: &str) -> BTreeMap<String, Wanted> {
        let mut out: BTreeMap<String, Wanted> = BTreeMap::new();
        let here = |p: &Arc<Pod>| pods::node_name(p) == node && !pods::is_terminal(p);
        for pod in self.pods.list().into_iter().filter(here) {
            for name in claims(&pod) {
                let Some((key, wanted)) = self.attachable(&pod, &name, node) else { continue };
                out.entry(key).or_insert(wanted).pods.push(pod.clone());
            }
        }
        out
    }

    fn attachable(&self, pod: &Pod, claim: &str, node: &str) -> Option<(String, Wanted)> {
        let claim = self.claims.get(&pod.namespace().unwrap_or_default(), claim)?;
        let name = claim.spec.as_ref()?.volume_name.clone().filter(|n| !n.is_empty())?;
        let volume = self.volumes.get("", &name)?;
        let spec = volume.spec.as_ref()?;
        let source = spec.csi.as_ref()?;
        let driver = self.drivers.get("", &source.driver);
        if driver.is_some_and(|d| d.spec.attach_required == Some(false)) {
            return None;
        }
        let modes = spec.access_modes.clone().unwrap_or_default();
        let wanted = Wanted {
            volume: name,
            driver: source.driver.clone(),
            unique: unique_name(&source.driver, &source.volume_handle),
            shared: modes.is_empty() || modes.iter().any(|m| m == "ReadWriteMany" || m == "ReadOnlyMany"),
            pods: Vec::new(),
        };
        Some((attachment_name(&source.volume_handle, &source.driver, node), wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_have_the_name_that_kubelets_look_for() {
        let name = attachment_name("vol", "driver", "node");
        assert_eq!(name.len(), 68);
        assert!(name.starts_with("csi-") && name != attachment_name("vol", "driver", "other"));
    }
}
