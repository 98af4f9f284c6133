//! The seam between the generic handlers and a kind.

use crate::columns::NAME;
use crate::field::Fields;
use api::table::Column;
use api::{Cause, Object, Status};
use jiff::Timestamp;
use serde_json::Value;

/// What a strategy may know of the request.
#[derive(Clone, Debug)]
pub struct Ctx<'a> {
    /// Name of the user.
    pub user: &'a str,
    /// Groups of the user.
    pub groups: &'a [String],
    /// The time of the request.
    pub now: Timestamp,
    /// `dryRun=All`
    pub dry_run: bool,
}

impl Ctx<'_> {
    /// The time of the request as objects hold it.
    pub fn timestamp(&self) -> String {
        self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

/// How upstream's strategy of a kind checks the metadata of an update, beside the checks of the generic code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataChecks {
    /// Not at all.
    None,
    /// As changed metadata.
    Update,
    /// As new metadata.
    Create,
    /// As both; every error is reported once more.
    Both,
    /// As new metadata, two times over.
    CreateTwice,
}

/// What happens to dependents where a delete does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Deleted by the garbage collector afterwards.
    Background,
    /// Kept, owner references removed first.
    Orphan,
}

/// The behaviour of one kind. All methods are pure; all have a default that suits a plain kind.
///
/// Objects are JSON values that have been decoded against the kind's schema: known fields have the
/// right JSON types, so reading one as the wrong type means it is absent.
pub trait Strategy: Sync + Send {
    /// Why an object cannot be read although its fields have the right types: what is written as text inside of it.
    fn unreadable(&self, _obj: &Object) -> Option<String> {
        None
    }

    /// Sets fields the user left out. Applied to every object that is read from a request.
    fn default(&self, _obj: &mut Object) {}

    /// Clears what a user may not set on create (status) and sets the generation.
    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        if self.has_status() {
            self.status_rules().begin(obj);
        }
    }

    /// What [`Strategy::prepare_for_create`] leaves to do for an object whose author gave it no labels.
    fn prepare_unlabelled(&self, _obj: &mut Object) {}

    /// Sets, once an object is found valid, what upstream would set or drop when it is read back.
    fn prepare_to_store(&self, _obj: &mut Object) {}

    /// Keeps from `old` what a user may not change by updating the main resource (status), before the
    /// generic code compares specs and raises the generation.
    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        if self.has_status() {
            copy_field(new, old, "status");
        }
    }

    /// Whether the change raises `metadata.generation`: by default a changed `spec`, for kinds with a spec.
    fn generation_changes(&self, new: &Object, old: &Object) -> bool {
        new.get("spec") != old.get("spec")
    }

    /// Whether the kind counts generations (starts at 1).
    fn counts_generation(&self) -> bool {
        false
    }

    /// Every error of a new object, in upstream's order; generic metadata is checked by the caller.
    fn validate(&self, _ctx: &Ctx<'_>, _obj: &Object) -> Vec<Cause> {
        Vec::new()
    }

    /// Every error of a changed object.
    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, _old: &Object) -> Vec<Cause> {
        self.validate(ctx, new)
    }

    /// How the metadata of an update is checked.
    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Update
    }

    /// How the metadata of a status update is checked.
    fn metadata_on_status_update(&self) -> MetadataChecks {
        self.metadata_on_update()
    }

    /// Whether upstream's strategy checks the metadata of a new object. Where it does not, the generic code does, of
    /// objects that have no other errors.
    fn metadata_on_create(&self) -> bool {
        true
    }

    /// Whether it is a built-in kind, whose finalizers must be standard or fully qualified.
    fn is_built_in(&self) -> bool {
        true
    }

    /// Errors of a name (`prefix`: of a generateName), texts without the path. Default: DNS-1123 subdomain.
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        crate::names::dns1123_subdomain(name, prefix)
    }

    /// As [`Strategy::validate_name`], for a kind whose names follow from what its objects say.
    fn validate_name_of(&self, _obj: &Object, name: &str, prefix: bool) -> Vec<String> {
        self.validate_name(name, prefix)
    }

    /// `Warning` header texts about what the preparation of a new object will replace.
    fn preparation_warnings(&self, _obj: &Object) -> Vec<String> {
        Vec::new()
    }

    /// `Warning` header texts for a create (`old` is `None`) or update.
    fn warnings(&self, _obj: &Object, _old: Option<&Object>) -> Vec<String> {
        Vec::new()
    }

    /// `Warning` header texts for a write of the status.
    fn status_warnings(&self, _obj: &Object) -> Vec<String> {
        Vec::new()
    }

    /// Whether the kind has a status that the main resource does not write.
    fn has_status(&self) -> bool {
        true
    }

    /// How the status of a new object begins, and what a write of the status leaves alone.
    fn status_rules(&self) -> StatusRules {
        StatusRules::ALONE
    }

    /// As [`Strategy::prepare_for_update`] for the `status` subresource: keeps what it does not write.
    fn prepare_for_status_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        self.status_rules().keep(new, old);
    }

    /// Every error of a changed status.
    fn validate_status_update(&self, _ctx: &Ctx<'_>, _new: &Object, _old: &Object) -> Vec<Cause> {
        Vec::new()
    }

    /// Whether PUT to a name that does not exist creates it.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update may leave out the resource version.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// The grace period of a deletion in seconds, for kinds deleted gracefully (pods): `Some(0)` deletes now,
    /// `None` means the kind knows no grace. `requested` is what the client asked for.
    fn grace_period(&self, _obj: &Object, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// What happens to dependents by default.
    fn default_propagation(&self) -> Propagation {
        Propagation::Background
    }

    /// A warning for deletions that do not say what happens to dependents.
    fn deletion_warning(&self) -> Option<&'static str> {
        None
    }

    /// Fields beside `metadata.name` and `metadata.namespace` that field selectors may name, with their values.
    fn selectable_fields(&self, _obj: &Object) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Printer columns; the default is name and creation time.
    fn columns(&self) -> &'static [Column] {
        DEFAULT_COLUMNS
    }

    /// The cells of one row, as many as there are columns.
    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let _ = now;
        vec![api::meta::name(obj).into(), api::meta::string(obj, "creationTimestamp").into()]
    }

    /// The object's scale (`autoscaling/v1`), for kinds with that subresource: replicas wanted, replicas
    /// counted, selector text.
    fn scale(&self, _obj: &Object) -> Option<Scale> {
        None
    }

    /// Sets the replicas wanted through the scale subresource.
    fn set_scale(&self, obj: &mut Object, replicas: i64) {
        api::meta::field_mut(obj, "spec").insert("replicas".into(), replicas.into());
    }

    /// The strategy of a subresource that updates the object itself other than `status` and `scale`
    /// (`resize`, `ephemeralcontainers`, `approval`, `finalize`).
    fn subresource(&self, _name: &str) -> Option<&'static dyn Strategy> {
        None
    }
}

