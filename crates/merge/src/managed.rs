//! managedFields: who set which field, kept by every write.

use crate::Facts;
use crate::set::FieldSet;
use crate::typed::{Comparison, Typed};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// With more managers than this the oldest updates are put together.
const MAX_UPDATE_MANAGERS: usize = 10;

/// Fields nobody owns.
const STRIPPED: [&[&str]; 11] = [
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:selfLink"],
    &["f:metadata", "f:uid"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:managedFields"],
    &["f:metadata", "f:resourceVersion"],
];

/// Nobody owns who owns what.
const MANAGED_FIELDS: &[&[&str]] = &[&["metadata", "managedFields"]];

/// A write by create, update or patch.
pub struct Write<'a> {
    /// The object before; an empty object for a create.
    pub old: &'a Value,
    /// Field manager.
    pub manager: &'a str,
    /// Time of the request, RFC 3339.
    pub time: &'a str,
    /// Subresource, empty for none.
    pub subresource: &'a str,
    /// Schema of the object in the words of the facts.
    pub schema: &'a str,
}

/// What tells managers apart; an applier is the same in every version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ManagerKey {
    pub(crate) manager: String,
    pub(crate) applied: bool,
    /// Empty for appliers.
    pub(crate) version: String,
    pub(crate) subresource: String,
}

impl ManagerKey {
    pub(crate) fn new(manager: &str, applied: bool, version: &str, subresource: &str) -> Self {
        let manager = if manager.is_empty() { "unknown" } else { manager };
        let version = if applied { "" } else { version };
        Self { manager: manager.into(), applied, version: version.into(), subresource: subresource.into() }
    }

    /// `"kubectl" using apps/v1`.
    pub(crate) fn printed(&self) -> String {
        let mut out = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            out.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.applied {
            out.push_str(&format!(" using {}", self.version));
        }
        out
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) set: FieldSet,
    pub(crate) version: String,
    pub(crate) time: Option<String>,
}

/// The managers of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Managed(pub(crate) BTreeMap<ManagerKey, Entry>);

impl Managed {
    /// Reads `metadata.managedFields`; `None` where an entry cannot be read.
    pub(crate) fn decode(object: &Value) -> Option<Self> {
        let mut out = BTreeMap::new();
        for entry in managed_fields(object).into_iter().flatten() {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or("");
            let applied = match text("operation") {
                "Apply" => true,
                "Update" => false,
                _ => return None,
            };
            let key = ManagerKey::new(text("manager"), applied, text("apiVersion"), text("subresource"));
            let set = entry.get("fieldsV1").map_or(Some(FieldSet::default()), FieldSet::from_json)?;
            let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
            out.insert(key, Entry { set, version: text("apiVersion").into(), time });
        }
        Some(Self(out))
    }

    /// Writes `metadata.managedFields`, ordered by operation, time and name.
    pub(crate) fn encode(self, object: &mut Value) {
        let mut entries: Vec<(ManagerKey, Entry)> = self.0.into_iter().collect();
        entries.sort_by_key(|(k, e)| {
            (!k.applied, e.time.clone(), k.manager.clone(), e.version.clone(), k.subresource.clone())
        });
        let list: Vec<Value> = entries.into_iter().map(|(key, entry)| encode_entry(key, entry)).collect();
        if list.is_empty() {
            remove_managed_fields(object);
        } else if let Some(meta) = metadata(object) {
            meta.insert("managedFields".into(), list.into());
        }
    }

    /// Events are served by the core group and by one of their own: upstream cannot convert what managers of the one own
    /// into the other, and forgets them.
    pub(crate) fn forget_other_group(&mut self, object: &Value) {
        if object.get("kind").and_then(Value::as_str) == Some("Event") {
            let core = |version: &str| !version.contains('/');
            let own = core(api_version(object));
            self.0.retain(|_, entry| core(&entry.version) == own);
        }
    }

    /// Takes what was touched or removed from everyone else.
    pub(crate) fn take(&mut self, own: &ManagerKey, touched: &FieldSet, removed: &FieldSet) {
        for (_, entry) in self.0.iter_mut().filter(|(key, _)| *key != own) {
            entry.set = std::mem::take(&mut entry.set).difference(touched).difference(removed);
        }
        self.0.retain(|_, entry| !entry.set.is_empty());
    }

    /// What an update that made this change leaves behind.
    pub(crate) fn update(&mut self, key: ManagerKey, version: &str, change: Comparison, time: &str) {
        let nobody = ManagerKey::new("", true, "", "\0current");
        let (touched, removed) = change.touched();
        self.take(&nobody, &touched, &removed);
        let set = stripped(touched);
        if set.is_empty() {
            return;
        }
        let before = self.0.remove(&key).map(|entry| entry.set).unwrap_or_default();
        let set = before.union(set);
        self.0.insert(key, Entry { set, version: version.into(), time: Some(time.into()) });
    }

