//! Persistent volume claims.

use crate::difference::difference;
use crate::age;
use crate::columns::{AGE, NAME, or_unset};
use crate::core::persistent_volume::{access_modes, capacity, format_access_modes};
use crate::core::quantities::{amount, quantity, round_up};
use crate::field::{Errors, Fields, Path, field_mut, map_mut, same, set_default};
use crate::{Ctx, Strategy, copy_field, metadata, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Persistent volume claims.
pub struct PersistentVolumeClaim;

const SPEC: Path<'_> = Path::root("spec");
const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Status").field("io.k8s.api.core.v1.PersistentVolumeClaimStatus", "phase"),
    Column::string("Volume").field("io.k8s.api.core.v1.PersistentVolumeClaimSpec", "volumeName"),
    Column::string("Capacity").field("io.k8s.api.core.v1.PersistentVolumeClaimStatus", "capacity"),
    Column::string("Access Modes").field("io.k8s.api.core.v1.PersistentVolumeClaimStatus", "accessModes"),
    Column::string("StorageClass").describe("StorageClass of the pvc"),
    Column::string("VolumeAttributesClass").describe("VolumeAttributesClass of the pvc"),
    AGE,
    Column::string("VolumeMode").wide().field("io.k8s.api.core.v1.PersistentVolumeClaimSpec", "volumeMode"),
];

impl Strategy for PersistentVolumeClaim {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            set_default(spec, "volumeMode", "Filesystem");
            if let Some(resources) = map_mut(spec, "resources") {
                for list in ["limits", "requests"] {
                    field_mut(resources, list).into_iter().for_each(round_up);
                }
            }
        }
        if let Some(status) = map_mut(obj, "status") {
            set_default(status, "phase", "Pending");
        }
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        obj["status"] = json!({"phase": "Pending"});
        if let Some(spec) = obj.get_mut("spec") {
            data_source(spec, true);
        }
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "status");
        if let Some(spec) = new.get_mut("spec") {
            // what a claim was made from is decided when it is made
            let unsourced = !old.at("spec").has("dataSource") && !old.at("spec").has("dataSourceRef");
            data_source(spec, unsourced);
        }
    }

    fn prepare_for_status_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "spec");
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec(&mut errors, obj.at("spec"), &SPEC);
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec(&mut errors, new.at("spec"), &SPEC);
        fixed(&mut errors, new, old);
        errors.0
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, _old: &Object) -> Vec<Cause> {
        let (mut errors, path) = (Errors::default(), Path::root("status.capacity"));
        for (name, value) in new.at("status").entries("capacity") {
            let units = quantity(value).value();
            if units < 0 {
                errors.invalid(&path.key(name), units, "must be a valid resource quantity");
            }
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
        let volume = spec.text("volumeName");
        let phase = if api::meta::is_deleting(obj) { "Terminating" } else { status.text("phase") };
        let (size, modes) = match volume {
            "" => (String::new(), String::new()),
            _ => (capacity(status), format_access_modes(&status.texts("accessModes"))),
        };
        let class = api::meta::annotation(obj, "volume.beta.kubernetes.io/storage-class");
        vec![
            api::meta::name(obj).into(),
            phase.into(),
            volume.into(),
            size.into(),
            modes.into(),
            class.unwrap_or(spec.text("storageClassName")).into(),
            or_unset(spec.text("volumeAttributesClassName")),
            age::since_creation(obj, now).into(),
            or_unset(spec.text("volumeMode")),
        ]
    }
}

/// `dataSource` and `dataSourceRef` say the same; each is completed from the other. A new `dataSource` that is
/// neither a claim nor a snapshot is dropped, as it always was.
fn data_source(spec: &mut Value, create: bool) {
    let kind = (spec.at("dataSource").text("apiGroup"), spec.at("dataSource").text("kind"));
    let known = [("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot")].contains(&kind);
    if create && !known {
        spec.as_object_mut().map(|map| map.remove("dataSource"));
    }
    // A source in another namespace is behind a gate that is off.
    if create && spec.at("dataSourceRef").has("namespace") {
        spec.as_object_mut().map(|map| map.remove("dataSourceRef"));
    }
    let (source, by_ref) = (spec.at("dataSource").clone(), spec.at("dataSourceRef").clone());
    if by_ref.text("namespace").is_empty() {
        match (source.is_null(), by_ref.is_null()) {
            (false, true) => spec["dataSourceRef"] = source,
            (true, false) => spec["dataSource"] = by_ref,
            _ => {}
        }
    }
}

/// Errors of the template of a claim that an ephemeral volume makes.
pub fn template(errors: &mut Errors, template: &Value, path: &Path<'_>) {
    let meta = template.at("metadata");
    let metadata_path = path.field("metadata");
    metadata::annotations(errors, meta.at("annotations"), &metadata_path.field("annotations"));
    metadata::labels(errors, meta.at("labels"), &metadata_path.field("labels"));
    for (field, _) in template.entries("metadata").filter(|(f, _)| !["annotations", "labels"].contains(&f.as_str())) {
        errors.forbidden(&metadata_path.field(field), "cannot be set");
    }
    spec(errors, template.at("spec"), &path.field("spec"));
}

