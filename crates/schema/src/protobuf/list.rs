//! Lists, written item by item: no list is ever held as JSON and protobuf at once.

use super::{find, seal, to};
use crate::wire::Writer;
use serde_json::{Map, Value};

const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// A list under way; every list has its metadata in field 1 and its items in field 2.
pub struct ListMessage(Writer);

impl ListMessage {
    /// Begins with the list's metadata.
    pub fn new(metadata: &Value) -> Result<Self, String> {
        let mut inner = Writer::default();
        to::structure(&mut inner, find(LIST_META, "", "")?, metadata.as_object().unwrap_or(&Map::new()))?;
        let mut w = Writer::default();
        w.bytes(1, &inner.finish());
        Ok(Self(w))
    }

    /// Adds an item, the bare message of [`super::message`].
    pub fn push(&mut self, message: &[u8]) {
        self.0.bytes(2, message);
    }

    /// The list in the `k8s\0` envelope.
    pub fn finish(self, api_version: &str, kind: &str) -> Vec<u8> {
        seal(api_version, kind, &self.0.finish())
    }
}
