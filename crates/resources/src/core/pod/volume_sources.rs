//! Volume types that are little more than a few required fields, for pods and persistent volumes alike.

use super::volume::{descending_path, no_backsteps};
use crate::field::{Errors, Fields, Path};
use crate::names;
use crate::rules::{self, Check, Rule};
use serde_json::Value;

const GIVEN: Check = Check::Given("");
const PARTITION: Rule = ("partition", Check::Within(0, 255, "must be between 1 and 255, inclusive"));
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// What must hold of a volume's source, by its type.
const SOURCES: &[(&str, &[Rule])] = &[
    ("hostPath", &[("path", GIVEN), ("path", Check::By(no_backsteps)), ("type", Check::Optional(HOST_PATH_TYPES))]),
    ("gitRepo", &[("repository", GIVEN), ("directory", Check::By(descending_path))]),
    ("gcePersistentDisk", &[("pdName", GIVEN), PARTITION]),
    ("awsElasticBlockStore", &[("volumeID", GIVEN), PARTITION]),
    ("nfs", &[("server", GIVEN), ("path", GIVEN), ("path", Check::In(absolute))]),
    ("glusterfs", &[("endpoints", GIVEN), ("path", GIVEN)]),
    ("persistentVolumeClaim", &[("claimName", GIVEN)]),
    ("rbd", &[("monitors", GIVEN), ("image", GIVEN)]),
    ("cinder", &[("volumeID", GIVEN), ("secretRef", Check::By(some_secret))]),
    ("cephfs", &[("monitors", GIVEN)]),
    ("flexVolume", &[("driver", GIVEN), ("options", Check::In(flex_options))]),
    ("azureFile", &[("secretName", GIVEN), ("shareName", GIVEN)]),
    ("vsphereVolume", &[("volumePath", GIVEN)]),
    ("photonPersistentDisk", &[("pdID", GIVEN)]),
    ("portworxVolume", &[("volumeID", GIVEN)]),
    ("azureDisk", AZURE_DISK),
    ("storageos", STORAGE_OS),
    ("scaleIO", &[("gateway", GIVEN), ("system", GIVEN), ("volumeName", GIVEN)]),
    ("local", &[("path", GIVEN), ("path", Check::By(no_backsteps))]),
    ("iscsi", ISCSI),
    ("fc", &[("targetWWNs", Check::In(targets)), ("lun", Check::In(target_lun))]),
    ("csi", &[("driver", Check::In(csi_driver)), ("", Check::In(publish_secret))]),
];
const AZURE_DISK: &[Rule] = &[
    ("diskName", GIVEN),
    ("diskURI", GIVEN),
    ("cachingMode", Check::Optional(&["None", "ReadOnly", "ReadWrite"])),
    ("kind", Check::Optional(&["Dedicated", "Managed", "Shared"])),
    ("diskURI", Check::In(azure_uri)),
];
const STORAGE_OS: &[Rule] = &[
    ("volumeName", GIVEN),
    ("volumeName", Check::MaybeNamed(names::label)),
    ("volumeNamespace", Check::MaybeNamed(names::label)),
    ("secretRef", Check::By(some_secret)),
];
const ISCSI: &[Rule] = &[
    ("targetPortal", GIVEN),
    ("iqn", GIVEN),
    ("iqn", Check::In(iqn)),
    ("lun", Check::In(lun)),
    ("secretRef", Check::In(chap_secret)),
    ("initiatorname", Check::In(initiator_name)),
];
const INITIATOR: &str = "must be valid format starting with iqn, eui, or naa";
const REGISTRY: &str = "must be a host:port pair or multiple pairs separated by commas";

/// Errors of a volume source.
pub fn source(errors: &mut Errors, kind: &str, of: &Value, path: &Path<'_>) {
    for (_, rules) in SOURCES.iter().filter(|(of_kind, _)| *of_kind == kind) {
        rules::check(errors, of, path, rules);
    }
    match kind {
        "flocker" => flocker(errors, of, path),
        "quobyte" => quobyte(errors, of, path),
        _ => {}
    }
}

fn absolute(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    if !of.text("path").starts_with('/') {
        errors.invalid(path, of.text("path"), "must be an absolute path");
    }
}

fn chap_secret(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    if (of.flag("chapAuthDiscovery") || of.flag("chapAuthSession")) && !of.has("secretRef") {
        errors.required(path, "");
    }
}