/// Errors of a claim's spec.
pub fn spec(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    if spec.list("accessModes").is_empty() {
        errors.required(&path.field("accessModes"), "at least 1 access mode is required");
    }
    metadata::label_selector(errors, spec.at("selector"), &path.field("selector"));
    access_modes(errors, spec, &path.field("accessModes"));
    let (resources, storage) = (path.field("resources"), spec.at("resources").at("requests").at("storage"));
    let storage_path = resources.key("storage");
    if storage.is_null() {
        errors.required(&storage_path, "");
    } else if quantity(storage).sign() <= 0 {
        errors.invalid(&storage_path, quantity(storage).to_string(), "must be greater than zero");
    } else {
        amount(errors, "storage", storage, &storage_path);
    }
    let class = |errors: &mut Errors, field: &str| {
        let name = spec.text(field);
        if !name.is_empty() {
            errors.invalid_each(&path.field(field), name, names::dns1123_subdomain(name, false));
        }
    };
    class(errors, "storageClassName");
    if spec.has("volumeMode") {
        errors.supported(&path.field("volumeMode"), spec.text("volumeMode"), &["Block", "Filesystem"]);
    }
    for field in ["dataSource", "dataSourceRef"] {
        source(errors, spec.at(field), &path.field(field));
    }
    let (source, by_ref) = (spec.at("dataSource"), spec.at("dataSourceRef"));
    if !source.is_null() && !by_ref.is_null() {
        let at = path.field("dataSource").to_string();
        if !by_ref.text("namespace").is_empty() {
            errors.invalid(path, at, "may not be specified when dataSourceRef.namespace is specified");
        } else if ["apiGroup", "kind", "name"].iter().any(|f| source.text(f) != by_ref.text(f)) {
            errors.invalid(path, at, "must match dataSourceRef");
        }
    }
    class(errors, "volumeAttributesClassName");
}

fn source(errors: &mut Errors, source: &Value, path: &Path<'_>) {
    if source.is_null() {
        return;
    }
    for field in ["name", "kind"] {
        if source.text(field).is_empty() {
            errors.required(&path.field(field), "");
        }
    }
    let (group, kind) = (source.text("apiGroup"), source.text("kind"));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        errors.invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    }
    if !group.is_empty() {
        errors.invalid_each(&path.field("apiGroup"), group, names::dns1123_subdomain(group, false));
    }
    let ns = source.text("namespace");
    if !ns.is_empty() {
        errors.invalid_each(&path.field("namespace"), ns, names::dns1123_label(ns, false));
    }
}

/// Only a bound claim may grow, or change the class of its volume's attributes.
fn fixed(errors: &mut Errors, new: &Object, old: &Object) {
    let (now, was) = (new.at("spec"), old.at("spec"));
    let mut rest = now.clone();
    let mut before = was.clone();
    if was.text("volumeName").is_empty() {
        copy_field(&mut before, &rest, "volumeName");
    }
    if !was.has("storageClassName") {
        copy_field(&mut rest, was, "storageClassName");
    }
    let bound = new.at("status").text("phase") == "Bound";
    if bound {
        copy_field(&mut rest, was, "volumeAttributesClassName");
        if let Some(requests) = rest.pointer_mut("/resources/requests") {
            copy_field(requests, was.at("resources").at("requests"), "storage");
        }
    }
    let storage = SPEC.field("resources.requests.storage");
    if !same(&rest, &before) {
        let text =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        let changes = difference("io.k8s.api.core.v1.PersistentVolumeClaimSpec", &before, &rest);
        errors.forbidden(&SPEC, &format!("{text}\n{changes}"));
    }
    let size = |obj: &Value| quantity(obj.at("resources").at("requests").at("storage"));
    if size(now) < size(was) && size(now) <= quantity(old.at("status").at("capacity").at("storage")) {
        errors.forbidden(&storage, "field can not be less than status.capacity");
    }
    errors.immutable(&Path::root("volumeMode"), now.at("volumeMode"), was.at("volumeMode"));
    if old.at("status").has("currentVolumeAttributesClassName")
        && !same(now.at("volumeAttributesClassName"), was.at("volumeAttributesClassName"))
    {
        let path = SPEC.field("volumeAttributesClassName");
        let text = "is forbidden when status.currentVolumeAttributesClassName is not nil";
        match now.at("volumeAttributesClassName").as_str() {
            None => errors.forbidden(&path, &format!("update to nil {text}")),
            Some("") => errors.forbidden(&path, &format!("update to empty string {text}")),
            Some(_) => {}
        }
    }
}
