//! Validation of a pod's volumes, and of how containers mount them.

use super::{Scope, container, env, volume_sources};
use crate::core::quantities::quantity;
use crate::field::{Errors, Fields, Path, repeated};
use crate::names;
use crate::rules::{self, Check, Rule};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

const ONE_TYPE: &str = "may not specify more than 1 volume type";
/// Permission bits.
pub const FILE_MODE: Check = Check::Within(0, 0o777, "must be a number between 0 and 0777 (octal), both inclusive");
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
) -> HashMap<&'a str, &'a Value> {
    let pod = meta.text("name");
    let list = spec.list("volumes");
    let created: HashSet<String> = list
        .iter()
        .filter(|v| v.has("ephemeral") && !pod.is_empty())
        .map(|v| format!("{pod}-{}", v.text("name")))
        .collect();
    let mut good = HashMap::new();
    for (i, volume) in list.iter().enumerate() {
        let (path, name, before) = (path.index(i), volume.text("name"), errors.0.len());
        source(errors, volume, pod, is_pod, &path);
        rules::check(errors, volume, &path, &[("name", Check::Named(names::label))]);
        if good.contains_key(name) {
            errors.duplicate(&path.field("name"), name);
        }
        if errors.0.len() == before {
            good.insert(name, volume);
        }
        let claim = volume.at("persistentVolumeClaim").text("claimName");
        if created.contains(claim) {
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
            let shown = match *kind {
                "downwardAPI" => "downwarAPI",
                "cephfs" => "cephFS",
                kind => kind,
            };
            errors.forbidden(&path.field(shown), ONE_TYPE);
            if *kind == "iscsi" {
                iscsi_name(errors, volume, path);
            }
            continue;
        }
        let path_of = path.field(shown);
        match *kind {
            "emptyDir" => empty_dir(errors, of, &path_of),
            "secret" => items_source(errors, of, "secretName", &path_of),
            "configMap" => items_source(errors, of, "name", &path_of),
            "downwardAPI" => downward_api(errors, of, &path_of),
            "projected" => super::projected::projected(errors, of, &path_of),
            "ephemeral" => ephemeral(errors, volume, pod, path),
            "image" => image(errors, of, is_pod, &path_of),
            kind => volume_sources::source(errors, kind, of, &path_of),
        }
        if *kind == "iscsi" {
            iscsi_name(errors, volume, path);
        }
    }
    if !found {
        errors.required(path, "must specify a volume type");
    }
}

fn iscsi_name(errors: &mut Errors, volume: &Value, path: &Path<'_>) {
    let name = volume.text("name");
    volume_sources::initiator_length(errors, volume.at("iscsi"), name, name, &path.field("name"));
}

