//! A change of one object, as the cacher remembers it for all watchers.

use super::encode::restamped;
use super::{Selection, Stored, WatchEvent};
use kv::Revision;
use std::sync::OnceLock;
use std::time::Instant;

/// A change.
pub(super) struct CacheEvent {
    pub revision: Revision,
    /// When it was applied.
    pub at: Instant,
    deleted: bool,
    /// The new state; of a deleted object the last, with the resource version of the deletion.
    pub object: Stored,
    pub previous: Option<Stored>,
    /// The previous state with the resource version of the change, for those who see the object leave.
    left: OnceLock<Stored>,
}

impl CacheEvent {
    pub fn put(object: Stored, previous: Option<Stored>) -> Self {
        Self::new(object, previous, false)
    }

    pub fn deleted(last: Stored, previous: Option<Stored>) -> Self {
        Self::new(last, previous, true)
    }

    fn new(object: Stored, previous: Option<Stored>, deleted: bool) -> Self {
        let revision = object.meta.resource_version;
        Self { revision, at: Instant::now(), deleted, object: object.with_frames(), previous, left: OnceLock::new() }
    }

    /// What a watcher of a selection sees of it.
    pub fn seen_by(&self, selection: &Selection) -> Option<WatchEvent> {
        let before = self.previous.as_ref().is_some_and(|p| selection.matches(&p.meta));
        let now = !self.deleted && selection.matches(&self.object.meta);
        match (before, now) {
            (true, true) => Some(WatchEvent::Modified(self.object.clone())),
            (false, true) => Some(WatchEvent::Added(self.object.clone())),
            (true, false) if self.deleted => Some(WatchEvent::Deleted(self.object.clone())),
            (true, false) => Some(WatchEvent::Deleted(self.left()?)),
            (false, false) => None,
        }
    }

    fn left(&self) -> Option<Stored> {
        let previous = self.previous.as_ref()?;
        Some(self.left.get_or_init(|| restamped(previous, self.revision).with_frames()).clone())
    }
}
