//! Volume types that are little more than a few required fields, for pods and persistent volumes alike.

use crate::field::{Errors, Fields, Path};
use crate::names;
use serde_json::Value;

/// Fields that must be set, by volume type.
const REQUIRED: &[(&str, &[&str])] = &[
    ("hostPath", &["path"]),
    ("gitRepo", &["repository"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("nfs", &["server", "path"]),
    ("glusterfs", &["endpoints", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("rbd", &["monitors", "image"]),
    ("cinder", &["volumeID"]),
    ("cephfs", &["monitors"]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("storageos", &["volumeName"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("local", &["path"]),
];
const INITIATOR: &str = "must be valid format starting with iqn, eui, or naa";
const REGISTRY: &str = "must be a host:port pair or multiple pairs separated by commas";
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Errors of a volume source.
pub fn source(errors: &mut Errors, kind: &str, of: &Value, path: &Path<'_>) {
    for field in REQUIRED.iter().filter(|(k, _)| *k == kind).flat_map(|(_, fields)| *fields) {
        if of.text(field).is_empty() && of.list(field).is_empty() {
            errors.required(&path.field(field), "");
        }
    }
    match kind {
        "hostPath" => host_path(errors, of, path),
        "gitRepo" => super::volume::descending_path(errors, of.text("directory"), &path.field("directory")),
        "gcePersistentDisk" => partition(errors, of, "must be between 1 and 255, inclusive", path),
        "awsElasticBlockStore" => partition(errors, of, "must be between 1 and 255, inclusive", path),
        "nfs" if !of.text("path").starts_with('/') => {
            errors.invalid(&path.field("path"), of.text("path"), "must be an absolute path");
        }
        "iscsi" => iscsi(errors, of, path),
        "fc" => fibre_channel(errors, of, path),
        "csi" => csi(errors, of, path),
        "flocker" => flocker(errors, of, path),
        "cinder" => secret_name(errors, of, path),
        "quobyte" => quobyte(errors, of, path),
        "storageos" => storage_os(errors, of, path),
        "azureDisk" => azure_disk(errors, of, path),
        "flexVolume" => flex_options(errors, of, path),
        "local" => super::volume::no_backsteps(errors, of.text("path"), &path.field("path")),
        _ => {}
    }
}

fn host_path(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    super::volume::no_backsteps(errors, of.text("path"), &path.field("path"));
    if of.has("type") {
        errors.supported(&path.field("type"), of.text("type"), &HOST_PATH_TYPES);
    }
}

fn partition(errors: &mut Errors, of: &Value, text: &str, path: &Path<'_>) {
    if let Some(number) = of.int("partition").filter(|n| !(0..=255).contains(n)) {
        errors.invalid(&path.field("partition"), number, text);
    }
}

fn iscsi(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    for field in ["targetPortal", "iqn"] {
        if of.text(field).is_empty() {
            errors.required(&path.field(field), "");
        }
    }
    initiator(errors, of.text("iqn"), &path.field("iqn"));
    lun(errors, of.int("lun").unwrap_or(0), &path.field("lun"));
    if (of.flag("chapAuthDiscovery") || of.flag("chapAuthSession")) && !of.has("secretRef") {
        errors.required(&path.field("secretRef"), "");
    }
    if of.has("initiatorName") {
        match of.text("initiatorName") {
            "" => errors.invalid(&path.field("initiatorname"), "", INITIATOR),
            name => initiator(errors, name, &path.field("initiatorname")),
        }
    }
}

fn initiator(errors: &mut Errors, name: &str, path: &Path<'_>) {
    let hex =
        |text: &str, lengths: &[usize]| lengths.contains(&text.len()) && text.bytes().all(|c| c.is_ascii_hexdigit());
    let fine = match name.get(..3) {
        None if name.is_empty() => true,
        Some("iqn") => is_iqn(name),
        Some("eui") => name.strip_prefix("eui.").is_some_and(|t| hex(t, &[16])),
        Some("naa") => name.strip_prefix("naa.").is_some_and(|t| hex(t, &[16, 32])),
        _ => return errors.invalid(path, name, INITIATOR),
    };
    if !fine {
        errors.invalid(path, name, "must be valid format");
    }
}

/// `iqn.YYYY-MM.authority[:name]`
fn is_iqn(name: &str) -> bool {
    let Some((date, authority)) = name.strip_prefix("iqn.").and_then(|t| t.split_once('.')) else { return false };
    let digits = |t: &str, n: usize| t.len() == n && t.bytes().all(|c| c.is_ascii_digit());
    let date = date.split_once('-').is_some_and(|(y, m)| digits(y, 4) && digits(m, 2));
    let authority = authority.split(':').next().unwrap_or("");
    date && !authority.is_empty() && authority.bytes().all(|c| c.is_ascii_alphanumeric() || b".-".contains(&c))
}

fn lun(errors: &mut Errors, lun: i64, path: &Path<'_>) {
    if !(0..=255).contains(&lun) {
        errors.invalid(path, lun, "must be between 0 and 255, inclusive");
    }
}

fn fibre_channel(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let (targets, ids) = (of.list("targetWWNs"), of.list("wwids"));
    let path_of = path.field("targetWWNs");
    match (targets.is_empty(), ids.is_empty()) {
        (true, true) => errors.required(&path_of, "must specify either targetWWNs or wwids, but not both"),
        (false, false) => {
            let text = "targetWWNs and wwids can not be specified simultaneously";
            errors.invalid(&path_of, of.at("targetWWNs").clone(), text);
        }
        _ => {}
    }
    if !targets.is_empty() {
        match of.int("lun") {
            None => errors.required(&path.field("lun"), "lun is required if targetWWNs is specified"),
            Some(number) => lun(errors, number, &path.field("lun")),
        }
    }
}

fn flocker(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    match (of.text("datasetName"), of.text("datasetUUID")) {
        ("", "") => errors.required(path, "one of datasetName and datasetUUID is required"),
        ("", _) => {}
        (name, uuid) => {
            if !uuid.is_empty() {
                errors.invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously");
            }
            if name.contains('/') {
                errors.invalid(&path.field("datasetName"), name, "must not contain '/'");
            }
        }
    }
}

/// A secret that is named at all has a name.
fn secret_name(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    if of.has("secretRef") && of.at("secretRef").text("name").is_empty() {
        errors.required(&path.field("secretRef.name"), "");
    }
}

fn quobyte(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let (registry, at) = (of.text("registry"), path.field("registry"));
    let host_port = |pair: &str| match pair.rsplit_once(':') {
        Some((host, _)) => host.starts_with('[') == host.ends_with(']') && (host.starts_with('[') || !host.contains(':')),
        None => false,
    };
    if registry.is_empty() {
        errors.required(&at, REGISTRY);
    } else if of.text("tenant").len() >= 65 {
        errors.required(&path.field("tenant"), "must be a UUID and may not exceed a length of 64 characters");
    } else {
        registry.split(',').filter(|pair| !host_port(pair)).for_each(|_| errors.invalid(&at, registry, REGISTRY));
    }
    if of.text("volume").is_empty() {
        errors.required(&path.field("volume"), "");
    }
}

fn storage_os(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    for field in ["volumeName", "volumeNamespace"].into_iter().filter(|f| !of.text(f).is_empty()) {
        errors.invalid_each(&path.field(field), of.text(field), names::dns1123_label(of.text(field), false));
    }
    secret_name(errors, of, path);
}

/// The form of a disk's URI follows from its kind.
fn azure_disk(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    for (field, supported) in
        [("cachingMode", ["None", "ReadOnly", "ReadWrite"]), ("kind", ["Dedicated", "Managed", "Shared"])]
    {
        if of.has(field) {
            errors.supported(&path.field(field), of.text(field), &supported);
        }
    }
    let (prefix, form) = match of.text("kind") {
        "Managed" => {
            let disk = "resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
            ("/subscriptions/", format!("/subscriptions/{{sub-id}}/{disk}"))
        }
        _ => ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd".to_owned()),
    };
    let uri = of.text("diskURI");
    if of.has("kind") && !uri.starts_with(prefix) {
        errors.not_supported(&path.field("diskURI"), uri, &[&form]);
    }
}

/// Options of a driver may not look like Kubernetes' own.
fn flex_options(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let options = path.field("options");
    for (key, _) in of.entries("options") {
        let namespace = format!(".{}", key.split('/').next().unwrap_or(key).to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            errors.invalid(&options.key(key), key.as_str(), "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

fn csi(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    csi_driver_name(errors, of.text("driver"), &path.field("driver"));
    let secret = of.at("nodePublishSecretRef");
    if !secret.is_null() {
        let path = path.field("nodePublishSecretRef.name");
        match secret.text("name") {
            "" => errors.required(&path, ""),
            name => errors.invalid_each(&path, name, names::dns1123_subdomain(name, false)),
        }
    }
}

/// Errors of the name of a CSI driver.
pub fn csi_driver_name(errors: &mut Errors, name: &str, path: &Path<'_>) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > 63 {
        errors.too_long(path, 63);
    }
    errors.invalid_each(path, name, names::dns1123_subdomain(&name.to_lowercase(), false));
}