fn iqn(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    initiator(errors, of.text("iqn"), path);
}

/// The field is called `initiatorName`, its errors are not.
fn initiator_name(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    match of.at("initiatorName").as_str() {
        None => {}
        Some("") => errors.invalid(path, "", INITIATOR),
        Some(name) => initiator(errors, name, path),
    }
}

fn initiator(errors: &mut Errors, name: &str, path: &Path<'_>) {
    if !name.is_empty() && !["iqn", "eui", "naa"].iter().any(|kind| name.starts_with(kind)) {
        errors.invalid(path, name, INITIATOR);
    } else if !name.is_empty() && !is_initiator(name) {
        errors.invalid(path, name, "must be valid format");
    }
}

/// Whether a name is one of iSCSI.
pub fn is_initiator(name: &str) -> bool {
    let hex =
        |text: &str, lengths: &[usize]| lengths.contains(&text.len()) && text.bytes().all(|c| c.is_ascii_hexdigit());
    match name.get(..3) {
        Some("iqn") => is_iqn(name),
        Some("eui") => name.strip_prefix("eui.").is_some_and(|t| hex(t, &[16])),
        Some("naa") => name.strip_prefix("naa.").is_some_and(|t| hex(t, &[16, 32])),
        _ => false,
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

fn lun(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let lun = of.int("lun").unwrap_or(0);
    if !(0..=255).contains(&lun) {
        errors.invalid(path, lun, "must be between 0 and 255, inclusive");
    }
}

fn targets(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    match (of.list("targetWWNs").is_empty(), of.list("wwids").is_empty()) {
        (true, true) => errors.required(path, "must specify either targetWWNs or wwids, but not both"),
        (false, false) => {
            let text = "targetWWNs and wwids can not be specified simultaneously";
            errors.invalid(path, of.at("targetWWNs").clone(), text);
        }
        _ => {}
    }
}

fn target_lun(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    match (of.list("targetWWNs").is_empty(), of.int("lun")) {
        (true, _) => {}
        (false, None) => errors.required(path, "lun is required if targetWWNs is specified"),
        (false, Some(_)) => lun(errors, of, path),
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
fn some_secret(errors: &mut Errors, secret: &Value, path: &Path<'_>) {
    if !secret.is_null() {
        rules::check(errors, secret, path, &[("name", GIVEN)]);
    }
}

/// A bad name of the secret for publishing is told of as if it were the driver's.
fn publish_secret(errors: &mut Errors, csi: &Value, path: &Path<'_>) {
    let secret = csi.at("nodePublishSecretRef");
    match secret.text("name") {
        _ if secret.is_null() => {}
        "" => errors.required(&path.field("nodePublishSecretRef.name"), ""),
        name => errors.invalid_each(&path.field("name"), name, names::subdomain(name)),
    }
}

fn quobyte(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let (registry, at) = (of.text("registry"), path.field("registry"));
    let host_port = |pair: &str| match pair.rsplit_once(':') {
        Some((host, _)) => {
            host.starts_with('[') == host.ends_with(']') && (host.starts_with('[') || !host.contains(':'))
        }
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

/// The form of a disk's URI follows from its kind.
fn azure_uri(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let (prefix, form) = match of.text("kind") {
        "Managed" => {
            let disk = "resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
            ("/subscriptions/", format!("/subscriptions/{{sub-id}}/{disk}"))
        }
        _ => ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd".to_owned()),
    };
    let uri = of.text("diskURI");
    if of.has("kind") && !uri.starts_with(prefix) {
        errors.not_supported(path, uri, &[&form]);
    }
}

/// Options of a driver may not look like Kubernetes' own.
fn flex_options(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    for (key, _) in of.entries("options") {
        let namespace = format!(".{}", key.split('/').next().unwrap_or(key).to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            errors.invalid(&path.key(key), key.as_str(), "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

fn csi_driver(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    csi_driver_name(errors, of.text("driver"), path);
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

/// An initiator's name is made of the volume's, and may not be too long; `blamed` stands at the path.
pub fn initiator_length(errors: &mut Errors, iscsi: &Value, volume: &str, blamed: &str, path: &Path<'_>) {
    if iscsi.has("initiatorName") && volume.len() + 1 + iscsi.text("targetPortal").len() > 64 {
        let text = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
            iscsi.initiatorName is specified.";
        errors.invalid(path, blamed, text);
    }
}
