//! Persistent volumes.

use crate::age;
use crate::columns::{AGE, NAME, or_unset};
use crate::core::pod::{node_selector, volume_sources};
use crate::difference::difference;
use crate::core::quantities::{quantity, round_up};
use crate::field::{Errors, Fields, Path, field_mut, map_mut, same, set_default};
use crate::{Ctx, Strategy, copy_field, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Persistent volumes.
pub struct PersistentVolume;

const SPEC: Path<'_> = Path::root("spec");
const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Capacity").field("io.k8s.api.core.v1.PersistentVolumeSpec", "capacity"),
    Column::string("Access Modes").field("io.k8s.api.core.v1.PersistentVolumeSpec", "accessModes"),
    Column::string("Reclaim Policy").field("io.k8s.api.core.v1.PersistentVolumeSpec", "persistentVolumeReclaimPolicy"),
    Column::string("Status").field("io.k8s.api.core.v1.PersistentVolumeStatus", "phase"),
    Column::string("Claim").field("io.k8s.api.core.v1.PersistentVolumeSpec", "claimRef"),
    Column::string("StorageClass").describe("StorageClass of the pv"),
    Column::string("VolumeAttributesClass").describe("VolumeAttributesClass of the pv"),
    Column::string("Reason").field("io.k8s.api.core.v1.PersistentVolumeStatus", "reason"),
    AGE,
    Column::string("VolumeMode").wide().field("io.k8s.api.core.v1.PersistentVolumeSpec", "volumeMode"),
];
const MODES: [(&str, &str); 4] =
    [("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOnce", "RWO"), ("ReadWriteOncePod", "RWOP")];
/// Volume types in upstream's order, and the names its errors give them.
const SOURCES: &[(&str, &str)] = &[
    ("hostPath", "hostPath"),
    ("gcePersistentDisk", "persistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore"),
    ("glusterfs", "glusterfs"),
    ("flocker", "flocker"),
    ("nfs", "nfs"),
    ("rbd", "rbd"),
    ("quobyte", "quobyte"),
    ("cephfs", "cephFS"),
    ("iscsi", "iscsi"),
    ("cinder", "cinder"),
    ("fc", "fc"),
    ("flexVolume", "flexVolume"),
    ("azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk"),
    ("scaleIO", "scaleIO"),
    ("local", "local"),
    ("storageos", "storageos"),
    ("csi", "csi"),
];

