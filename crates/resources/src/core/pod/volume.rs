//! Validation of a pod's volumes, and of how containers mount them.

use super::{Scope, container, env, volume_sources};
use crate::core::quantities::quantity;
use crate::field::{Errors, Fields, Path};
use crate::names;
use serde_json::Value;

const ONE_TYPE: &str = "may not specify more than 1 volume type";
const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
/// Volume types in the order upstream looks at them, and the names its errors give them.
const TYPES: &[(&str, &str)] = &[
    ("emptyDir", "emptyDir"),
    ("hostPath", "hostPath"),
    ("gitRepo", "gitRepo"),
    ("gcePersistentDisk", "persistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore"),
    ("secret", "secret"),
    ("nfs", "nfs"),
    ("iscsi", "iscsi"),
    ("glusterfs", "glusterfs"),
    ("flocker", "flocker"),
    ("persistentVolumeClaim", "persistentVolumeClaim"),
    ("rbd", "rbd"),
    ("cinder", "cinder"),
    ("cephfs", "cephfs"),
    ("quobyte", "quobyte"),
    ("downwardAPI", "downwardAPI"),
    ("fc", "fc"),
    ("flexVolume", "flexVolume"),
    ("configMap", "configMap"),
    ("azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk"),
    ("storageos", "storageos"),
    ("projected", "projected"),
    ("scaleIO", "scaleIO"),
    ("csi", "csi"),
    ("ephemeral", "ephemeral"),
    ("image", "image"),
];

/// Errors of `volumes`; returns the volumes without any, which are the ones that can be mounted.
pub fn volumes<'a>(
    errors: &mut Errors,
    spec: &'a Value,
    meta: &Value,
    is_pod: bool,
    path: &Path<'_>,
) -> Vec<&'a Value> {
    let pod = meta.text("name");
    let list = spec.list("volumes");
    let created: Vec<String> = list
        .iter()
        .filter(|v| v.has("ephemeral") && !pod.is_empty())
        .map(|v| format!("{pod}-{}", v.text("name")))
        .collect();
    let mut good: Vec<&Value> = Vec::new();
    for (i, volume) in list.iter().enumerate() {
        let (path, name, before) = (path.index(i), volume.text("name"), errors.0.len());
        source(errors, volume, pod, is_pod, &path);
        match name {
            "" => errors.required(&path.field("name"), ""),
            name => errors.invalid_each(&path.field("name"), name, names::dns1123_label(name, false)),
        }
        if good.iter().any(|v| v.text("name") == name) {
            errors.duplicate(&path.field("name"), name);
        }
        if errors.0.len() == before {
            good.push(volume);
        }
        let claim = volume.at("persistentVolumeClaim").text("claimName");
        if created.iter().any(|c| c == claim) {
            let text = "must not reference a PVC that gets created for an ephemeral volume";
            errors.invalid(&path.field("persistentVolumeClaim.claimName"), claim, text);
        }
    }
    good
}

fn source(errors: &mut Errors, volume: &Value, pod: &str, is_pod: bool, path: &Path<'_>) {
    let mut found = false;
    for (kind, shown) in TYPES.iter().filter(|(kind, _)| volume.has(kind)) {
        let of = volume.at(kind);
        if std::mem::replace(&mut found, true) {
            let shown = if *kind == "downwardAPI" { "downwarAPI" } else { kind };
            errors.forbidden(&path.field(shown), ONE_TYPE);
            continue;
        }
        let path_of = path.field(shown);
        match *kind {
            "emptyDir" => empty_dir(errors, of, &path_of),
            "secret" | "configMap" => items_source(errors, of, kind, &path_of),
            "downwardAPI" => downward_api(errors, of, &path_of),
            "projected" => super::projected::projected(errors, of, &path_of),
            "ephemeral" => ephemeral(errors, volume, pod, path),
            "image" => image(errors, of, is_pod, &path_of),
            kind => volume_sources::source(errors, kind, of, &path_of),
        }
    }
    if !found {
        errors.required(path, "must specify a volume type");
    }
}

