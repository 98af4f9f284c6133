//! Claims that wait for their first consumer: which nodes have a volume for them, or can have one made.

use super::SELECTED_NODE;
use super::assumed::Assumed;
use crate::Handle;
use crate::node_info::NodeInfo;
use crate::selectors::node_selector_matches;
use crate::storage_class;
use api::k8s::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use api::k8s::storage::v1::{CSIStorageCapacity, StorageClass};
use api::machinery::api::resource::Quantity as ApiQuantity;
use api::quantity::Quantity;
use api::selector::LabelSelector;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;

const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Why a node is no place for a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lacks {
    Volume,
    Space,
}

/// A claim without a volume.
pub(super) struct Unbound {
    pub claim: Arc<PersistentVolumeClaim>,
    pub request: Quantity,
    /// The node for which a volume is being made already.
    pub selected: Option<String>,
    /// Volumes that would do, the smallest first; one that is kept for the claim alone.
    candidates: Vec<Arc<PersistentVolume>>,
    provision: Option<Provision>,
}

/// How a volume would be made.
struct Provision {
    class: Arc<StorageClass>,
    /// Where there is how much space; `None`: the driver does not say.
    capacities: Option<Vec<Arc<CSIStorageCapacity>>>,
}

impl Unbound {
    pub fn new(handle: &Handle, claim: Arc<PersistentVolumeClaim>, assumed: &Assumed) -> Self {
        let spec = claim.spec.as_ref();
        let request = storage(spec.and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref()));
        let request = request.unwrap_or_else(|| Quantity::from_milli(0));
        let class = handle.classes.get("", storage_class::of_claim(&claim));
        let class = class.filter(|c| !c.provisioner.is_empty() && c.provisioner != NO_PROVISIONER);
        let provision = class.map(|class| Provision { capacities: capacities(handle, &class), class });
        let selected = assumed.node_of(&claim).or_else(|| claim.annotations().get(SELECTED_NODE).map(String::as_str));
        // Where nobody provisions, nobody was told; and a node that is gone has been told in vain.
        let selected = selected.filter(|node| provision.is_some() && handle.nodes.get("", node).is_some());
        Self {
            candidates: candidates(handle, &claim, request, assumed),
            request,
            selected: selected.map(str::to_owned),
            provision,
            claim,
        }
    }

    /// Whether a volume is being made for another node.
    pub fn is_elsewhere(&self, node: &NodeInfo) -> bool {
        self.selected.as_deref().is_some_and(|selected| selected != node.name())
    }

    /// Finds a volume that is not `used`; `None`: one can be made.
    ///
    /// Where one is being made already, those that are there are left alone: the claim would have two.
    pub fn place(
        &self,
        node: &NodeInfo,
        used: impl Fn(&Arc<PersistentVolume>) -> bool,
    ) -> Result<Option<&Arc<PersistentVolume>>, Lacks> {
        let free = |volume: &&Arc<PersistentVolume>| reaches(volume, &node.node) && !used(volume);
        let found = if self.selected.is_none() { self.candidates.iter().find(free) } else { None };
        match (found, &self.provision) {
            (Some(volume), _) => Ok(Some(volume)),
            (None, Some(provision)) => provision.check(node, self.request).map(|()| None),
            (None, None) => Err(Lacks::Volume),
        }
    }
}

impl Provision {
    fn check(&self, node: &NodeInfo, request: Quantity) -> Result<(), Lacks> {
        let allowed = self.class.allowed_topologies.as_deref().unwrap_or_default();
        let holds = |terms: &[api::k8s::core::v1::TopologySelectorLabelRequirement]| {
            let has =
                |key: &str, values: &[String]| node.label(key).is_some_and(|v| values.iter().any(|good| good == v));
            !terms.is_empty() && terms.iter().all(|t| has(&t.key, &t.values))
        };
        let topologies = allowed.iter().map(|t| t.match_label_expressions.as_deref().unwrap_or_default());
        if !allowed.is_empty() && !topologies.into_iter().any(holds) {
            return Err(Lacks::Volume);
        }
        let Some(capacities) = &self.capacities else {
            return Ok(());
        };
        let suffices = |c: &Arc<CSIStorageCapacity>| {
            let parse = |q: &ApiQuantity| Quantity::parse(&q.0).ok();
            let limit = c.maximum_volume_size.as_ref().or(c.capacity.as_ref()).and_then(parse);
            let here = LabelSelector::from_api(c.node_topology.as_ref());
            limit.is_some_and(|limit| limit >= request)
                && here.is_some_and(|s| s.matches_labels(node.node.metadata.labels.as_ref()))
        };
        if capacities.iter().any(suffices) { Ok(()) } else { Err(Lacks::Space) }
    }
}

