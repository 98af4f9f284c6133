//! Where the data of a persistent volume is. Most types are those of pods; some have a little more, because a volume
//! has no namespace that a secret could be looked for in.

use crate::core::pod::volume_sources;
use crate::field::{Errors, Fields, Path};
use crate::names;
use crate::rules::{self, Check, Rule};
use serde_json::Value;

/// Volume types in upstream's order, and what errors call them: where one is too many, and where one is wrong.
pub const SOURCES: &[(&str, &str, &str)] = &[
    ("hostPath", "hostPath", "hostPath"),
    ("gcePersistentDisk", "gcePersistentDisk", "persistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore", "awsElasticBlockStore"),
    ("glusterfs", "glusterfs", "glusterfs"),
    ("flocker", "flocker", "flocker"),
    ("nfs", "nfs", "nfs"),
    ("rbd", "rbd", "rbd"),
    ("quobyte", "quobyte", "quobyte"),
    ("cephfs", "cephFS", "cephfs"),
    ("iscsi", "iscsi", "iscsi"),
    ("cinder", "cinder", "cinder"),
    ("fc", "fc", "fc"),
    ("flexVolume", "flexVolume", "flexVolume"),
    ("azureFile", "azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk", "azureDisk"),
    ("scaleIO", "scaleIO", "scaleIO"),
    ("local", "local", "local"),
    ("storageos", "storageos", "storageos"),
    ("csi", "csi", "csi"),
];
/// Types that take mount options.
const MOUNTED_WITH_OPTIONS: [&str; 13] = [
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "nfs",
    "rbd",
    "quobyte",
    "iscsi",
    "cinder",
    "cephfs",
    "azureFile",
    "vsphereVolume",
    "azureDisk",
    "photonPersistentDisk",
];
/// Where the options of a mount once were.
const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
const GIVEN: Check = Check::Given("");
const SECRET: &[Rule] = &[("name", Check::Named(names::subdomain)), ("namespace", Check::Named(names::label))];
const CSI: &[Rule] = &[
    ("driver", Check::In(driver)),
    ("volumeHandle", GIVEN),
    ("controllerPublishSecretRef", Check::By(secret)),
    ("controllerExpandSecretRef", Check::By(secret)),
    ("nodePublishSecretRef", Check::By(secret)),
    ("nodeExpandSecretRef", Check::By(secret)),
];
const ISCSI: &[Rule] = &[
    ("iqn", GIVEN),
    ("iqn", Check::In(iqn)),
    ("lun", Check::Within(0, 255, "must be between 0 and 255, inclusive")),
    ("secretRef", Check::In(chap_secret)),
    ("initiatorname", Check::In(initiator_name)),
];

