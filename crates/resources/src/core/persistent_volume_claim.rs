//! Persistent volume claims.

use crate::age;
use crate::columns::{AGE, NAME, or_unset};
use crate::core::persistent_volume::{access_modes, capacity, format_access_modes};
use crate::core::quantities::{amount, fractional, is_native, quantity, round_up};
use crate::difference::difference;
use crate::field::{Errors, Fields, Path, field_mut, map_mut, same, set_default};
use crate::rules::{self, Check, Rule};
use crate::{Ctx, StatusRules, Strategy, copy_field, metadata, names};
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

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        let annotated = api::meta::annotation(obj, "volume.beta.kubernetes.io/storage-class").map(|_| {
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead".to_owned()
        });
        let mut out = Vec::from_iter(annotated);
        out.extend(spec_warnings(obj.at("spec"), &SPEC));
        out
    }

    fn status_rules(&self) -> StatusRules {
        StatusRules::begins(|| json!({"phase": "Pending"}))
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        self.status_rules().begin(obj);
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
        allocated(&mut errors, new.at("status"));
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
    if create && !spec.at("dataSourceRef").text("namespace").is_empty() {
        spec.as_object_mut().map(|map| map.remove("dataSourceRef"));
    }
    let (source, by_ref) = (spec.at("dataSource").clone(), spec.at("dataSourceRef").clone());
    if by_ref.text("namespace").is_empty() {
        match (source.is_null(), by_ref.is_null()) {
            (false, true) => spec["dataSourceRef"] = source,
            (true, false) => {
                let mut source = by_ref;
                source.as_object_mut().map(|map| map.remove("namespace"));
                spec["dataSource"] = source;
            }
            _ => {}
        }
    }
}

/// Errors of the template of a claim that an ephemeral volume makes.
pub fn template(errors: &mut Errors, template: &Value, path: &Path<'_>) {
    metadata::of_template(errors, template.at("metadata"), &path.field("metadata"));
    spec(errors, template.at("spec"), &path.field("spec"));
}

const CLASS: Check = Check::MaybeNamed(names::subdomain);
const CLAIM: &[Rule] = &[
    ("accessModes", Check::Given("at least 1 access mode is required")),
    ("selector", Check::By(metadata::label_selector)),
    ("accessModes", Check::In(access_modes)),
    ("resources", Check::By(storage)),
    ("storageClassName", CLASS),
    ("volumeMode", Check::Optional(&["Block", "Filesystem"])),
    ("dataSource", Check::By(source)),
    ("dataSourceRef", Check::By(source)),
];

/// Errors of a claim's spec.
pub fn spec(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    rules::check(errors, spec, path, CLAIM);
    both_sources(errors, spec, path);
    rules::check(errors, spec, path, &[("volumeAttributesClassName", CLASS)]);
}

fn storage(errors: &mut Errors, resources: &Value, path: &Path<'_>) {
    let (path, storage) = (path.key("storage"), resources.at("requests").at("storage"));
    if storage.is_null() {
        errors.required(&path, "");
    } else if quantity(storage).sign() <= 0 {
        errors.invalid(&path, quantity(storage).to_string(), "must be greater than zero");
    } else {
        amount(errors, "storage", storage, &path);
    }
}

/// Errors of what is said twice are told of the whole spec.
fn both_sources(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let (source, by_ref) = (spec.at("dataSource"), spec.at("dataSourceRef"));
    if source.is_null() || by_ref.is_null() {
        return;
    }
    let at = path.field("dataSource").to_string();
    if !by_ref.text("namespace").is_empty() {
        errors.invalid(path, at, "may not be specified when dataSourceRef.namespace is specified");
    } else if ["apiGroup", "kind", "name"].iter().any(|f| source.text(f) != by_ref.text(f)) {
        errors.invalid(path, at, "must match dataSourceRef");
    }
}

const SOURCE: &[Rule] = &[
    ("name", Check::Given("")),
    ("kind", Check::Given("")),
    ("apiGroup", Check::MaybeNamed(names::subdomain)),
    ("namespace", Check::MaybeNamed(names::label)),
];