/// What the driver of a class says about space, where it does.
fn capacities(handle: &Handle, class: &StorageClass) -> Option<Vec<Arc<CSIStorageCapacity>>> {
    let driver = handle.csi_drivers.get("", &class.provisioner)?;
    if driver.spec.storage_capacity != Some(true) {
        return None;
    }
    let mut all = handle.capacities.list();
    all.retain(|c| Some(&c.storage_class_name) == class.metadata.name.as_ref());
    Some(all)
}

fn storage(amounts: Option<&BTreeMap<String, ApiQuantity>>) -> Option<Quantity> {
    Quantity::parse(&amounts?.get("storage")?.0).ok()
}

/// Whether a node reaches a volume.
pub(super) fn reaches(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()).and_then(|a| a.required.as_ref());
    affinity.is_none_or(|selector| node_selector_matches(selector, node))
}

/// Volumes that a claim can be bound to: the one that is kept for it, or those that are free.
fn candidates(
    handle: &Handle,
    claim: &PersistentVolumeClaim,
    request: Quantity,
    assumed: &Assumed,
) -> Vec<Arc<PersistentVolume>> {
    let size = |v: &PersistentVolume| storage(v.spec.as_ref().and_then(|s| s.capacity.as_ref()));
    let mut list = handle.volumes.list();
    list.retain(|v| size(v).is_some_and(|size| size >= request) && suits(v, claim));
    let owner = |v: &Arc<PersistentVolume>| assumed.owner_of(v.metadata.name.as_deref().unwrap_or_default());
    let is_kept = |v: &&Arc<PersistentVolume>| match owner(v) {
        Some(owner) => Some(owner) == claim.metadata.uid.as_deref(),
        None => is_made_for(v, claim),
    };
    if let Some(kept) = list.iter().find(is_kept) {
        return vec![kept.clone()];
    }
    list.retain(|v| owner(v).is_none() && is_free(v) && is_wanted(v, claim));
    list.sort_by_key(|v| size(v));
    list
}

/// Whether a volume names a claim as its own.
pub(super) fn is_made_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let owner = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    owner.is_some_and(|owner| {
        let uid = owner.uid.as_deref().unwrap_or_default();
        owner.name == claim.metadata.name
            && owner.namespace == claim.metadata.namespace
            && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
    })
}

fn is_free(volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_none())
        && volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Available")
}

/// Whether a claim could use a volume, even one that names it as its owner.
fn suits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(have), Some(want)) = (&volume.spec, &claim.spec) else {
        return false;
    };
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".into());
    let attributes = |class: &Option<String>| class.clone().unwrap_or_default();
    volume.metadata.deletion_timestamp.is_none()
        && mode(&have.volume_mode) == mode(&want.volume_mode)
        && attributes(&have.volume_attributes_class_name) == attributes(&want.volume_attributes_class_name)
        && storage_class::of_volume(volume) == storage_class::of_claim(claim)
}

/// Whether a volume is of the kind that a claim asks for.
fn is_wanted(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(have), Some(want)) = (&volume.spec, &claim.spec) else {
        return false;
    };
    let modes = have.access_modes.as_deref().unwrap_or_default();
    let selector = LabelSelector::from_api(want.selector.as_ref());
    want.access_modes.iter().flatten().all(|mode| modes.contains(mode))
        && (want.selector.is_none() || selector.is_some_and(|s| s.matches_labels(volume.metadata.labels.as_ref())))
}
