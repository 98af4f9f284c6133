//! The way of a deletion: grace, finalizers, propagation, preconditions.

use super::Resource;
use super::meta::time;
use crate::admission::{self, Attributes, Operation};
use crate::allocators;
use crate::handlers::Request;
use crate::server::ApiServer;
use crate::store::{Preconditions, Stored, Update};
use api::{Object, Status, meta};
use jiff::{SignedDuration, Timestamp};
use resources::Propagation;
use serde_json::{Value, json};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// The options of a delete, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds of grace asked for.
    pub grace_period: Option<i64>,
    /// `Orphan`, `Background`, `Foreground`, or empty.
    pub propagation: String,
    /// The older way to say `Orphan` or `Background`.
    pub orphan_dependents: Option<bool>,
    /// Conditions: UID.
    pub uid: Option<String>,
    /// Conditions: resource version.
    pub resource_version: Option<String>,
    /// Everything but the deletion.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// The options that are set, as webhooks see them.
    fn shown(&self) -> Value {
        let mut shown = json!({});
        if let Some(seconds) = self.grace_period {
            shown["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(orphan) = self.orphan_dependents {
            shown["orphanDependents"] = orphan.into();
        }
        if !self.propagation.is_empty() {
            shown["propagationPolicy"] = self.propagation.as_str().into();
        }
        for (field, value) in [("uid", &self.uid), ("resourceVersion", &self.resource_version)] {
            if let Some(value) = value {
                shown["preconditions"][field] = value.as_str().into();
            }
        }
        shown
    }
}

/// What a deletion did.
pub struct Deleted {
    /// The object, or its last state.
    pub stored: Stored,
    /// Whether it is gone.
    pub gone: bool,
}

/// Deletes an object, or marks it as being deleted.
pub async fn delete(
    server: &ApiServer,
    request: &Request,
    resource: &Resource,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted, Status> {
    let Some(current) = resource.store.get(namespace, name).await? else { return Err(resource.not_found(name)) };
    let old = resource.whole_object(&current)?;
    check(resource, &old, options)?;
    let shown = options.shown();
    // Admission is told of many deletions without a name.
    let asked = if request.info.verb == "deletecollection" { "" } else { name };
    let attributes = Attributes {
        request,
        resource,
        operation: Operation::Delete,
        subresource: "",
        namespace,
        name: asked,
        old: Some(&old),
        dry_run: options.dry_run,
        options: Some(&shown),
        reinvocation: None,
    };
    admission::validate(server, &attributes, None).await?;
    let now = request.now;
    let first = |_: &Stored, object: Object| {
        check(resource, &object, options)?;
        Ok(change(resource, object, options, now))
    };
    let mut updated =
        resource.store.guaranteed_update(namespace, name, &Preconditions::default(), first, options.dry_run).await?;
    if updated.changed && !updated.deleted && !options.dry_run && is_over(&updated.stored)? {
        // Watchers have seen the end of the grace period, and now see the deletion.
        let same = Preconditions { uid: Some(updated.stored.meta.uid.clone()), ..Preconditions::default() };
        let then = |_: &Stored, object: Object| Ok(change(resource, object, options, now));
        match resource.store.guaranteed_update(namespace, name, &same, then, false).await {
            Ok(last) => updated = last,
            // Another writer was faster.
            Err(status) if status.code == 404 || status.code == 409 => updated.deleted = true,
            Err(status) => return Err(status),
        }
    }
    if updated.deleted && !options.dry_run {
        allocators::on_delete(server, resource, &old).await;
    }
    Ok(Deleted { stored: updated.stored, gone: updated.deleted })
}

/// The preconditions of a deletion, with the texts of deletions.
pub fn check(resource: &Resource, object: &Object, options: &DeleteOptions) -> Result<(), Status> {
    let conflict = |why: String| Err(Status::conflict(&resource.group, &resource.kind, meta::name(object), &why));
    let (uid, version) = (meta::uid(object), meta::resource_version(object));
    let namespace = resource.group.is_empty() && resource.resource == "namespaces";
    match options {
        DeleteOptions { uid: Some(wanted), .. } if wanted != uid && namespace => {
            let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
            Err(Status::conflict("", "namespaces", meta::name(object), &why))
        }
        DeleteOptions { uid: Some(wanted), .. } if wanted != uid => conflict(format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). \
             The object might have been deleted and then recreated"
        )),
        DeleteOptions { resource_version: Some(wanted), .. } if wanted != version && namespace => {
            let why = format!(
                "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {version}"
            );
            Err(Status::conflict("", "namespaces", meta::name(object), &why))
        }
        DeleteOptions { resource_version: Some(wanted), .. } if wanted != version => conflict(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
             ({version}). The object might have been modified"
        )),
        _ => Ok(()),
    }
}

