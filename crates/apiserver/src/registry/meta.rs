//! The metadata that the server fills in.

use api::{Object, meta};
use jiff::Timestamp;
use rand::RngExt;
use serde_json::Value;
use std::collections::HashSet;

/// The letters of generated names: no vowels, no 0, 1 and 3, so that no words come out.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;
/// A generated name is at most this long.
const MAX_GENERATED: usize = 63;

/// A name that starts with `base`.
pub fn generate_name(base: &str) -> String {
    let mut end = base.len().min(MAX_GENERATED - SUFFIX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut random = rand::rng();
    let suffix = (0..SUFFIX).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())]));
    base[..end].chars().chain(suffix).collect()
}

/// A time as metadata shows it.
pub fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What a client cannot give to a new object, dropped before anybody comes to own it.
pub fn wipe(object: &mut Object) {
    for field in ["creationTimestamp", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        meta::set(object, field, Value::Null);
    }
}

/// What a new object gets, whatever the client sent.
pub fn fill_new(object: &mut Object, now: Timestamp) {
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
        meta::set(object, field, Value::Null);
    }
    meta::set(object, "creationTimestamp", time(now));
    meta::set(object, "uid", uuid::Uuid::new_v4().to_string());
}

/// What an update may not change is put back.
pub fn keep_system_fields(new: &mut Object, old: &Object) {
    if meta::uid(new).is_empty() {
        meta::set(new, "uid", meta::uid(old));
    }
    let of_old = |field: &str| old.pointer("/metadata").and_then(|m| m.get(field)).cloned();
    for field in ["creationTimestamp", "generation"] {
        meta::set(new, field, of_old(field).unwrap_or(Value::Null));
    }
    meta::set(new, "selfLink", Value::Null);
    // Only a deletion sets these: validation refuses what an update adds.
    if let Some(since) = of_old("deletionTimestamp") {
        meta::set(new, "deletionTimestamp", since);
    }
    if let (Some(grace), None) =
        (of_old("deletionGracePeriodSeconds"), new.pointer("/metadata/deletionGracePeriodSeconds"))
    {
        meta::set(new, "deletionGracePeriodSeconds", grace);
    }
}

/// Empty maps and lists of the metadata are not kept.
pub fn drop_empty(object: &mut Object) {
    let map = meta::metadata_mut(object);
    map.retain(|key, value| match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.is_empty() || key == "resourceVersion",
        Value::Null => false,
        _ => true,
    });
}

/// An object of a schema with nothing set: what a new object is compared with to see who owns its fields.
pub fn zero(schema: &str) -> Object {
    let mut object = serde_json::json!({});
    schema::complete(schema, &mut object);
    object
}

/// Removes owner references that are given twice, and says so.
pub fn dedup_owners(object: &mut Object, after_mutation: bool) -> Option<String> {
    let owners = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut)?;
    let (mut seen, mut twice): (HashSet<String>, Vec<String>) = Default::default();
    owners.retain(|owner| {
        // Two references to one owner that differ are for validation to judge.
        let is_new = seen.insert(owner.to_string());
        if !is_new {
            twice.push(owner.get("uid").and_then(Value::as_str).unwrap_or("").to_owned());
        }
        is_new
    });
    let when = if after_mutation { " after mutating admission happens" } else { "" };
    (!twice.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, \
             and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            twice.join(", ")
        )
    })
}

/// Who writes: the field manager asked for, or the first word of the user agent.
pub fn manager(field_manager: &str, user_agent: &str) -> String {
    if !field_manager.is_empty() {
        return field_manager.to_owned();
    }
    let first = user_agent.split('/').next().unwrap_or("");
    first.chars().filter(|c| !c.is_control()).take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_generated() {
        let name = generate_name("web-");
        assert!(name.len() == 9 && name.starts_with("web-"));
        assert!(name[4..].bytes().all(|b| ALPHABET.contains(&b)));
        assert_eq!(generate_name(&"x".repeat(100)).len(), 63);
    }

    #[test]
    fn updates_keep_what_is_the_servers() {
        let old =
            json!({"metadata": {"uid": "u", "creationTimestamp": "t", "generation": 2, "deletionTimestamp": "d"}});
        let mut new = json!({"metadata": {"creationTimestamp": "x", "generation": 9, "deletionTimestamp": "y"}});
        keep_system_fields(&mut new, &old);
        assert_eq!(new, old);
    }

    #[test]
    fn owners_are_kept_once() {
        let check = |owners: Value, kept: usize, want: Option<&str>| {
            let mut object = json!({"metadata": {"ownerReferences": owners}});
            let warning = dedup_owners(&mut object, false);
            assert_eq!(object["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(kept));
            let observed = warning.as_deref().and_then(|text| text.rsplit_once("observed: ")).map(|(_, uids)| uids);
            assert_eq!(observed, want);
        };
        check(json!([{"uid": "a", "name": "x"}, {"uid": "a", "name": "y"}]), 2, None);
        check(json!([{"uid": "a"}, {"uid": "a"}, {"uid": "b"}, {"uid": "a"}]), 2, Some("a, a"));
    }

    #[test]
    fn managers_are_named() {
        assert_eq!(manager("", "kubectl/v1.36 (linux)"), "kubectl");
        assert_eq!(manager("me", "kubectl/v1.36"), "me");
    }
}