fn empty_dir(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    if of.has("sizeLimit") && quantity(of.at("sizeLimit")).sign() < 0 {
        errors.forbidden(&path.field("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
}

fn items_source(errors: &mut Errors, of: &Value, kind: &str, path: &Path<'_>) {
    let name = if kind == "secret" { "secretName" } else { "name" };
    if of.text(name).is_empty() {
        errors.required(&path.field(name), "");
    }
    file_mode(errors, of.int("defaultMode"), &path.field("defaultMode"));
    let items = path.field("items");
    for (i, item) in of.list("items").iter().enumerate() {
        key_to_path(errors, item, &items.index(i));
    }
}

fn downward_api(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    file_mode(errors, of.int("defaultMode"), &path.field("defaultMode"));
    of.list("items").iter().for_each(|file| env::downward_file(errors, file, path));
}

fn ephemeral(errors: &mut Errors, volume: &Value, pod: &str, path: &Path<'_>) {
    let (template, name) = (volume.at("ephemeral").at("volumeClaimTemplate"), volume.text("name"));
    let path_of = path.field("ephemeral.volumeClaimTemplate");
    if template.is_null() {
        errors.required(&path_of, "");
    } else {
        crate::core::persistent_volume_claim::template(errors, template, &path_of);
    }
    if !pod.is_empty() && !name.is_empty() {
        let claim = format!("{pod}-{name}");
        for text in names::dns1123_subdomain(&claim, false) {
            errors.invalid(&path.field("name"), name, &format!("PVC name {claim:?}: {text}"));
        }
    }
}

fn image(errors: &mut Errors, of: &Value, is_pod: bool, path: &Path<'_>) {
    if is_pod && of.text("reference").is_empty() {
        errors.required(&path.field("reference"), "");
    }
    container::pull_policy(errors, of.text("pullPolicy"), &path.field("pullPolicy"));
}

/// Errors of an item of a Secret or ConfigMap volume.
pub fn key_to_path(errors: &mut Errors, item: &Value, path: &Path<'_>) {
    for field in ["key", "path"] {
        if item.text(field).is_empty() {
            errors.required(&path.field(field), "");
        }
    }
    local_path(errors, item.text("path"), &path.field("path"));
    file_mode(errors, item.int("mode"), &path.field("mode"));
}

/// Errors of permission bits.
pub fn file_mode(errors: &mut Errors, mode: Option<i64>, path: &Path<'_>) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        errors.invalid(path, mode, FILE_MODE);
    }
}

/// Errors of a path that must stay inside its volume and not begin with `..`.
pub fn local_path(errors: &mut Errors, text: &str, path: &Path<'_>) {
    descending_path(errors, text, path);
    // `..name` is taken by the atomic writer; `../` is reported above
    if text.starts_with("..") && !text.starts_with("../") {
        errors.invalid(path, text, "must not start with '..'");
    }
}

/// Errors of a path that must be relative and descend.
pub fn descending_path(errors: &mut Errors, text: &str, path: &Path<'_>) {
    if text.starts_with('/') {
        errors.invalid(path, text, "must be a relative path");
    }
    no_backsteps(errors, text, path);
}

/// An error when a path holds `..`.
pub fn no_backsteps(errors: &mut Errors, text: &str, path: &Path<'_>) {
    if has_backsteps(text) {
        errors.invalid(path, text, "must not contain '..'");
    }
}

fn has_backsteps(text: &str) -> bool {
    text.split('/').any(|part| part == "..")
}

/// Errors of `volumeMounts`.
pub fn mounts(errors: &mut Errors, scope: &Scope<'_>, c: &Value, path: &Path<'_>) {
    let devices = c.list("volumeDevices");
    let mut points: Vec<&str> = Vec::new();
    for (i, mount) in c.list("volumeMounts").iter().enumerate() {
        let (item, name, point) = (path.index(i), mount.text("name"), mount.text("mountPath"));
        if name.is_empty() {
            errors.required(&item.field("name"), "");
        }
        if !scope.volumes.iter().any(|v| v.text("name") == name) {
            errors.not_found(&item.field("name"), name);
        }
        if point.is_empty() {
            errors.required(&item.field("mountPath"), "");
        }
        if points.contains(&point) {
            errors.invalid(&item.field("mountPath"), point, "must be unique");
        }
        points.push(point);
        if devices.iter().any(|d| d.text("name") == name) {
            errors.invalid(&item.field("name"), name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|d| d.text("devicePath") == point) {
            errors.invalid(&item.field("mountPath"), point, "must not already exist as a path in volumeDevices");
        }
        mount_options(errors, c, mount, path, &item);
    }
}

/// Upstream reports most options of a mount at the list's path, without the index.
fn mount_options(errors: &mut Errors, c: &Value, mount: &Value, list: &Path<'_>, item: &Path<'_>) {
    let (sub, expr) = (mount.text("subPath"), mount.text("subPathExpr"));
    descending_path(errors, sub, &list.field("subPath"));
    if !expr.is_empty() && !sub.is_empty() {
        errors.invalid(&item.field("subPathExpr"), expr, "subPathExpr and subPath are mutually exclusive");
    }
    descending_path(errors, expr, &list.field("subPathExpr"));
    let (propagation, path) = (mount.text("mountPropagation"), list.field("mountPropagation"));
    if mount.has("mountPropagation") {
        errors.supported(&path, propagation, &["Bidirectional", "HostToContainer", "None"]);
        if propagation == "Bidirectional" && !c.at("securityContext").flag("privileged") {
            errors.forbidden(&path, "Bidirectional mount propagation is available only to privileged containers");
        }
    }
    let path = list.field("recursiveReadOnly");
    match mount.text("recursiveReadOnly") {
        "Disabled" => {}
        "" if !mount.has("recursiveReadOnly") => {}
        "Enabled" | "IfPossible" => {
            if !mount.flag("readOnly") {
                errors.forbidden(&path, "may only be specified when readOnly is true");
            }
            if !["", "None"].contains(&propagation) {
                errors.forbidden(&path, "may only be specified when mountPropagation is None or not specified");
            }
        }
        other => errors.not_supported(&path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

/// Errors of `volumeDevices`.
pub fn devices(errors: &mut Errors, scope: &Scope<'_>, c: &Value, path: &Path<'_>) {
    let mounts = c.list("volumeMounts");
    let (mut names, mut paths): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (i, device) in c.list("volumeDevices").iter().enumerate() {
        let (item, name, at) = (path.index(i), device.text("name"), device.text("devicePath"));
        let (name_path, at_path) = (item.field("name"), item.field("devicePath"));
        if name.is_empty() {
            errors.required(&name_path, "");
        }
        if names.contains(&name) {
            errors.invalid(&name_path, name, "must be unique");
        }
        match scope.volumes.iter().find(|v| v.text("name") == name) {
            None => errors.not_found(&name_path, name),
            Some(volume) if volume.has("persistentVolumeClaim") || volume.has("ephemeral") => {}
            Some(_) => {
                let text = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&name_path, name, text);
            }
        }
        if at.is_empty() {
            errors.required(&at_path, "");
        }
        if paths.contains(&at) {
            errors.invalid(&at_path, at, "must be unique");
        }
        if has_backsteps(at) {
            errors.invalid(&at_path, at, "can not contain backsteps ('..')");
        } else {
            paths.push(at);
        }
        if mounts.iter().any(|m| m.text("name") == name) {
            errors.invalid(&name_path, name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|m| m.text("mountPath") == at) {
            errors.invalid(&at_path, at, "must not already exist as a path in volumeMounts");
        }
        if !name.is_empty() {
            names.push(name);
        }
    }
}
