//! What watches send of an event: lines of JSON, frames of protobuf.

use super::{Stored, WatchEvent};
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;
use std::sync::{Arc, OnceLock};

/// The frames of one state of an object, by type; each is made when first asked for and shared by all watchers.
#[derive(Debug, Default)]
pub(super) struct Frames {
    json: [OnceLock<Bytes>; 3],
    protobuf: [OnceLock<Bytes>; 3],
}

const TYPES: [&str; 3] = ["ADDED", "MODIFIED", "DELETED"];

impl Stored {
    /// The same object with room for shared frames: for events, which are forgotten before long.
    pub(super) fn with_frames(&self) -> Self {
        Self { frames: Some(Arc::default()), ..self.clone() }
    }

    fn frame(&self, kind: usize) -> Bytes {
        match &self.frames {
            Some(frames) => frames.json[kind].get_or_init(|| self.build_frame(kind)).clone(),
            None => self.build_frame(kind),
        }
    }

    fn build_frame(&self, kind: usize) -> Bytes {
        let name = TYPES[kind];
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

    /// As [`WatchEvent::frame`], in protobuf: `make` gives the frame of a type and object, the same for every
    /// watcher of the kind as it is stored. Bookmarks and errors have none to share.
    pub fn protobuf_frame<E>(&self, make: impl FnOnce(&str, &Stored) -> Result<Bytes, E>) -> Option<Result<Bytes, E>> {
        let (kind, stored) = match self {
            Self::Added(stored) => (0, stored),
            Self::Modified(stored) => (1, stored),
            Self::Deleted(stored) => (2, stored),
            Self::Bookmark { .. } | Self::Error(_) => return None,
        };
        let made = || make(TYPES[kind], stored);
        let Some(frames) = &stored.frames else { return Some(made()) };
        let place = &frames.protobuf[kind];
        Some(match place.get() {
            Some(frame) => Ok(frame.clone()),
            None => made().map(|frame| place.get_or_init(|| frame).clone()),
        })
    }

    /// How much it holds in memory, at least.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Added(stored) | Self::Modified(stored) | Self::Deleted(stored) => stored.json.len(),
            Self::Bookmark { .. } | Self::Error(_) => 0,
        }
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