    /// Puts the oldest updaters of a version together once there are too many.
    fn cap(&mut self) {
        let mut updaters: Vec<(Option<String>, ManagerKey)> =
            self.0.iter().filter(|(k, _)| !k.applied).map(|(k, e)| (e.time.clone(), k.clone())).collect();
        updaters.sort();
        let mut count = updaters.len();
        let mut first: BTreeMap<String, ManagerKey> = BTreeMap::new();
        for (time, key) in updaters {
            if count <= MAX_UPDATE_MANAGERS {
                return;
            }
            let bucket = ManagerKey::new("ancient-changes", false, &key.version, "");
            let Some(oldest) = first.get(&key.version).cloned() else {
                first.insert(key.version.clone(), key);
                continue;
            };
            if !self.0.contains_key(&bucket)
                && let Some(entry) = self.0.remove(&oldest)
            {
                self.0.insert(bucket.clone(), entry);
            }
            if key != bucket
                && let Some(entry) = self.0.remove(&key)
                && let Some(old) = self.0.get_mut(&bucket)
            {
                old.set = std::mem::take(&mut old.set).union(entry.set);
                old.time = time;
                count -= 1;
            }
        }
    }
}

fn encode_entry(key: ManagerKey, entry: Entry) -> Value {
    let mut out = json!({
        "manager": key.manager,
        "operation": if key.applied { "Apply" } else { "Update" },
        "apiVersion": entry.version,
        "fieldsType": "FieldsV1",
    });
    // Moved in, not copied: it may be as large as the object.
    out["fieldsV1"] = entry.set.into_json();
    if let Some(time) = entry.time {
        out["time"] = time.into();
    }
    if !key.subresource.is_empty() {
        out["subresource"] = key.subresource.into();
    }
    out
}

/// Without what nobody owns.
pub(crate) fn stripped(set: FieldSet) -> FieldSet {
    let mut strip = FieldSet::default();
    for path in STRIPPED {
        strip.insert(path);
    }
    set.difference(&strip)
}

fn metadata(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let meta = object.as_object_mut()?.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    meta.as_object_mut()
}

fn managed_fields(object: &Value) -> Option<&Vec<Value>> {
    object.get("metadata")?.get("managedFields")?.as_array()
}

pub(crate) fn remove_managed_fields(object: &mut Value) {
    if let Some(Value::Object(meta)) = object.get_mut("metadata") {
        meta.remove("managedFields");
    }
}

pub(crate) fn api_version(object: &Value) -> &str {
    object.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
}

/// An explicit empty list, or one empty entry, asks for a fresh start.
fn is_reset(object: &Value) -> bool {
    match managed_fields(object).map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

fn managers_before(write: &Write<'_>, new: &Value) -> Managed {
    let live = || Managed::decode(write.old).unwrap_or_default();
    if !write.subresource.is_empty() {
        return live();
    }
    if is_reset(new) {
        return Managed::default();
    }
    match Managed::decode(new) {
        Some(managed) if !managed.0.is_empty() => managed,
        _ => live(),
    }
}

/// Whether an object is what its schema says, duplicates in lists aside: of others nobody's fields can be told.
pub fn is_typed(object: &Value, schema: &str, facts: &dyn Facts) -> bool {
    Typed::new(facts, schema).validate_stored(object).is_ok()
}

/// Sets `metadata.managedFields` of `new` to what the write makes of those of `old`.
pub fn update_managed_fields(write: &Write<'_>, new: &mut Value, facts: &dyn Facts) {
    let mut managed = managers_before(write, new);
    remove_managed_fields(new);
    let exists = write.old.pointer("/metadata/uid").and_then(Value::as_str).is_some_and(|uid| !uid.is_empty());
    // Nothing is tracked for objects whose managers were dropped, until someone applies.
    if managed.0.is_empty() && exists {
        return;
    }
    let is_new = write.old.as_object().is_none_or(Map::is_empty);
    let empty = is_new.then(|| facts.empty(write.schema));
    let old = empty.as_ref().unwrap_or(write.old);
    let version = api_version(new).to_owned();
    let reset = facts.reset_fields(write.schema, write.subresource);
    let change = Typed::new(facts, write.schema).compare(old, new).without(reset).without(MANAGED_FIELDS);
    managed.forget_other_group(new);
    managed.update(ManagerKey::new(write.manager, false, &version, write.subresource), &version, change, write.time);
    managed.cap();
    managed.encode(new);
}
