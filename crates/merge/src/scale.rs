//! managedFields of a `Scale`: those of the object it scales, as far as they are about the number of replicas.
//!
//! An apply of a scale is merged on the Scale, whose managers come from the object and go back to it.

use crate::managed::{Entry, Managed, ManagerKey, api_version};
use crate::set::FieldSet;
use serde_json::Value;

const REPLICAS: [&str; 2] = ["f:spec", "f:replicas"];

fn set_of(path: &[&str]) -> FieldSet {
    let mut set = FieldSet::default();
    set.insert(path);
    set
}

fn owns(entry: &Entry, replicas: &FieldSet) -> bool {
    !entry.set.intersection(replicas).is_empty()
}

/// Gives a scale the managers of its object's replicas, which are at `path` (`["f:spec", "f:replicas"]`).
pub fn managers_to_scale(object: &Value, path: &[&str], scale: &mut Value) {
    let (replicas, version) = (set_of(path), api_version(scale).to_owned());
    let mut out = Managed::default();
    for (key, entry) in Managed::decode(object).unwrap_or_default().0 {
        if owns(&entry, &replicas) {
            let key = ManagerKey::new(&key.manager, key.applied, &version, &key.subresource);
            out.0.insert(key, Entry { set: set_of(&REPLICAS), version: version.clone(), time: entry.time });
        }
    }
    out.encode(scale);
}

/// Gives the object's replicas the managers that its scale has now. New ones have no time.
pub fn managers_from_scale(scale: &Value, path: &[&str], object: &mut Value) {
    let (replicas, version) = (set_of(path), api_version(object).to_owned());
    let mut managed = Managed::decode(object).unwrap_or_default();
    let of_scale = Managed::decode(scale).unwrap_or_default();
    let same = |a: &ManagerKey, b: &ManagerKey| {
        (&a.manager, a.applied, &a.subresource) == (&b.manager, b.applied, &b.subresource)
    };
    for (key, entry) in &mut managed.0 {
        if !of_scale.0.keys().any(|k| same(k, key)) {
            entry.set = std::mem::take(&mut entry.set).difference(&replicas);
        }
    }
    for key in of_scale.0.keys() {
        if !managed.0.keys().any(|k| same(k, key)) {
            let key = ManagerKey::new(&key.manager, key.applied, &version, &key.subresource);
            managed.0.insert(key, Entry { set: replicas.clone(), version: version.clone(), time: None });
        }
    }
    managed.0.retain(|_, entry| !entry.set.is_empty());
    managed.encode(object);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_new_manager_takes_the_replicas() {
        let mut object = json!({"apiVersion": "apps/v1", "metadata": {"managedFields": [
            {"manager": "a", "operation": "Update", "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
             "fieldsV1": {"f:spec": {"f:replicas": {}, "f:paused": {}}}}]}});
        let mut scale = json!({"apiVersion": "autoscaling/v1", "metadata": {}});
        managers_to_scale(&object, &REPLICAS, &mut scale);
        assert_eq!(scale["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
        scale["metadata"]["managedFields"] = json!([{"manager": "b", "operation": "Apply", "subresource": "scale",
            "apiVersion": "autoscaling/v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
        managers_from_scale(&scale, &REPLICAS, &mut object);
        let fields = &object["metadata"]["managedFields"];
        assert_eq!(fields[0]["manager"], "b");
        assert_eq!(fields[0]["apiVersion"], "apps/v1");
        assert_eq!(fields[1]["fieldsV1"], json!({"f:spec": {"f:paused": {}}}));
    }
}