/// What becomes of the present object.
fn change(resource: &Resource, mut object: Object, options: &DeleteOptions, now: Timestamp) -> Update {
    if crate::custom::mark_as_terminating(resource, &mut object, now) {
        return Update::Write(finished(object));
    }
    let requested = options.grace_period.map(|g| if g < 0 { 1 } else { g });
    let grace = match graceful(resource, &mut object, requested, now) {
        Grace::Pending => return Update::Keep,
        grace => grace,
    };
    let finalizers = finalizers(resource, &object, options);
    let pending = holds_content(resource, &mut object) | !finalizers.is_empty();
    meta::set(&mut object, "finalizers", finalizers);
    match (grace, pending) {
        (Grace::Started(seconds), pending) if seconds > 0 || pending || !options.dry_run => {
            Update::Write(finished(object))
        }
        (_, true) => {
            mark_as_deleting(&mut object, now);
            if resource.group.is_empty() && resource.resource == "namespaces" {
                // Namespaces are not deleted gracefully: they have no grace period to show.
                meta::set(&mut object, "deletionGracePeriodSeconds", Value::Null);
            }
            Update::Write(finished(object))
        }
        _ => Update::Delete(finished(object)),
    }
}

/// Whether the grace period of an object that just got one is over at once, and nothing else holds it.
fn is_over(stored: &Stored) -> Result<bool, Status> {
    let object = stored.object()?;
    let grace = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    Ok(meta::is_deleting(&object) && grace == Some(0) && meta::finalizers(&object).is_empty())
}

/// A namespace is held by its spec until the namespace controller has emptied it.
fn holds_content(resource: &Resource, object: &mut Object) -> bool {
    let held = object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty());
    if !resource.group.is_empty() || resource.resource != "namespaces" || !held {
        return false;
    }
    meta::field_mut(object, "status").insert("phase".into(), "Terminating".into());
    true
}

fn finished(mut object: Object) -> Object {
    super::meta::drop_empty(&mut object);
    object
}

enum Grace {
    /// No grace: deleted now, unless finalizers hold it.
    None,
    /// Set, or shortened, to these seconds.
    Started(i64),
    /// Already under way and not to be shortened.
    Pending,
}

fn graceful(resource: &Resource, object: &mut Object, requested: Option<i64>, now: Timestamp) -> Grace {
    if resource.strategy.grace_period(object, requested).is_none() {
        return Grace::None;
    }
    if meta::is_deleting(object) {
        return shorten(object, requested, now);
    }
    let Some(seconds) = resource.strategy.grace_period(object, requested) else { return Grace::None };
    let end = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
    meta::set(object, "deletionTimestamp", time(end));
    meta::set(object, "deletionGracePeriodSeconds", seconds);
    raise_generation(object);
    Grace::Started(seconds)
}

fn shorten(object: &mut Object, requested: Option<i64>, now: Timestamp) -> Grace {
    let present = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    if present == 0 {
        return Grace::None;
    }
    let Some(mut seconds) = requested.filter(|r| *r < present) else { return Grace::Pending };
    let end: Timestamp = meta::string(object, "deletionTimestamp").parse().unwrap_or(now);
    let moved = end.checked_sub(SignedDuration::from_secs(present - seconds)).unwrap_or(now);
    if moved < now && seconds != 0 {
        // Someone must still see the end of the grace period and do the final delete.
        seconds = 1;
    }
    meta::set(object, "deletionTimestamp", time(moved.max(now)));
    meta::set(object, "deletionGracePeriodSeconds", seconds);
    Grace::Started(seconds)
}

fn raise_generation(object: &mut Object) {
    let generation = meta::generation(object);
    if generation > 0 {
        meta::set(object, "generation", generation + 1);
    }
}

fn mark_as_deleting(object: &mut Object, now: Timestamp) {
    if !meta::is_deleting(object) {
        raise_generation(object);
    }
    let end = meta::string(object, "deletionTimestamp").parse::<Timestamp>();
    if end.map_or(true, |end| end > now) {
        meta::set(object, "deletionTimestamp", time(now));
    }
    meta::set(object, "deletionGracePeriodSeconds", 0);
}

/// The finalizers with those of the garbage collector as the options want them.
fn finalizers(resource: &Resource, object: &Object, options: &DeleteOptions) -> Vec<Value> {
    let present = meta::finalizers(object);
    let mut out: Vec<Value> = present.iter().filter(|f| **f != ORPHAN && **f != FOREGROUND).map(|f| json!(f)).collect();
    let default_orphan = resource.strategy.default_propagation() == Propagation::Orphan;
    let wanted = match (options.orphan_dependents, options.propagation.as_str()) {
        // Nothing depends on an event: the collector leaves them alone.
        _ if resource.is_events() => None,
        (Some(true), _) | (None, "Orphan") => Some(ORPHAN),
        (Some(false), _) | (None, "Background") => None,
        (None, "Foreground") => Some(FOREGROUND),
        _ if present.contains(&ORPHAN) => Some(ORPHAN),
        _ if present.contains(&FOREGROUND) => Some(FOREGROUND),
        _ => default_orphan.then_some(ORPHAN),
    };
    out.extend(wanted.map(Value::from));
    out
}
