//! The generic object store: one [`ObjectStore`] per stored resource, over [`kv::Kv`], with a cacher.
//!
//! A write encodes the object as canonical JSON and commits it at the revision it was read at; the
//! revision becomes its resource version. The [`Dispatcher`] hands committed changes to the cacher of
//! their resource, which answers every get, list and watch from memory, without parsing: a [`Stored`]
//! is shared by all readers, a watch frame by all watchers. A read of the newest state waits until the
//! cachers have seen the store's present revision; only lists at older revisions read history.
//!
//! Invariants: what a list shows is what its resource version says; a watch has no gaps: it ends when
//! the watcher falls behind or the store's own watch breaks.
//!
//! Deliberately absent: validation, admission and every knowledge of kinds (see `resources`).

mod cacher;
mod continuation;
mod dispatcher;
mod encode;
mod event;
mod frames;
pub mod members;
mod message;
mod objects;
mod queue;
mod read;
#[cfg(test)]
mod tests;
mod types;
mod view;
mod watch;
mod watchers;
mod write;

pub use continuation::check_continuation;
pub use dispatcher::Dispatcher;
pub use types::*;
pub use view::Convert;
pub use watch::Watch;

use crate::fairness::Stats;
use api::Object;
use cacher::Cacher;
use encode::Codec;
use std::sync::Arc;

/// Gives the selectable fields of an object beside `metadata.name` and `metadata.namespace`.
pub type FieldsFn = Arc<dyn Fn(&Object) -> Vec<(&'static str, String)> + Send + Sync>;

/// What a store needs to know of its resource.
#[derive(Clone)]
pub struct StoreSpec {
    /// `pods`, `apps/deployments`: keys are `/registry/<prefix>/[<namespace>/]<name>`. One or two segments.
    pub prefix: String,
    /// Group (empty: core) and plural resource, for messages.
    pub group_resource: (String, String),
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What must survive power loss before a write is acknowledged.
    pub durability: kv::Durability,
    /// Selectable fields.
    pub fields: FieldsFn,
    /// Those of the selectable fields that have an index (`spec.nodeName`).
    pub indexed: Vec<&'static str>,
    /// `apiVersion` that objects are stored with.
    pub api_version: String,
    /// `kind` that objects are stored with.
    pub kind: String,
}

/// The store of one resource.
pub struct ObjectStore {
    codec: Codec,
    dispatcher: Arc<Dispatcher>,
    cacher: Arc<Cacher>,
    /// How objects are shown, when not as they are stored.
    view: Option<Arc<view::View>>,
}

impl ObjectStore {
    /// Builds a store; nothing is read before its first use.
    pub fn new(dispatcher: &Arc<Dispatcher>, spec: StoreSpec) -> Arc<Self> {
        let (group, resource) = &spec.group_resource;
        let codec = Codec { cipher: dispatcher.encryption().cipher(group, resource), spec: Arc::new(spec) };
        let prefix = format!("{}{}/", dispatcher::ROOT, codec.spec.prefix);
        let cacher = Cacher::new(codec.clone(), prefix, dispatcher.progress());
        Arc::new(Self { codec, dispatcher: dispatcher.clone(), cacher, view: None })
    }

    /// What it was built from.
    pub fn spec(&self) -> &StoreSpec {
        &self.codec.spec
    }

    /// How much is stored; `None` before anyone has asked for it.
    pub fn stats(&self) -> Option<Stats> {
        self.cacher.stats()
    }

    /// Ends every watch: what is shown is to change.
    pub fn end_watches(&self) {
        self.cacher.end_watches();
    }

    fn key(&self, namespace: &str, name: &str) -> String {
        match self.codec.spec.namespaced {
            true => format!("{}{namespace}/{name}", self.cacher.prefix()),
            false => format!("{}{name}", self.cacher.prefix()),
        }
    }
}

/// Reads a continue token, for the fuzz target.
pub(crate) fn read_continue_token(text: &str) {
    if let Ok(token) = continuation::Continuation::decode(text) {
        let again = continuation::Continuation::decode(&token.encode());
        assert!(again.is_ok_and(|again| again == token), "a token is read as it is written");
    }
}
