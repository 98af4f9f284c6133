//! Pod templates: their hash, and the pods made from them.

use api::k8s::core::v1::{Pod, PodTemplateSpec};
use api::machinery::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;

const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// FNV-1a of the canonical JSON of `value` and a collision count, in an alphabet without vowels
/// (so that no word is spelt) that is safe in names and labels.
pub(crate) fn hash(value: &impl Serialize, collisions: Option<i32>) -> String {
    // Serialising an API type cannot fail: its maps have string keys.
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    if let Some(count) = collisions {
        bytes.extend_from_slice(&count.to_le_bytes());
    }
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    safe_encode(&hash.to_string())
}

/// Replaces each byte by a letter of the safe alphabet.
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
        let (a, b) = (hash(&"a", None), hash(&"a", Some(1)));
        assert_ne!(a, b);
        assert_eq!(a, hash(&"a", None));
        assert!(a.bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