impl Strategy for PersistentVolume {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            set_default(spec, "persistentVolumeReclaimPolicy", "Retain");
            set_default(spec, "volumeMode", "Filesystem");
            field_mut(spec, "capacity").into_iter().for_each(round_up);
            if let Some(host) = field_mut(spec, "hostPath") {
                if !host.has("type") {
                    host["type"] = "".into();
                }
            }
            if let Some(iscsi) = field_mut(spec, "iscsi") {
                set_default(iscsi, "iscsiInterface", "default");
            }
        }
        if let Some(status) = map_mut(obj, "status") {
            set_default(status, "phase", "Pending");
        }
    }

    fn prepare_for_create(&self, ctx: &Ctx<'_>, obj: &mut Object) {
        obj["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": ctx.timestamp()});
    }

    fn prepare_for_status_update(&self, ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "spec");
        if new.at("status").text("phase") != old.at("status").text("phase")
            && same(new.at("status").at("lastPhaseTransitionTime"), old.at("status").at("lastPhaseTransitionTime"))
        {
            api::meta::field_mut(new, "status").insert("lastPhaseTransitionTime".into(), ctx.timestamp().into());
        }
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec(&mut errors, obj.at("spec"), false, &SPEC);
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        let (now, was) = (new.at("spec"), old.at("spec"));
        spec(&mut errors, now, false, &SPEC);
        let sources = |spec: &Value| -> Value {
            SOURCES
                .iter()
                .filter(|(k, _)| spec.has(k))
                .map(|(k, _)| ((*k).to_owned(), spec.at(k).clone()))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let (mut a, b) = (sources(now), sources(was));
        // a secret for expansion may be added later
        if was.at("csi").is_object() && !was.at("csi").has("controllerExpandSecretRef") {
            a.get_mut("csi").and_then(Value::as_object_mut).map(|csi| csi.remove("controllerExpandSecretRef"));
        }
        if !same(&a, &b) {
            let text = "spec.persistentvolumesource is immutable after creation";
            let changes = difference("io.k8s.api.core.v1.PersistentVolumeSource", &b, &a);
            errors.forbidden(&SPEC.field("persistentvolumesource"), &format!("{text}\n{changes}"));
        }
        errors.immutable(&Path::root("volumeMode"), now.at("volumeMode"), was.at("volumeMode"));
        if was.has("nodeAffinity") {
            errors.immutable(&SPEC.field("nodeAffinity"), now.at("nodeAffinity"), was.at("nodeAffinity"));
        }
        errors.0
    }

    fn metadata_on_update(&self) -> crate::MetadataChecks {
        crate::MetadataChecks::Both
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (obj.at("spec"), obj.at("status"));
        let phase = if api::meta::is_deleting(obj) { "Terminating" } else { status.text("phase") };
        let claim = spec.at("claimRef");
        let claim =
            if claim.is_null() { String::new() } else { format!("{}/{}", claim.text("namespace"), claim.text("name")) };
        let class = api::meta::annotation(obj, "volume.beta.kubernetes.io/storage-class");
        vec![
            api::meta::name(obj).into(),
            capacity(spec).into(),
            format_access_modes(&spec.texts("accessModes")).into(),
            spec.text("persistentVolumeReclaimPolicy").into(),
            phase.into(),
            claim.into(),
            class.unwrap_or(spec.text("storageClassName")).into(),
            or_unset(spec.text("volumeAttributesClassName")),
            status.text("reason").into(),
            age::since_creation(obj, now).into(),
            or_unset(spec.text("volumeMode")),
        ]
    }
}

/// The amount of storage, or empty.
pub fn capacity(of: &Value) -> String {
    let storage = of.at("capacity").at("storage");
    if storage.is_null() { String::new() } else { quantity(storage).to_string() }
}

/// Access modes in short, `RWO,ROX`.
pub fn format_access_modes(modes: &[&str]) -> String {
    let order = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"];
    let short = |mode: &str| MODES.iter().find(|(m, _)| *m == mode).map_or("", |(_, s)| *s);
    order.iter().filter(|m| modes.contains(m)).map(|m| short(m)).collect::<Vec<_>>().join(",")
}