fn empty_dir(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    if of.has("sizeLimit") && quantity(of.at("sizeLimit")).sign() < 0 {
        errors.forbidden(&path.field("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
}

fn items_source(errors: &mut Errors, of: &Value, name: &'static str, path: &Path<'_>) {
    let rules = [(name, Check::Given("")), ("defaultMode", FILE_MODE), ("items", Check::Each(key_to_path))];
    rules::check(errors, of, path, &rules);
}

/// Errors of the items of a downward API volume carry the path of the volume.
fn downward_api(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    rules::check(errors, of, path, &[("defaultMode", FILE_MODE)]);
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
    if is_pod {
        rules::check(errors, of, path, &[("reference", Check::Given(""))]);
    }
    rules::check(errors, of, path, &[("pullPolicy", container::PULL)]);
}

const KEY_TO_PATH: &[Rule] =
    &[("key", Check::Given("")), ("path", Check::Given("")), ("path", Check::By(local_path)), ("mode", FILE_MODE)];

/// Errors of an item of a Secret or ConfigMap volume.
pub fn key_to_path(errors: &mut Errors, item: &Value, path: &Path<'_>) {
    rules::check(errors, item, path, KEY_TO_PATH);
}

/// Errors of a path that must stay inside its volume and not begin with `..`.
pub fn local_path(errors: &mut Errors, value: &Value, path: &Path<'_>) {
    let text = value.as_str().unwrap_or("");
    descending_path(errors, value, path);
    // `..name` is taken by the atomic writer; `../` is reported above
    if text.starts_with("..") && !text.starts_with("../") {
        errors.invalid(path, text, "must not start with '..'");
    }
}

/// Errors of a path that must be relative and descend.
pub fn descending_path(errors: &mut Errors, value: &Value, path: &Path<'_>) {
    let text = value.as_str().unwrap_or("");
    if text.starts_with('/') {
        errors.invalid(path, text, "must be a relative path");
    }
    no_backsteps(errors, value, path);
}

/// An error when a path holds `..`.
pub fn no_backsteps(errors: &mut Errors, value: &Value, path: &Path<'_>) {
    let text = value.as_str().unwrap_or("");
    if has_backsteps(text) {
        errors.invalid(path, text, "must not contain '..'");
    }
}

fn has_backsteps(text: &str) -> bool {
    text.split('/').any(|part| part == "..")
}

/// Adds an error for each line that is wrong.
fn tell(errors: &mut Errors, path: &Path<'_>, value: &str, lines: &[(bool, &str)]) {
    lines.iter().filter(|(wrong, _)| *wrong).for_each(|(_, text)| errors.invalid(path, value, text));
}

/// What the items of a list have in a field.
fn values<'a>(list: &'a [Value], field: &str) -> HashSet<&'a str> {
    list.iter().map(|item| item.text(field)).collect()
}

/// Errors of `volumeMounts`.
pub fn mounts(errors: &mut Errors, scope: &Scope<'_>, c: &Value, path: &Path<'_>) {
    let (devices, mounts) = (c.list("volumeDevices"), c.list("volumeMounts"));
    let (names, paths) = (values(devices, "name"), values(devices, "devicePath"));
    let again = repeated(mounts.iter().map(|mount| mount.text("mountPath")));
    for (i, mount) in mounts.iter().enumerate() {
        let (item, name, point) = (path.index(i), mount.text("name"), mount.text("mountPath"));
        let (name_path, point_path) = (item.field("name"), item.field("mountPath"));
        rules::check(errors, mount, &item, &[("name", Check::Given(""))]);
        if !scope.volumes.contains_key(name) {
            errors.not_found(&name_path, name);
        }
        rules::check(errors, mount, &item, &[("mountPath", Check::Given(""))]);
        tell(errors, &point_path, point, &[(again[i], "must be unique")]);
        tell(errors, &name_path, name, &[(names.contains(name), "must not already exist in volumeDevices")]);
        let device = paths.contains(point);
        tell(errors, &point_path, point, &[(device, "must not already exist as a path in volumeDevices")]);
        mount_options(errors, c, mount, path, &item);
    }
}

/// Upstream reports most options of a mount at the list's path, without the index.
fn mount_options(errors: &mut Errors, c: &Value, mount: &Value, list: &Path<'_>, item: &Path<'_>) {
    let (sub, expr) = (mount.text("subPath"), mount.text("subPathExpr"));
    descending_path(errors, mount.at("subPath"), &list.field("subPath"));
    if !expr.is_empty() && !sub.is_empty() {
        errors.invalid(&item.field("subPathExpr"), expr, "subPathExpr and subPath are mutually exclusive");
    }
    descending_path(errors, mount.at("subPathExpr"), &list.field("subPathExpr"));
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
    let (devices, mounts) = (c.list("volumeDevices"), c.list("volumeMounts"));
    let (names, points) = (values(mounts, "name"), values(mounts, "mountPath"));
    let same_name = repeated(devices.iter().map(|device| device.text("name")));
    let same_path = repeated(devices.iter().map(|device| device.text("devicePath")));
    for (i, device) in devices.iter().enumerate() {
        let (item, name, at) = (path.index(i), device.text("name"), device.text("devicePath"));
        let (name_path, at_path) = (item.field("name"), item.field("devicePath"));
        rules::check(errors, device, &item, &[("name", Check::Given(""))]);
        tell(errors, &name_path, name, &[(same_name[i] && !name.is_empty(), "must be unique")]);
        block_volume(errors, scope, name, &name_path);
        rules::check(errors, device, &item, &[("devicePath", Check::Given(""))]);
        let climbs = has_backsteps(at);
        let lines = [(same_path[i] && !climbs, "must be unique"), (climbs, "can not contain backsteps ('..')")];
        tell(errors, &at_path, at, &lines);
        tell(errors, &name_path, name, &[(names.contains(name), "must not already exist in volumeMounts")]);
        tell(errors, &at_path, at, &[(points.contains(at), "must not already exist as a path in volumeMounts")]);
    }
}

/// Only claims can be used without a file system.
fn block_volume(errors: &mut Errors, scope: &Scope<'_>, name: &str, path: &Path<'_>) {
    match scope.volumes.get(name) {
        None => errors.not_found(path, name),
        Some(volume) if volume.has("persistentVolumeClaim") || volume.has("ephemeral") => {}
        Some(_) => {
            let text = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            errors.invalid(path, name, text);
        }
    }
}
