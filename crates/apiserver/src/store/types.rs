//! The seam between handlers and the object store: what is asked of it and what it gives.

use api::selector::{FieldSelector, LabelSelector};
use api::{Object, Status};
use bytes::Bytes;
use std::sync::Arc;

/// A stored object: canonical JSON with its resource version in place, shared by every reader.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Canonical JSON (sorted keys) as it is sent; the resource version is part of it.
    pub json: Bytes,
    /// What selectors, the cacher and the garbage collector need without parsing.
    pub meta: Arc<Meta>,
    /// Watch frames, for objects that are part of an event.
    pub(super) frames: Option<Arc<super::frames::Frames>>,
    /// Its protobuf message, once it has been asked for.
    pub(super) message: Arc<super::message::Message>,
}

/// The parsed part of a stored object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Name.
    pub name: String,
    /// Namespace, empty for cluster scope.
    pub namespace: String,
    /// UID.
    pub uid: String,
    /// Revision that wrote it.
    pub resource_version: u64,
    /// Labels, sorted by key.
    pub labels: Vec<(String, String)>,
    /// Selectable fields of the kind with their values, `metadata.name` and `metadata.namespace` included.
    pub fields: Vec<(&'static str, String)>,
}

/// Which objects of a resource.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Namespace, empty: all.
    pub namespace: String,
    /// Name, empty: all (a get of one name, or `metadata.name` fixed by a field selector).
    pub name: String,
    /// Labels.
    pub labels: LabelSelector,
    /// Fields, already checked against what the kind can select.
    pub fields: FieldSelector,
}

impl Selection {
    /// Whether an object belongs to it.
    pub fn matches(&self, meta: &Meta) -> bool {
        (self.namespace.is_empty() || self.namespace == meta.namespace)
            && (self.name.is_empty() || self.name == meta.name)
            && self.labels.matches(|key| meta.label(key))
            && self.fields.matches(|field| meta.field(field))
    }
}

impl Meta {
    /// One label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok()?;
        Some(&self.labels[at].1)
    }

    /// One selectable field's value, empty where it is unset.
    pub fn field(&self, field: &str) -> &str {
        self.fields.iter().find(|(f, _)| *f == field).map_or("", |(_, v)| v)
    }
}

/// How fresh a list must be (`resourceVersion` and `resourceVersionMatch`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Freshness {
    /// The newest state (resourceVersion unset).
    #[default]
    Latest,
    /// Any state (resourceVersion 0).
    Any,
    /// At least this revision.
    NotOlderThan(u64),
    /// Exactly this revision.
    Exact(u64),
}

/// A list request.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Which objects.
    pub selection: Selection,
    /// How fresh.
    pub freshness: Freshness,
    /// At most so many; 0: all.
    pub limit: usize,
    /// Token of the page before, as the client gave it.
    pub continue_token: String,
}

/// A page of objects.
#[derive(Clone, Debug)]
pub struct ListResult {
    /// Objects ordered by key.
    pub items: Vec<Stored>,
    /// Revision the list shows.
    pub resource_version: u64,
    /// Token of the next page; empty on the last.
    pub continue_token: String,
    /// Objects on later pages, where known (not with selectors).
    pub remaining: Option<usize>,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchStart {
    /// With ADDED events of the present state (resourceVersion unset or 0).
    Initial,
    /// With changes after this revision.
    After(u64),
    /// WatchList: ADDED events of a state at least as new as this revision, then a bookmark with
    /// the annotation `k8s.io/initial-events-end`, then changes.
    InitialEvents(u64),
}

/// A watch request.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Which objects.
    pub selection: Selection,
    /// Where it begins.
    pub start: WatchStart,
    /// Wants BOOKMARK events (about once a minute, and near the end).
    pub bookmarks: bool,
}

/// One event of a watch, as one watcher sees it: an object that stops matching is DELETED, one that
/// begins to is ADDED.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// New, or newly matching.
    Added(Stored),
    /// Changed.
    Modified(Stored),
    /// Gone, or no longer matching; the last state with the resource version of the deletion.
    Deleted(Stored),
    /// Everything up to this revision has been sent.
    Bookmark {
        /// Revision.
        resource_version: u64,
        /// Ends the initial events of a WatchList.
        initial_events_end: bool,
    },
    /// The watch ends with this error.
    Error(Status),
}

/// Conditions of a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// UID the object must have.
    pub uid: Option<String>,
    /// Resource version the object must have.
    pub resource_version: Option<u64>,
}

/// What a change function makes of the present object.
pub enum Update {
    /// Writes this (nothing is written when it equals the present state).
    Write(Object),
    /// Removes the object; it is written once more in this state as the final event.
    Delete(Object),
    /// Leaves it as it is.
    Keep,
}

/// What a guaranteed update did.
#[derive(Clone, Debug)]
pub struct Updated {
    /// The object after it (for a delete: its last state).
    pub stored: Stored,
    /// Whether anything was written.
    pub changed: bool,
    /// Whether the object is gone.
    pub deleted: bool,
}