/// Errors of a volume's source; `name`: the volume's, `placed`: whether it says which nodes reach it.
pub fn sources(errors: &mut Errors, spec: &Value, name: &str, placed: bool, path: &Path<'_>) {
    let mut found = false;
    for (kind, again, shown) in SOURCES.iter().filter(|(kind, ..)| spec.has(kind)) {
        // flexVolume may stand beside another, as upstream forgot
        if std::mem::replace(&mut found, true) && *kind != "flexVolume" {
            errors.forbidden(&path.field(again), "may not specify more than 1 volume type");
            continue;
        }
        one(errors, kind, spec.at(kind), name, &path.field(shown));
        if *kind == "local" && !placed {
            errors.required(&path.field("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    if !found {
        errors.required(path, "must specify a volume type");
    }
}

fn one(errors: &mut Errors, kind: &str, of: &Value, name: &str, path: &Path<'_>) {
    match kind {
        "csi" => return rules::check(errors, of, path, CSI),
        "iscsi" => return iscsi(errors, of, name, path),
        _ => volume_sources::source(errors, kind, of, path),
    }
    match kind {
        "glusterfs" if of.has("endpointsNamespace") => {
            let (ns, path) = (of.text("endpointsNamespace"), path.field("endpointsNamespace"));
            let empty = "if the endpointnamespace is set, it must be a valid namespace name";
            let wrong = if ns.is_empty() { vec![empty.to_owned()] } else { names::label(ns) };
            errors.invalid_each(&path, ns, wrong);
        }
        "azureFile" if of.at("secretNamespace") == "" => errors.required(&path.field("secretNamespace"), ""),
        "cinder" | "storageos" if of.has("secretRef") => {
            rules::check(errors, of.at("secretRef"), &path.field("secretRef"), &[("namespace", GIVEN)]);
        }
        _ => {}
    }
}

fn iscsi(errors: &mut Errors, of: &Value, name: &str, path: &Path<'_>) {
    rules::check(errors, of, path, &[("targetPortal", GIVEN)]);
    volume_sources::initiator_length(errors, of, name, of.text("targetPortal"), &path.field("targetportal"));
    rules::check(errors, of, path, ISCSI);
}

fn iqn(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let name = of.text("iqn");
    if !name.is_empty() && !volume_sources::is_initiator(name) {
        errors.invalid(path, name, "must be valid format");
    }
}

/// The field is called `initiatorName`, its errors are not.
fn initiator_name(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    if let Some(name) = of.at("initiatorName").as_str().filter(|name| !volume_sources::is_initiator(name)) {
        errors.invalid(path, name, "must be valid format");
    }
}

fn chap_secret(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    match of.has("secretRef") {
        true => rules::check(errors, of.at("secretRef"), path, &[("name", GIVEN)]),
        false if of.flag("chapAuthDiscovery") || of.flag("chapAuthSession") => errors.required(path, ""),
        false => {}
    }
}

fn driver(errors: &mut Errors, csi: &Value, path: &Path<'_>) {
    volume_sources::csi_driver_name(errors, csi.text("driver"), path);
}

fn secret(errors: &mut Errors, secret: &Value, path: &Path<'_>) {
    if !secret.is_null() {
        rules::check(errors, secret, path, SECRET);
    }
}

/// An error of mount options for a type that has none.
pub fn mount_options(errors: &mut Errors, obj: &Value) {
    let takes = MOUNTED_WITH_OPTIONS.iter().any(|kind| obj.at("spec").has(kind));
    if !takes && api::meta::annotation(obj, MOUNT_OPTIONS).is_some() {
        let path = Path::root("metadata.annotations");
        errors.forbidden(&path.field(MOUNT_OPTIONS), "may not specify mount options for this volume type");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn volumes_have_no_namespace_of_their_own() {
        let check = |spec: Value, want: &[&str]| {
            let mut errors = Errors::default();
            sources(&mut errors, &spec, "name", false, &Path::root("spec"));
            assert_eq!(errors.0.iter().map(|cause| cause.field.as_str()).collect::<Vec<_>>(), want, "{spec}");
        };
        check(json!({}), &["spec"]);
        check(json!({"cinder": {"volumeID": "v", "secretRef": {"name": "s"}}}), &["spec.cinder.secretRef.namespace"]);
        let twice = json!({"nfs": {"server": "s", "path": "/"}, "cephfs": {"monitors": ["m"]}});
        check(twice, &["spec.cephFS"]);
        check(json!({"cephfs": {}}), &["spec.cephfs.monitors"]);
        let long = json!({"targetPortal": "p".repeat(60), "iqn": "x", "initiatorName": "x"});
        check(json!({"iscsi": long}), &["spec.iscsi.targetportal", "spec.iscsi.iqn", "spec.iscsi.initiatorname"]);
        check(json!({"local": {"path": "/d"}}), &["spec.nodeAffinity"]);
        check(
            json!({"glusterfs": {"endpoints": "e", "path": "p", "endpointsNamespace": "a..b"}}),
            &["spec.glusterfs.endpointsNamespace"],
        );
    }
}
