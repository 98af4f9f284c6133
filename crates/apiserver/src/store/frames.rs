//! Lines of a JSON watch.

use super::{Stored, WatchEvent};
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;
use std::sync::{Arc, OnceLock};

/// The lines of one state of an object, by type; each is made once and shared by all watchers.
#[derive(Debug, Default)]
pub(super) struct Frames([OnceLock<Bytes>; 3]);

impl Stored {
    /// The same object with room for shared frames: for events, which are forgotten before long.
    pub(super) fn with_frames(&self) -> Self {
        Self { frames: Some(Arc::default()), ..self.clone() }
    }

    fn frame(&self, kind: usize) -> Bytes {
        match &self.frames {
            Some(frames) => frames.0[kind].get_or_init(|| self.build_frame(kind)).clone(),
            None => self.build_frame(kind),
        }
    }

    fn build_frame(&self, kind: usize) -> Bytes {
        let name = ["ADDED", "MODIFIED", "DELETED"][kind];
        let mut out = BytesMut::with_capacity(self.json.len() + 32);
        out.put_slice(b"{\"type\":\"");
        out.put_slice(name.as_bytes());
        out.put_slice(b"\",\"object\":");
        out.put_slice(&self.json);
        out.put_slice(b"}\n");
        out.freeze()
    }
}

impl WatchEvent {
    /// The line a JSON watch sends, `{"type":"ADDED","object":…}\n`; `api_version` and `kind` are those of bookmarks.
    pub fn frame(&self, api_version: &str, kind: &str) -> Bytes {
        let line = match self {
            Self::Added(stored) => return stored.frame(0),
            Self::Modified(stored) => return stored.frame(1),
            Self::Deleted(stored) => return stored.frame(2),
            Self::Bookmark { resource_version, initial_events_end } => {
                let mut metadata = json!({"resourceVersion": resource_version.to_string()});
                if *initial_events_end {
                    metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
                }
                let object = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata});
                json!({"type": "BOOKMARK", "object": object})
            }
            Self::Error(status) => json!({"type": "ERROR", "object": status.to_object()}),
        };
        format!("{line}\n").into()
    }

    /// The resource version a watcher has reached with this event.
    pub fn resource_version(&self) -> Option<u64> {
        match self {
            Self::Added(stored) | Self::Modified(stored) | Self::Deleted(stored) => Some(stored.meta.resource_version),
            Self::Bookmark { resource_version, .. } => Some(*resource_version),
            Self::Error(_) => None,
        }
    }
}
