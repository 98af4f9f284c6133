//! Which volume a claim gets.

use super::{class_of_claim, class_of_volume, is_for};
use api::k8s::core::v1::{PersistentVolume, PersistentVolumeClaim};
use api::machinery::api::resource::Quantity as ApiQuantity;
use api::quantity::Quantity;
use api::selector::LabelSelector;
use std::collections::BTreeMap;
use std::sync::Arc;

fn storage(list: Option<&BTreeMap<String, ApiQuantity>>) -> i64 {
    list.and_then(|l| l.get("storage")).and_then(|q| Quantity::parse(&q.0).ok()).map_or(0, |q| q.value())
}

/// Bytes a claim asks for.
pub(super) fn requested(claim: &PersistentVolumeClaim) -> i64 {
    storage(claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref()))
}

fn capacity(volume: &PersistentVolume) -> i64 {
    storage(volume.spec.as_ref().and_then(|s| s.capacity.as_ref()))
}

fn mode(mode: Option<&String>) -> &str {
    mode.map_or("Filesystem", String::as_str)
}

/// Whether file system and block agree.
pub(super) fn modes_agree(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of_volume = volume.spec.as_ref().and_then(|s| s.volume_mode.as_ref());
    mode(of_volume) == mode(claim.spec.as_ref().and_then(|s| s.volume_mode.as_ref()))
}

fn access_fits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let offered = volume.spec.as_ref().and_then(|s| s.access_modes.clone()).unwrap_or_default();
    claim.spec.iter().flat_map(|s| s.access_modes.iter().flatten()).all(|wanted| offered.contains(wanted))
}

fn attributes_class(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let text = |name: Option<&String>| name.cloned().unwrap_or_default();
    text(volume.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_ref()))
        == text(claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_ref()))
}

/// Why a volume that a claim names does not satisfy it.
pub(super) fn refused(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), &'static str> {
    let checks = [
        (capacity(volume) >= requested(claim), "requested PV is too small"),
        (class_of_volume(volume) == class_of_claim(claim), "storageClassName does not match"),
        (attributes_class(volume, claim), "volumeAttributesClassName does not match"),
        (modes_agree(volume, claim), "incompatible volumeMode"),
        (access_fits(volume, claim), "incompatible accessMode"),
    ];
    checks.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(why))
}

fn selected(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(selector) = claim.spec.as_ref().and_then(|s| s.selector.as_ref()) else { return true };
    LabelSelector::from_api(Some(selector)).is_some_and(|s| s.matches_labels(volume.metadata.labels.as_ref()))
}

/// The volume that fits best: one made for the claim, else the smallest free one that satisfies it. With `delayed`
/// only one made for the claim: the scheduler chooses otherwise.
pub(super) fn find(
    volumes: &[Arc<PersistentVolume>],
    claim: &PersistentVolumeClaim,
    delayed: bool,
) -> Option<Arc<PersistentVolume>> {
    let made_for = volumes.iter().find(|v| is_for(v, claim) && refused(v, claim).is_ok());
    if made_for.is_some() || delayed {
        return made_for.cloned();
    }
    let free = |v: &&Arc<PersistentVolume>| {
        v.spec.as_ref().is_some_and(|s| s.claim_ref.is_none())
            && v.metadata.deletion_timestamp.is_none()
            && v.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Available")
            && refused(v, claim).is_ok()
            && selected(v, claim)
    };
    volumes.iter().filter(free).min_by_key(|v| (capacity(v), v.metadata.name.clone())).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn volume(name: &str, size: &str, more: Value) -> Arc<PersistentVolume> {
        let mut value = json!({"metadata": {"name": name, "labels": {"n": name}}, "status": {"phase": "Available"},
            "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "s"}});
        for (key, field) in more.as_object().into_iter().flatten() {
            value["spec"][key] = field.clone();
        }
        Arc::new(serde_json::from_value(value).expect("volume"))
    }

    fn claim(more: Value) -> PersistentVolumeClaim {
        let mut value = json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u"},
            "spec": {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"], "storageClassName": "s"}});
        for (key, field) in more.as_object().into_iter().flatten() {
            value["spec"][key] = field.clone();
        }
        serde_json::from_value(value).expect("claim")
    }

    #[test]
    fn the_smallest_that_fits_or_the_one_made_for_it() {
        let check =
            |volumes: &[Arc<PersistentVolume>], claim: &PersistentVolumeClaim, delayed, expect: Option<&str>| {
                let found = find(volumes, claim, delayed);
                assert_eq!(found.and_then(|v| v.metadata.name.clone()).as_deref(), expect);
            };
        let (small, big, tiny) =
            (volume("small", "1Gi", json!({})), volume("big", "2Gi", json!({})), volume("tiny", "1Mi", json!({})));
        check(&[big.clone(), small.clone(), tiny.clone()], &claim(json!({})), false, Some("small"));
        check(&[big.clone(), tiny.clone()], &claim(json!({})), false, Some("big"));
        check(&[tiny], &claim(json!({})), false, None);
        check(&[small.clone()], &claim(json!({})), true, None);
        let reserved = volume("reserved", "5Gi", json!({"claimRef": {"name": "c", "namespace": "ns"}}));
        check(&[small.clone(), reserved.clone()], &claim(json!({})), true, Some("reserved"));
        let other = volume("other", "1Gi", json!({"claimRef": {"name": "x", "namespace": "ns"}}));
        check(&[other], &claim(json!({})), false, None);
        check(&[small.clone()], &claim(json!({"volumeMode": "Block"})), false, None);
        check(&[small.clone()], &claim(json!({"accessModes": ["ReadWriteMany"]})), false, None);
        check(&[small.clone(), big], &claim(json!({"selector": {"matchLabels": {"n": "big"}}})), false, Some("big"));
        assert_eq!(refused(&small, &claim(json!({"storageClassName": "t"}))), Err("storageClassName does not match"));
    }
}
