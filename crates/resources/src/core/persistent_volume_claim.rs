//! Persistent volume claims.

use crate::age;
use crate::columns::{AGE, NAME, or_unset};
use crate::core::persistent_volume::{access_modes, capacity, format_access_modes};
use crate::core::quantities::{amount, fractional, is_native, quantity, round_up};
use crate::difference::difference;
use crate::field::{Errors, Fields, IMMUTABLE, Path, field_mut, map_mut, set_default};
use crate::rules::{self, Check, Rule};
use crate::{Ctx, MetadataChecks, StatusRules, Strategy, copy_field, metadata, names, semantic};
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
            for list in ["capacity", "allocatedResources"] {
                field_mut(status, list).into_iter().for_each(round_up);
            }
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
            data_source(spec, &Value::Null);
        }
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "status");
        if let Some(spec) = new.get_mut("spec") {
            data_source(spec, old.at("spec"));
        }
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec(&mut errors, obj.at("spec"), &SPEC);
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        let grouped = |field: &str| old.at("spec").at(field).has("apiGroup");
        // a group that was once accepted stays accepted
        let lenient = grouped("dataSource") || grouped("dataSourceRef");
        check_spec(&mut errors, new.at("spec"), lenient, &SPEC);
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
        MetadataChecks::Both
    }

    fn metadata_on_status_update(&self) -> MetadataChecks {
        MetadataChecks::Update
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

/// `dataSource` and `dataSourceRef` say the same; each is completed from the other. A new `dataSource` that stands alone
/// and is neither a claim nor a snapshot is dropped, as it always was.
fn data_source(spec: &mut Value, was: &Value) {
    let drop = |spec: &mut Value, field: &str| spec.as_object_mut().map(|map| map.remove(field));
    // A source in another namespace is behind a gate that is off.
    if !was.has("dataSourceRef") && !spec.at("dataSourceRef").text("namespace").is_empty() {
        drop(spec, "dataSourceRef");
    }
    let kind = (spec.at("dataSource").text("apiGroup"), spec.at("dataSource").text("kind"));
    let known = [("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot")].contains(&kind);
    if !was.has("dataSource") && !spec.has("dataSourceRef") && !known {
        drop(spec, "dataSource");
    }
    let (source, by_ref) = (spec.at("dataSource").clone(), spec.at("dataSourceRef").clone());
    match (source.is_null(), by_ref.is_null()) {
        (false, true) => spec["dataSourceRef"] = source,
        (true, false) if by_ref.text("namespace").is_empty() => {
            let mut source = by_ref;
            drop(&mut source, "namespace");
            spec["dataSource"] = source;
        }
        _ => {}
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
];

/// Errors of a claim's spec.
pub fn spec(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    check_spec(errors, spec, false, path);
}

/// As [`spec`]; `lenient`: groups of sources are not looked at.
fn check_spec(errors: &mut Errors, spec: &Value, lenient: bool, path: &Path<'_>) {
    rules::check(errors, spec, path, CLAIM);
    for field in ["dataSource", "dataSourceRef"] {
        source(errors, spec.at(field), lenient, &path.field(field));
    }
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
    // upstream gives a path for the value, which has no JSON
    let at = json!({});
    if !by_ref.text("namespace").is_empty() {
        errors.invalid(path, at, "may not be specified when dataSourceRef.namespace is specified");
    } else if ["apiGroup", "kind", "name"].iter().any(|f| source.at(f) != by_ref.at(f)) {
        errors.invalid(path, at, "must match dataSourceRef");
    }
}

const SOURCE: &[Rule] = &[("name", Check::Given("")), ("kind", Check::Given(""))];

fn source(errors: &mut Errors, source: &Value, lenient: bool, path: &Path<'_>) {
    if source.is_null() {
        return;
    }
    rules::check(errors, source, path, SOURCE);
    let kind = source.text("kind");
    if source.text("apiGroup").is_empty() && kind != "PersistentVolumeClaim" {
        errors.invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    }
    if !lenient {
        rules::check(errors, source, path, &[("apiGroup", Check::MaybeNamed(names::subdomain))]);
    }
    rules::check(errors, source, path, &[("namespace", Check::MaybeNamed(names::label))]);
}

/// Where the class of a claim once was.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Sets aside the class of a changed claim where it only moves from the annotation into its field, or is given for the
/// first time. The annotation itself stays otherwise.
fn moved_class(errors: &mut Errors, rest: &mut Value, new: &Object, old: &Object) {
    let annotation = |obj: &Object| api::meta::annotation(obj, CLASS_ANNOTATION).map(str::to_owned);
    let (noted, was_noted) = (annotation(new), annotation(old));
    let class = new.at("spec").at("storageClassName").as_str();
    let first = class.is_some() && !old.at("spec").has("storageClassName");
    let stays = noted.is_none() || noted == was_noted;
    if first && was_noted.is_some() && class == was_noted.as_deref() && stays {
        return copy_field(rest, old.at("spec"), "storageClassName");
    }
    if noted.as_deref().unwrap_or("") != was_noted.as_deref().unwrap_or("") {
        let path = Path::root("metadata.annotations");
        errors.invalid(&path.field(CLASS_ANNOTATION), noted.unwrap_or_default(), IMMUTABLE);
    }
    if first && (was_noted.is_none() || class == was_noted.as_deref()) {
        copy_field(rest, old.at("spec"), "storageClassName");
    }
}

/// Only a bound claim may grow, or change the class of its volume's attributes; volume and class are given once.
fn fixed(errors: &mut Errors, new: &Object, old: &Object) {
    let (now, was) = (new.at("spec"), old.at("spec"));
    let (mut rest, mut before) = (now.clone(), was.clone());
    if was.text("volumeName").is_empty() {
        copy_field(&mut before, now, "volumeName");
    }
    moved_class(errors, &mut rest, new, old);
    if new.at("status").text("phase") == "Bound" {
        copy_field(&mut rest, was, "volumeAttributesClassName");
        if let Some(requests) = rest.pointer_mut("/resources/requests") {
            copy_field(requests, was.at("resources").at("requests"), "storage");
        }
    }
    let schema = "io.k8s.api.core.v1.PersistentVolumeClaimSpec";
    if !semantic::equal(schema, &rest, &before) {
        let text =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        let changes = difference(schema, &before, &rest);
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
    if !old.at("status").has("currentVolumeAttributesClassName") || class == was {
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
