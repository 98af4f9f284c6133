//! The storage class of claims and volumes: that of the annotation, which was there before the field, comes first.

use api::k8s::core::v1::{PersistentVolume, PersistentVolumeClaim};
use api::machinery::apis::meta::v1::ObjectMeta;

const ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The class of a claim; empty: none.
pub(crate) fn of_claim(claim: &PersistentVolumeClaim) -> &str {
    class(&claim.metadata, claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()))
}

/// The class of a volume; empty: none.
pub(crate) fn of_volume(volume: &PersistentVolume) -> &str {
    class(&volume.metadata, volume.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()))
}

fn class<'a>(metadata: &'a ObjectMeta, field: Option<&'a str>) -> &'a str {
    let annotation = metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION)).map(String::as_str);
    annotation.or(field).unwrap_or_default()
}
