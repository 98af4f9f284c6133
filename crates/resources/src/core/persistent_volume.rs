//! Persistent volumes.

mod source;

use crate::age;
use crate::columns::{AGE, NAME, or_unset};
use crate::core::pod::defaults;
use crate::core::pod::{node_selector, warnings};
use crate::core::quantities::{quantity, round_up};
use crate::difference::difference;
use crate::field::{Errors, Fields, IMMUTABLE, Path, field_mut, map_mut, same, set_default};
use crate::rules::{self, Check, Rule};
use crate::{Ctx, MetadataChecks, Strategy, copy_field, names, semantic};
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
const DEPRECATED_ANNOTATIONS: [(&str, &str); 2] = [
    ("volume.beta.kubernetes.io/storage-class", "deprecated since v1.8; use \"storageClassName\" attribute instead"),
    ("volume.beta.kubernetes.io/mount-options", "deprecated since v1.31; use \"mountOptions\" attribute instead"),
];
const RECYCLE: &str =
    "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";
/// Outdated volume types, and the names that the warnings give them.
const DEPRECATED_SOURCES: [(&str, &str); 6] = [
    ("cephfs", "cephfs"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("scaleIO", "scaleIO"),
    ("storageos", "storageOS"),
    ("glusterfs", "glusterfs"),
    ("rbd", "rbd"),
];

impl Strategy for PersistentVolume {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            set_default(spec, "persistentVolumeReclaimPolicy", "Retain");
            set_default(spec, "volumeMode", "Filesystem");
            field_mut(spec, "capacity").into_iter().for_each(round_up);
            spec.as_object_mut().into_iter().for_each(defaults::volume_sources);
        }
        if let Some(status) = map_mut(obj, "status") {
            set_default(status, "phase", "Pending");
        }
    }

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        let spec = obj.at("spec");
        let old_ways = DEPRECATED_ANNOTATIONS.iter().filter(|(key, _)| api::meta::annotation(obj, key).is_some());
        let mut out: Vec<String> = old_ways.map(|(key, text)| format!("metadata.annotations[{key}]: {text}")).collect();
        if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
            out.push(format!("spec.persistentVolumeReclaimPolicy: {RECYCLE}"));
        }
        let required = spec.at("nodeAffinity").at("required");
        rules::each(required, "nodeSelectorTerms", &SPEC.field("nodeAffinity.required"), |term, path| {
            out.extend(warnings::deprecated_labels(term, path));
        });
        for (_, shown) in DEPRECATED_SOURCES.iter().filter(|(field, _)| spec.has(field)) {
            out.extend(warnings::deprecated_volume(shown).map(|text| format!("spec.{shown}: {text}")));
        }
        out
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
        } else if !new.at("status").has("lastPhaseTransitionTime") && old.at("status").has("lastPhaseTransitionTime") {
            let since = old.at("status").at("lastPhaseTransitionTime").clone();
            api::meta::field_mut(new, "status").insert("lastPhaseTransitionTime".into(), since);
        }
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec(&mut errors, obj.at("spec"), Some(api::meta::name(obj)), &SPEC);
        source::mount_options(&mut errors, obj);
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        let (now, was) = (new.at("spec"), old.at("spec"));
        // Upstream validates a changed volume twice over.
        let name = Some(api::meta::name(new));
        spec(&mut errors, now, name, &SPEC);
        source::mount_options(&mut errors, new);
        spec(&mut errors, now, name, &SPEC);
        fixed_source(&mut errors, now, was);
        errors.immutable(&Path::root("volumeMode"), now.at("volumeMode"), was.at("volumeMode"));
        fixed_affinity(&mut errors, now.at("nodeAffinity"), was.at("nodeAffinity"));
        if was.has("volumeAttributesClassName") && !now.has("volumeAttributesClassName") {
            let path = SPEC.field("volumeAttributesClassName");
            errors.forbidden(&path, "update from non-nil value to nil is forbidden");
        }
        errors.0
    }

    fn metadata_on_update(&self) -> crate::MetadataChecks {
        MetadataChecks::CreateTwice
    }

    fn metadata_on_status_update(&self) -> MetadataChecks {
        MetadataChecks::Update
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

/// The source stays, but a secret for expansion may be added to it.
fn fixed_source(errors: &mut Errors, now: &Value, was: &Value) {
    let source = |spec: &Value| -> Value {
        let given = source::SOURCES.iter().filter(|(kind, ..)| spec.has(kind));
        given.map(|(kind, ..)| (*kind, spec.at(kind).clone())).collect()
    };
    let (mut new, old) = (source(now), source(was));
    if was.at("csi").is_object() && !was.at("csi").has("controllerExpandSecretRef") {
        new.get_mut("csi").and_then(Value::as_object_mut).map(|csi| csi.remove("controllerExpandSecretRef"));
    }
    let schema = "io.k8s.api.core.v1.PersistentVolumeSource";
    if !semantic::equal(schema, &new, &old) {
        let text = "spec.persistentvolumesource is immutable after creation";
        let changes = difference(schema, &old, &new);
        errors.forbidden(&SPEC.field("persistentvolumesource"), &format!("{text}\n{changes}"));
    }
}

/// Labels that were renamed when they became stable.
const RENAMED: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// The nodes stay once they are given, but labels may go by their newer names.
fn fixed_affinity(errors: &mut Errors, now: &Value, was: &Value) {
    let (schema, mut was) = ("io.k8s.api.core.v1.VolumeNodeAffinity", was.clone());
    if was.is_null() {
        return;
    }
    let terms = |of: &Value| of.at("required").list("nodeSelectorTerms").to_vec();
    let new_terms = terms(now);
    let old_terms = was.pointer_mut("/required/nodeSelectorTerms").and_then(Value::as_array_mut).into_iter().flatten();
    for (old, new) in old_terms.zip(&new_terms) {
        for list in ["matchExpressions", "matchFields"] {
            for (old, new) in crate::field::items_mut(old, list).zip(new.list(list)) {
                if RENAMED.contains(&(old.text("key"), new.text("key"))) {
                    old["key"] = new.at("key").clone();
                }
            }
        }
    }
    if now.is_null() || !semantic::equal(schema, now, &was) {
        let text = format!("{IMMUTABLE}, except for updating from beta label to GA");
        match now {
            Value::Null => errors.invalid(&Path::root("nodeAffinity"), Value::Null, &text),
            now => errors.invalid_struct(&Path::root("nodeAffinity"), schema, now, &text),
        }
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

const INLINE: &str = "may not be specified in the context of inline volumes";
const MODES_GIVEN: Rule = ("accessModes", Check::Given(""));
const MODES_KNOWN: Rule = ("accessModes", Check::In(access_modes));
/// What a volume has before and after its source.
const OWN: [&[Rule]; 2] = [
    &[
        MODES_GIVEN,
        MODES_KNOWN,
        ("capacity", Check::In(size)),
        ("persistentVolumeReclaimPolicy", Check::In(reclaim_policy)),
        ("nodeAffinity", Check::By(node_affinity)),
    ],
    &[
        ("persistentVolumeReclaimPolicy", Check::In(recycled_root)),
        ("storageClassName", Check::MaybeNamed(names::subdomain)),
        ("volumeMode", Check::Optional(&["Block", "Filesystem"])),
        ("volumeAttributesClassName", Check::In(attributes_class)),
    ],
];
/// The same of a volume that an attachment carries, which no claim can be bound to.
const INLINE_ONE: [&[Rule]; 2] = [
    &[
        ("claimRef", Check::Absent(INLINE)),
        ("capacity", Check::Unset(INLINE)),
        ("csi", Check::By(inline_csi)),
        MODES_GIVEN,
        MODES_KNOWN,
        ("persistentVolumeReclaimPolicy", Check::In(retained)),
        ("nodeAffinity", Check::Absent(INLINE)),
    ],
    &[
        ("persistentVolumeReclaimPolicy", Check::In(recycled_root)),
        ("storageClassName", Check::In(no_class)),
        ("volumeMode", Check::In(mounted)),
    ],
];

/// Errors of the spec of a volume of this name, or without one of that which a volume attachment carries.
pub fn spec(errors: &mut Errors, spec: &Value, name: Option<&str>, path: &Path<'_>) {
    let [before, after] = if name.is_none() { INLINE_ONE } else { OWN };
    rules::check(errors, spec, path, before);
    let placed = name.is_some() && spec.has("nodeAffinity");
    source::sources(errors, spec, name.unwrap_or(""), placed, path);
    rules::check(errors, spec, path, after);
    if name.is_some() && spec.has("volumeAttributesClassName") && !spec.has("csi") {
        errors.required(&path.field("csi"), "has to be specified when using volumeAttributesClassName");
    }
}

/// What is carried is not reclaimed.
fn retained(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    if !["", "Retain"].contains(&spec.text("persistentVolumeReclaimPolicy")) {
        errors.forbidden(path, "may only be Retain in the context of inline volumes");
    }
}

fn no_class(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    if !spec.text("storageClassName").is_empty() {
        errors.forbidden(path, INLINE);
    }
}

fn mounted(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    if spec.has("volumeMode") && spec.text("volumeMode") != "Filesystem" {
        errors.forbidden(path, "may not specify volumeMode other than Filesystem in the context of inline volumes");
    }
}

fn inline_csi(errors: &mut Errors, csi: &Value, path: &Path<'_>) {
    if csi.is_null() {
        errors.required(path, "has to be specified in the context of inline volumes");
    }
}

fn reclaim_policy(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let policy = spec.text("persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        errors.one_of(path, policy, &["Delete", "Recycle", "Retain"]);
    }
}

/// What is recycled is emptied.
fn recycled_root(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let root = spec.has("hostPath") && is_root(spec.at("hostPath").text("path"));
    if root && spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        errors.forbidden(path, "may not be 'recycle' for a hostPath mount of '/'");
    }
}

/// Whether a path is another way to write `/`.
fn is_root(path: &str) -> bool {
    let mut depth = 0_usize;
    for part in path.split('/').filter(|part| !["", "."].contains(part)) {
        depth = if part == ".." { depth.saturating_sub(1) } else { depth + 1 };
    }
    path.starts_with('/') && depth == 0
}

fn attributes_class(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    match spec.text("volumeAttributesClassName") {
        _ if !spec.has("volumeAttributesClassName") => {}
        "" => errors.required(path, "an empty string is disallowed"),
        class => errors.invalid_each(path, class, names::subdomain(class)),
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
        if quantity(value).value() < 0 {
            errors.invalid(&path.key(name), quantity(value).value(), "must be a valid resource quantity");
        }
        if quantity(value).sign() <= 0 {
            errors.invalid(&path.key(name), quantity(value).to_string(), "must be greater than zero");
        }
    }
}

fn node_affinity(errors: &mut Errors, affinity: &Value, path: &Path<'_>) {
    match affinity.has("required") {
        _ if affinity.is_null() => {}
        true => node_selector(errors, affinity.at("required"), &path.field("required")),
        false => errors.required(&path.field("required"), "must specify required node constraints"),
    }
}
