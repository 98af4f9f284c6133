//! The pods and claims of a StatefulSet: names, identity, storage.

use super::{REVISION, Sync};
use crate::{ownership, template};
use api::k8s::apps::v1::{ControllerRevision, StatefulSet};
use api::k8s::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};
use kube::ResourceExt;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal in a pod's name; `None` for a pod that is not named like the set's.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let (parent, number) = pod.metadata.name.as_deref()?.rsplit_once('-')?;
    let plain = number == "0" || !number.starts_with('0');
    number.parse().ok().filter(|n| plain && *n >= 0 && Some(parent) == set.metadata.name.as_deref())
}

/// The pod of an ordinal.
pub(super) fn pod(sync: &Sync, template: &PodTemplateSpec, revision: &ControllerRevision, ordinal: i32) -> Pod {
    let set = sync.set.as_ref();
    let name = format!("{}-{ordinal}", set.name_any());
    let mut pod = template::pod(template, &set.name_any(), ownership::reference_to(set));
    pod.metadata.name = Some(name.clone());
    pod.metadata.namespace = set.namespace();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.into(), name.clone());
    labels.insert(POD_INDEX.into(), ordinal.to_string());
    labels.insert(REVISION.into(), revision.name_any());
    let claims = claims(sync, ordinal);
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = sync.spec.service_name.clone();
    let volume = |(from, claim): (&PersistentVolumeClaim, &PersistentVolumeClaim)| Volume {
        name: from.name_any(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.name_any(),
            read_only: Some(false),
        }),
        ..Default::default()
    };
    let templates = sync.spec.volume_claim_templates.iter().flatten();
    let mut volumes: Vec<Volume> = templates.zip(&claims).map(volume).collect();
    let others = spec.volumes.take().unwrap_or_default();
    volumes.extend(
        others
            .into_iter()
            .filter(|v| !claims.iter().any(|c| c.name_any() == format!("{}-{}", v.name, identity(set, ordinal)))),
    );
    spec.volumes = Some(volumes).filter(|v| !v.is_empty());
    pod
}

fn identity(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.name_any())
}

/// The claims of an ordinal, in the order of their templates.
pub(super) fn claims(sync: &Sync, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let set = sync.set.as_ref();
    let claim = |from: &PersistentVolumeClaim| {
        let mut claim = from.clone();
        claim.metadata.name = Some(format!("{}-{}", from.name_any(), identity(set, ordinal)));
        claim.metadata.namespace = set.namespace();
        let selected = sync.spec.selector.match_labels.clone().unwrap_or_default();
        claim.metadata.labels.get_or_insert_default().extend(selected);
        claim.status = None;
        claim
    };
    sync.spec.volume_claim_templates.iter().flatten().map(claim).collect()
}
