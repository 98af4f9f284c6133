//! Static pods: pods of files in a directory of this node, with mirror pods that show them in the API.
//!
//! [`source`] watches the directory and reads its files; [`mirror`] keeps one object in the API for each. A static
//! pod's uid is the hash of its file, so another content is another pod: the old one ends, then the new one starts.

pub mod mirror;
pub mod source;

use api::k8s::core::v1::Pod;

/// Annotation with the hash of the file; its value is the pod's uid.
pub const HASH: &str = "kubernetes.io/config.hash";
/// Annotation that says where a pod comes from.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// Annotation with the time the kubelet first saw the pod.
pub const SEEN: &str = "kubernetes.io/config.seen";
/// Annotation of a mirror pod: the hash of the static pod it shows.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Whether a pod comes from a file of this node.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_none() && annotation(pod, SOURCE).is_some_and(|source| source != "api")
}

/// Whether a pod of the API only shows a static one.
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// `<name>_<namespace>`: what a static pod and its mirror have in common.
pub fn full_name(pod: &Pod) -> String {
    use crate::pod::PodExt;
    format!("{}_{}", pod.name(), pod.namespace())
}
