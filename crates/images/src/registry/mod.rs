//! Pulling from registries (OCI distribution specification 1.1, docker's registry API v2).
//!
//! Flow: hosts of the registry ([`hosts`]) → what the reference means (HEAD) → manifest, through
//! an index to this machine's platform → configuration → layers the store lacks, some at a time
//! ([`blob`]) → an OCI layout in `tmp/`, which is then imported like any other archive.
//!
//! Invariants: content is used only after its digest is checked; of a pull that fails or is
//! dropped nothing stays but beginnings of layers, with which the next one goes on; credentials go only to hosts that ask for them and their token server.
//!
//! Absent: HTTP proxies, HTTP/2, client certificates, schema 1 manifests.

mod auth;
mod blob;
mod challenge;
mod client;
mod endpoint;
mod error;
mod hosts;
mod pull;
mod tls;

pub use error::Error;
pub use pull::PullEvent;
pub use tls::system_bundle;

use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

/// What the pulls of a store share.
#[derive(Debug)]
pub(crate) struct Registry {
    /// containerd's `certs.d`.
    pub certs: PathBuf,
    running: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Registry {
    pub fn new(certs: PathBuf) -> Arc<Registry> {
        Arc::new(Registry { certs, running: Mutex::default() })
    }

    /// The turn to pull a reference: the second pull of it then finds its layers in the store.
    pub fn turn(&self, reference: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut running = self.running.lock();
        running.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = running.get(reference).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        running.insert(reference.to_owned(), Arc::downgrade(&turn));
        turn
    }
}