/// Errors of access modes.
pub fn access_modes(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let supported = MODES.map(|(mode, _)| mode);
    let modes = spec.texts("accessModes");
    for mode in &modes {
        errors.supported(path, mode, &supported);
    }
    let (one, other) =
        (modes.contains(&"ReadWriteOncePod"), modes.iter().any(|m| *m != "ReadWriteOncePod" && supported.contains(m)));
    if one && other {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// Errors of a volume's spec; `inline`: one that a volume attachment carries.
pub fn spec(errors: &mut Errors, spec: &Value, inline: bool, path: &Path<'_>) {
    const INLINE: &str = "may not be specified in the context of inline volumes";
    if inline {
        for field in ["claimRef", "capacity"] {
            if spec.has(field) {
                errors.forbidden(&path.field(field), INLINE);
            }
        }
        if !spec.has("csi") {
            errors.required(&path.field("csi"), "has to be specified in the context of inline volumes");
        }
    }
    if spec.list("accessModes").is_empty() {
        errors.required(&path.field("accessModes"), "");
    }
    access_modes(errors, spec, &path.field("accessModes"));
    if !inline {
        size(errors, spec, &path.field("capacity"));
        let policy = spec.text("persistentVolumeReclaimPolicy");
        if !policy.is_empty() {
            let path = path.field("persistentVolumeReclaimPolicy");
            errors.supported(&path, policy, &["Delete", "Recycle", "Retain"]);
        }
    }
    let affinity = spec.at("nodeAffinity");
    match (affinity.is_null(), inline) {
        (false, true) => errors.forbidden(&path.field("nodeAffinity"), INLINE),
        (false, false) => node_affinity(errors, affinity, &path.field("nodeAffinity")),
        _ => {}
    }
    sources(errors, spec, path);
    let root = spec.at("hostPath").text("path").trim_end_matches('/').is_empty() && spec.has("hostPath");
    if root && spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        let text = "may not be 'recycle' for a hostPath mount of '/'";
        errors.forbidden(&path.field("persistentVolumeReclaimPolicy"), text);
    }
    let class = spec.text("storageClassName");
    if !class.is_empty() {
        match inline {
            true => errors.forbidden(&path.field("storageClassName"), INLINE),
            false => {
                errors.invalid_each(&path.field("storageClassName"), class, names::dns1123_subdomain(class, false))
            }
        }
    }
    if spec.has("volumeMode") && !inline {
        errors.supported(&path.field("volumeMode"), spec.text("volumeMode"), &["Block", "Filesystem"]);
    }
    if spec.has("volumeAttributesClassName") {
        let (class, at) = (spec.text("volumeAttributesClassName"), path.field("volumeAttributesClassName"));
        match class {
            "" => errors.required(&at, "an empty string is disallowed"),
            class => errors.invalid_each(&at, class, names::dns1123_subdomain(class, false)),
        }
        if !spec.has("csi") {
            errors.required(&path.field("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
}

fn size(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let count = spec.entries("capacity").count();
    if count == 0 {
        errors.required(path, "");
    }
    if count > 1 || !spec.at("capacity").has("storage") {
        errors.not_supported(path, spec.at("capacity").clone(), &["storage"]);
    }
    for (name, value) in spec.entries("capacity") {
        if quantity(value).sign() <= 0 {
            errors.invalid(&path.key(name), quantity(value).to_string(), "must be greater than zero");
        }
    }
}

fn node_affinity(errors: &mut Errors, affinity: &Value, path: &Path<'_>) {
    match affinity.has("required") {
        true => node_selector(errors, affinity.at("required"), &path.field("required")),
        false => errors.required(&path.field("required"), "must specify required node constraints"),
    }
}

fn sources(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let mut found = false;
    for (kind, shown) in SOURCES.iter().filter(|(kind, _)| spec.has(kind)) {
        // flexVolume may stand beside another, as upstream forgot
        if std::mem::replace(&mut found, true) && *kind != "flexVolume" {
            let shown = if *kind == "gcePersistentDisk" { kind } else { shown };
            errors.forbidden(&path.field(shown), "may not specify more than 1 volume type");
            continue;
        }
        let (of, path_of) = (spec.at(kind), path.field(shown));
        match *kind {
            "csi" => csi(errors, of, &path_of),
            kind => volume_sources::source(errors, kind, of, &path_of),
        }
        if *kind == "local" && !spec.has("nodeAffinity") {
            errors.required(&path.field("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    if !found {
        errors.required(path, "must specify a volume type");
    }
}

fn csi(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    volume_sources::csi_driver_name(errors, of.text("driver"), &path.field("driver"));
    if of.text("volumeHandle").is_empty() {
        errors.required(&path.field("volumeHandle"), "");
    }
    for field in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        let (secret, path) = (of.at(field), path.field(field));
        if secret.is_null() {
            continue;
        }
        for (part, rule) in [("name", names::dns1123_subdomain as names::NameRule), ("namespace", names::dns1123_label)]
        {
            match secret.text(part) {
                "" => errors.required(&path.field(part), ""),
                text => errors.invalid_each(&path.field(part), text, rule(text, false)),
            }
        }
    }
}