fn source(errors: &mut Errors, source: &Value, path: &Path<'_>) {
    if source.is_null() {
        return;
    }
    let (required, names) = SOURCE.split_at(2);
    rules::check(errors, source, path, required);
    let kind = source.text("kind");
    if source.text("apiGroup").is_empty() && kind != "PersistentVolumeClaim" {
        errors.invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    }
    rules::check(errors, source, path, names);
}

/// Only a bound claim may grow, or change the class of its volume's attributes; volume and class are given once.
fn fixed(errors: &mut Errors, new: &Object, old: &Object) {
    let (now, was) = (new.at("spec"), old.at("spec"));
    let (mut rest, mut before) = (now.clone(), was.clone());
    if was.text("volumeName").is_empty() {
        copy_field(&mut before, now, "volumeName");
    }
    if !was.has("storageClassName") {
        copy_field(&mut rest, was, "storageClassName");
    }
    if new.at("status").text("phase") == "Bound" {
        copy_field(&mut rest, was, "volumeAttributesClassName");
        if let Some(requests) = rest.pointer_mut("/resources/requests") {
            copy_field(requests, was.at("resources").at("requests"), "storage");
        }
    }
    if !same(&rest, &before) {
        let text =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        let changes = difference("io.k8s.api.core.v1.PersistentVolumeClaimSpec", &before, &rest);
        errors.forbidden(&SPEC, &format!("{text}\n{changes}"));
    }
    let size = |obj: &Value| quantity(obj.at("resources").at("requests").at("storage"));
    if size(now) < size(was) && size(now) <= quantity(old.at("status").at("capacity").at("storage")) {
        let path = SPEC.field("resources.requests.storage");
        errors.forbidden(&path, "field can not be less than status.capacity");
    }
    errors.immutable(&Path::root("volumeMode"), now.at("volumeMode"), was.at("volumeMode"));
    kept_class(errors, now, old);
}

/// A class of attributes that is in use can be changed for another, not given up.
fn kept_class(errors: &mut Errors, now: &Value, old: &Object) {
    let (class, was) = (now.at("volumeAttributesClassName"), old.at("spec").at("volumeAttributesClassName"));
    if !old.at("status").has("currentVolumeAttributesClassName") || same(class, was) {
        return;
    }
    let to = match class.as_str() {
        None => "nil",
        Some("") => "empty string",
        Some(_) => return,
    };
    let text = format!("update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil");
    errors.forbidden(&SPEC.field("volumeAttributesClassName"), &text);
}

/// Warnings about a claim's spec.
pub fn spec_warnings(spec: &Value, path: &Path<'_>) -> Vec<String> {
    let (mut out, path) = (Vec::new(), path.field("resources"));
    for list in ["requests", "limits"] {
        let found = fractional(spec.at("resources").at(list), &["storage"]);
        out.extend(found.map(|(name, text)| format!("{}: {text}", path.field(list).key(name))));
    }
    out
}

const RESIZE_STATES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

/// Errors of what an expansion was given.
fn allocated(errors: &mut Errors, status: &Value) {
    let path = Path::root("status.allocatedResourceStatuses");
    for (name, state) in status.entries("allocatedResourceStatuses") {
        resource_key(errors, name, &path);
        if !RESIZE_STATES.contains(&state.as_str().unwrap_or("")) {
            errors.not_supported(&path, name.as_str(), &RESIZE_STATES);
        }
    }
    let path = Path::root("status.allocatedResources");
    for (name, value) in status.entries("allocatedResources") {
        if resource_key(errors, name, &path) {
            let units = quantity(value).value();
            match units < 0 {
                true => errors.invalid(&path.key(name), units, "must be a valid resource quantity"),
                false => amount(errors, "storage", value, &path.key(name)),
            }
        }
    }
}

/// Whether a claim may have a resource; of Kubernetes' own only storage.
fn resource_key(errors: &mut Errors, name: &str, path: &Path<'_>) -> bool {
    let bad = names::qualified_name(name);
    let ok = bad.is_empty() && (!is_native(name) || name == "storage");
    match bad.is_empty() {
        true if !ok => errors.not_supported(path, name, &["storage"]),
        _ => errors.invalid_each(path, name, bad),
    }
    ok
}
