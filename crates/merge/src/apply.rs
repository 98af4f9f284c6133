//! Server-side apply: merge, prune what the manager no longer applies, find conflicts, keep score.

use crate::managed::{Entry, Managed, ManagerKey, api_version, remove_managed_fields, stripped};
use crate::set::FieldSet;
use crate::typed::Typed;
use crate::{Error, Facts};
use serde_json::Value;
use std::collections::BTreeMap;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Owner of what was there before anybody applied to an object without managers.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// One field of another manager that an apply would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `"kubectl" using apps/v1`, with the quotes.
    pub manager: String,
    /// `.spec.replicas`.
    pub field: String,
}

/// The message of a 409: `Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas`.
pub fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.field);
    }
    let mut by_manager: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for conflict in conflicts {
        by_manager.entry(&conflict.manager).or_default().push(&conflict.field);
    }
    let mut lines = Vec::new();
    for (manager, fields) in by_manager {
        lines.push(format!("conflicts with {manager}:"));
        lines.extend(fields.iter().map(|field| format!("- {field}")));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// An apply request.
pub struct Apply<'a> {
    /// The object as it is, or an empty object where it does not exist yet.
    pub live: &'a Value,
    /// What was applied.
    pub applied: &'a Value,
    /// Field manager.
    pub manager: &'a str,
    /// Takes fields from their owners.
    pub force: bool,
    /// Time of the request, RFC 3339.
    pub time: &'a str,
    /// Subresource, empty for none.
    pub subresource: &'a str,
    /// Schema of the object in the words of the facts.
    pub schema: &'a str,
}

/// What an apply made.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The merged object with its managedFields.
    pub object: Value,
}

/// Merges what was applied into the live object and keeps managedFields.
pub fn apply(request: &Apply<'_>, facts: &dyn Facts) -> Result<Applied, Error> {
    let typed = Typed::new(facts, request.schema);
    let managed_fields = request.applied.pointer("/metadata/managedFields");
    if managed_fields.is_some_and(|m| !m.is_null()) {
        return Err(Error::BadRequest("metadata.managedFields must be nil".into()));
    }
    let mut managed =
        Managed::decode(request.live).ok_or_else(|| Error::Internal("failed to decode managed fields".into()))?;
    let mut live = request.live.clone();
    remove_managed_fields(&mut live);
    if managed.0.is_empty() {
        adopt(request, &typed, &live, &mut managed);
    }
    managed.forget_other_group(request.applied);
    typed.validate(request.applied).map_err(|why| {
        Error::Internal(format!("failed to create typed patch object ({}): {why}", described(request.applied)))
    })?;
    let outcome = match merge(request, &typed, &live, managed.clone(), request.force) {
        Err(conflicts) if request.manager == "kubectl" => {
            let rest = not_last_applied(&typed, &live, conflicts);
            if rest.is_empty() { merge(request, &typed, &live, managed, true) } else { Err(rest) }
        }
        outcome => outcome,
    };
    let (mut object, managed) = outcome.map_err(|conflicts| match conflicts {
        Failure::Conflicts(list) => Error::Conflict(list.into_iter().map(|(c, _)| c).collect()),
        Failure::Merge(why) => Error::Internal(format!("failed to merge config: {why}")),
    })?;
    if request.manager == "kubectl" {
        renew_last_applied(&mut object, request.applied);
    }
    managed.encode(&mut object);
    Ok(Applied { object })
}

/// `ns/name; apps/v1, Kind=Deployment`.
fn described(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    let version = text("/apiVersion");
    let slash = if version.contains('/') { "" } else { "/" };
    format!("{}/{}; {slash}{version}, Kind={}", text("/metadata/namespace"), text("/metadata/name"), text("/kind"))
}

/// Makes one manager of all the fields of an object that has none.
fn adopt(request: &Apply<'_>, typed: &Typed<'_>, live: &Value, managed: &mut Managed) {
    let version = api_version(live).to_owned();
    let change = typed.compare(&typed.facts.empty(typed.schema), live);
    let key = ManagerKey::new(BEFORE_FIRST_APPLY, false, &version, request.subresource);
    managed.update(key, &version, change, request.time);
}

enum Failure {
    Merge(String),
    Conflicts(Vec<(Conflict, Vec<String>)>),
}

