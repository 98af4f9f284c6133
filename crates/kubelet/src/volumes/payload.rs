//! Files that the volumes made of API objects consist of.

use super::Request;
use super::atomic_writer::{FileProjection, Payload};
use crate::env::field_ref;
use api::k8s::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Secret};
use std::collections::BTreeMap;

/// Which keys of an object become files, and how.
pub struct Selection<'a> {
    /// Keys and paths; none: all keys under their own names.
    pub items: &'a [KeyToPath],
    /// Mode of files that name none.
    pub mode: u32,
    /// Whether a missing key is passed over.
    pub optional: bool,
}

/// Turns an `i32` mode of the API into permission bits.
pub fn mode(value: Option<i32>, default: u32) -> u32 {
    value.and_then(|m| u32::try_from(m).ok()).unwrap_or(default) & 0o777
}

/// Files of a config map.
pub fn config_map(object: Option<&ConfigMap>, selection: &Selection<'_>) -> Result<Payload, String> {
    let mut data: BTreeMap<&str, &[u8]> = BTreeMap::new();
    if let Some(object) = object {
        data.extend(object.data.iter().flatten().map(|(k, v)| (k.as_str(), v.as_bytes())));
        data.extend(object.binary_data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice())));
    }
    select(&data, selection, "configmap references non-existent config key")
}

/// Files of a secret.
pub fn secret(object: Option<&Secret>, selection: &Selection<'_>) -> Result<Payload, String> {
    let data = object.and_then(|o| o.data.as_ref());
    let data = data.into_iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice())).collect();
    select(&data, selection, "references non-existent secret key")
}

fn select(data: &BTreeMap<&str, &[u8]>, selection: &Selection<'_>, missing: &str) -> Result<Payload, String> {
    let file = |data: &[u8], mode: u32| FileProjection { data: data.to_vec(), mode, user: None };
    if selection.items.is_empty() {
        return Ok(data.iter().map(|(key, value)| ((*key).to_owned(), file(value, selection.mode))).collect());
    }
    let mut out = Payload::new();
    for item in selection.items {
        match data.get(item.key.as_str()) {
            Some(value) => drop(out.insert(item.path.clone(), file(value, mode(item.mode, selection.mode)))),
            None if selection.optional => {}
            None => return Err(format!("{missing}: {}", item.key)),
        }
    }
    Ok(out)
}

/// Files of the downward API.
pub fn downward_api(
    request: &Request<'_>,
    items: &[DownwardAPIVolumeFile],
    default_mode: u32,
) -> Result<Payload, String> {
    let mut out = Payload::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(selector), _) => field_ref::field(selector, request.pod, request.facts)?,
            (_, Some(selector)) => field_ref::resource(selector, request.pod, None, request.facts)?,
            _ => continue,
        };
        let file = FileProjection { data: text.into_bytes(), mode: mode(item.mode, default_mode), user: None };
        out.insert(item.path.clone(), file);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_select_rename_and_may_be_missing() {
        let map: ConfigMap =
            serde_json::from_value(json!({"data": {"a": "1"}, "binaryData": {"b": "Mg=="}})).expect("map");
        let item = |key: &str| KeyToPath { key: key.into(), path: format!("d/{key}"), mode: Some(0o400) };
        let check = |items: &[KeyToPath], optional: bool, expect: Result<&[&str], &str>| {
            let got = config_map(Some(&map), &Selection { items, mode: 0o644, optional });
            let got = got.map(|p| p.into_keys().collect::<Vec<_>>());
            assert_eq!(got, expect.map(|k| k.iter().map(|s| (*s).to_owned()).collect()).map_err(str::to_owned));
        };
        check(&[], false, Ok(&["a", "b"]));
        check(&[item("b")], false, Ok(&["d/b"]));
        check(&[item("x")], false, Err("configmap references non-existent config key: x"));
        check(&[item("x")], true, Ok(&[]));
    }
}
