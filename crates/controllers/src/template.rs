//! Pod templates: their hash, and the pods made from them.

use api::k8s::core::v1::{Pod, PodTemplateSpec};
use api::machinery::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::Value;

const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// The hash that a ReplicaSet's name and its pods carry: FNV-1a of the template's dump, as in
/// Kubernetes, so that the sets of a cluster restored from a backup are found again.
pub(crate) fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // Serialising an API type cannot fail: its maps have string keys.
    let value = serde_json::to_value(template).unwrap_or_default();
    let mut bytes = schema::dump("io.k8s.api.core.v1.PodTemplateSpec", &value).into_bytes();
    if let Some(count) = collisions {
        bytes.extend_from_slice(&i64::from(count).to_le_bytes());
    }
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(FNV_PRIME);
    safe_encode(&bytes.iter().fold(FNV_OFFSET, step).to_string())
}

/// The hash that a StatefulSet's revision is named after: FNV-1 of its data.
pub(crate) fn revision_hash(data: &Value, collisions: i32) -> String {
    let text = format!("{data}{collisions}");
    let escaped = text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    let step = |hash: u32, byte| hash.wrapping_mul(FNV_PRIME) ^ u32::from(byte);
    safe_encode(&escaped.bytes().fold(FNV_OFFSET, step).to_string())
}

/// Replaces each byte by a letter of an alphabet that is safe in names and labels and, without vowels, spells no word.
pub(crate) fn safe_encode(text: &str) -> String {
    text.bytes().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
}

/// A pod made from a template, named `prefix` plus a random ending.
pub(crate) fn pod(template: &PodTemplateSpec, prefix: &str, owner: OwnerReference) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: Some(prefix_for(prefix)),
        labels: from.labels,
        annotations: from.annotations,
        finalizers: from.finalizers,
        owner_references: Some(vec![owner]),
        ..Default::default()
    };
    Pod { metadata, spec: template.spec.clone(), status: None }
}

/// `name-`, which the server shortens where the whole name would be too long.
fn prefix_for(name: &str) -> String {
    format!("{name}-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_stable_and_differ() {
        assert_eq!(safe_encode("0123456789"), "456789bcdf");
        // a template and its hash in a real cluster
        let spec = serde_json::json!({
            "metadata": {"labels": {"a": "b"}},
            "spec": {
                "containers": [{
                    "name": "c", "image": "registry.test/a:1", "resources": {}, "imagePullPolicy": "IfNotPresent",
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                "securityContext": {}, "schedulerName": "contract-none",
            },
        });
        let template: PodTemplateSpec = serde_json::from_value(spec).expect("a template");
        assert_ne!(hash(&template, None), hash(&template, Some(1)));
        assert_eq!(hash(&template, None), "647dd5bd7f");
        assert_ne!(revision_hash(&Value::Null, 0), revision_hash(&Value::Null, 1));
    }
}