/// How a kind's status begins and is written.
#[derive(Clone, Copy)]
pub struct StatusRules {
    /// The status of a new object, where it has one from the start.
    begins: Option<fn() -> Value>,
    /// Fields of the metadata that a write of the status leaves alone; `None`: all of them.
    keeps: Option<&'static [&'static str]>,
}

/// What a write of the status leaves alone where upstream resets the metadata for it.
pub const METADATA: &[&str] =
    &["deletionTimestamp", "generation", "labels", "annotations", "finalizers", "ownerReferences"];

impl StatusRules {
    /// New objects have no status; a write of the status changes nothing else.
    pub const ALONE: Self = Self { begins: None, keeps: None };

    /// New objects have this status; a write of the status may change the metadata too.
    pub const fn begins(status: fn() -> Value) -> Self {
        Self { begins: Some(status), keeps: Some(&[]) }
    }

    /// The same, but for these fields of the metadata.
    pub const fn keeps(self, fields: &'static [&'static str]) -> Self {
        Self { keeps: Some(fields), ..self }
    }

    /// Gives a new object the status it begins with.
    pub fn begin(self, obj: &mut Object) {
        match self.begins {
            Some(status) => obj["status"] = status(),
            None => drop_status(obj),
        }
    }

    /// Keeps from `old` what a write of the status leaves alone.
    pub fn keep(self, new: &mut Object, old: &Object) {
        let Some(fields) = self.keeps else { return keep_all_but_status(new, old) };
        copy_field(new, old, "spec");
        for field in fields {
            api::meta::set(new, field, old.at("metadata").at(field).clone());
        }
    }
}

/// Numbers of a scale subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Wanted.
    pub spec_replicas: i64,
    /// Counted.
    pub status_replicas: i64,
    /// Selector as text.
    pub selector: String,
}

const DEFAULT_COLUMNS: &[Column] = &[
    NAME,
    Column { kind: "date", ..Column::string("Created At") }
        .field("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "creationTimestamp"),
];

/// Removes the status.
pub fn drop_status(obj: &mut Object) {
    if let Value::Object(map) = obj {
        map.remove("status");
    }
}

/// Makes a field of `new` what it is in `old`.
pub fn copy_field(new: &mut Object, old: &Object, field: &str) {
    if let Value::Object(map) = new {
        match old.get(field) {
            Some(value) => drop(map.insert(field.to_owned(), value.clone())),
            None => drop(map.remove(field)),
        }
    }
}

/// Keeps of `new` the status and of the metadata what a status update may change.
pub fn keep_all_but_status(new: &mut Object, old: &Object) {
    let status = new.get("status").cloned();
    let managed = new.pointer("/metadata/managedFields").cloned();
    let rv = new.pointer("/metadata/resourceVersion").cloned();
    *new = old.clone();
    if let Value::Object(map) = new {
        match status {
            Some(status) => drop(map.insert("status".into(), status)),
            None => drop(map.remove("status")),
        }
    }
    api::meta::set(new, "managedFields", managed.unwrap_or(Value::Null));
    api::meta::set(new, "resourceVersion", rv.unwrap_or(Value::Null));
}

/// An error of a strategy's caller: the object is not what the resource serves.
pub type Result<T> = std::result::Result<T, Status>;