impl Failure {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Conflicts(list) if list.is_empty())
    }
}

fn merge(
    request: &Apply<'_>,
    typed: &Typed<'_>,
    live: &Value,
    mut managed: Managed,
    force: bool,
) -> Result<(Value, Managed), Failure> {
    let version = api_version(request.applied).to_owned();
    let key = ManagerKey::new(request.manager, true, "", request.subresource);
    let merged = typed.merge(live, request.applied).map_err(Failure::Merge)?;
    let last = managed.0.get(&key).cloned();
    let reset = typed.facts.reset_fields(request.schema, request.subresource);
    let set = typed.field_set(&typed.root(), request.applied).without(reset);
    let time = last.as_ref().and_then(|entry| entry.time.clone());
    managed.0.insert(key.clone(), Entry { set, version, time });
    let object = match &last {
        Some(last) if !last.set.is_empty() => prune(typed, &merged, &managed, &last.set),
        _ => merged,
    };
    let (touched, removed) = typed.compare(live, &object).without(reset).touched();
    if !force {
        let conflicts = conflicts(&managed, &key, &touched);
        if !conflicts.is_empty() {
            return Err(Failure::Conflicts(conflicts));
        }
    }
    managed.take(&key, &touched, &removed);
    if let Some(entry) = managed.0.get_mut(&key) {
        entry.set = stripped(std::mem::take(&mut entry.set));
        // Who owns what may change without the object: that is given no time.
        if *live != object {
            entry.time = Some(request.time.to_owned());
        }
    }
    managed.0.retain(|_, entry| !entry.set.is_empty());
    Ok((object, managed))
}

fn conflicts(managed: &Managed, own: &ManagerKey, touched: &FieldSet) -> Vec<(Conflict, Vec<String>)> {
    let others = managed.0.iter().filter(|(key, _)| *key != own);
    let mut out = Vec::new();
    for (key, entry) in others {
        for (path, field) in entry.set.intersection(touched).paths() {
            out.push((Conflict { manager: key.printed(), field }, path));
        }
    }
    out
}

/// Removes what the manager applied last time and nobody claims now.
fn prune(typed: &Typed<'_>, merged: &Value, managed: &Managed, last: &FieldSet) -> Value {
    let root = typed.root();
    let named = |set: &FieldSet| typed.with_named_fields(&root, set);
    let set_of = |value: &Value| named(&typed.field_set(&root, value));
    let last = named(last);
    let merged_set = set_of(merged);
    // What others, or the new configuration, own comes back.
    let claimed = managed.0.values().fold(FieldSet::default(), |all, entry| all.union(entry.set.clone()));
    let kept = set_of(&typed.remove(merged, &last)).union(named(&claimed));
    let pruned = typed.remove(merged, &merged_set.clone().difference(&kept));
    // Only what was applied last time may go.
    let gone = merged_set.difference(&set_of(&pruned)).intersection(&last);
    typed.remove(merged, &gone)
}

/// Conflicts on fields that still have the value of kubectl's last client-side apply are none.
fn not_last_applied(typed: &Typed<'_>, live: &Value, failure: Failure) -> Failure {
    let Failure::Conflicts(list) = failure else { return failure };
    let annotation = live.pointer("/metadata/annotations").and_then(|a| a.get(LAST_APPLIED)).and_then(Value::as_str);
    let Some(last) = annotation.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return Failure::Conflicts(list);
    };
    if api_version(&last) != api_version(live) || typed.validate(&last).is_err() {
        return Failure::Conflicts(list);
    }
    let change = typed.compare(&last, live);
    let set = typed.field_set(&typed.root(), &last);
    let allowed = set.difference(&change.modified).difference(&change.added).difference(&change.removed);
    Failure::Conflicts(list.into_iter().filter(|(_, path)| !allowed.has(path)).collect())
}

/// Keeps the annotation of client-side apply in step, where there is one.
fn renew_last_applied(object: &mut Value, applied: &Value) {
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    if annotations.get(LAST_APPLIED).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut applied = applied.clone();
    if let Some(own) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        own.remove(LAST_APPLIED);
    }
    annotations.insert(LAST_APPLIED.into(), format!("{applied}\n").into());
}

#[cfg(test)]
mod tests;
