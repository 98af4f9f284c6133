//! Aggregation: other servers that answer for versions of groups, behind this one.
//!
//! `APIService` objects say which. [`registration`] keeps one for each version this server answers for itself;
//! [`availability`] checks the others, writes their conditions and fetches what they tell of themselves; [`proxy`]
//! sends requests on to them, as a front proxy that says whom they are for; [`discovery`] and [`openapi`] show
//! all as one.
//!
//! Invariants: a request is authenticated and authorized here before it is sent on; nothing is sent to a server
//! that its APIService does not call available.
//!
//! Deliberately absent: aggregation of the core group's `v1`, OpenAPI v3 for servers that have v2 alone.

pub mod availability;
pub mod discovery;
pub mod openapi;
mod proxy;
mod registration;
mod remote;
pub mod service;

pub use proxy::handle;
pub use registration::complete;

use crate::live::Live;
use crate::registry::Registry;
use crate::server::{self, ApiServer, live};
use discovery::Document;
use parking_lot::{Mutex, RwLock};
use remote::Remote;
use service::{ApiService, Reference};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio_util::sync::CancellationToken;

/// Group of APIServices.
const GROUP: &str = "apiregistration.k8s.io";
const RESOURCE: &str = "apiservices";

/// What is known of all API services.
pub struct Aggregator {
    /// The objects.
    services: Arc<Live<ApiService>>,
    /// Groups of custom resource definitions, and their versions.
    definitions: Arc<Live<(String, Vec<String>)>>,
    remotes: Mutex<HashMap<Reference, Arc<Remote>>>,
    /// What servers tell of themselves, by the name of the APIService.
    documents: RwLock<HashMap<String, Arc<Document>>>,
    /// Whether every version that this server answers for has its object.
    registered: AtomicBool,
}

impl Aggregator {
    /// Starts the caches.
    pub fn new(registry: &Registry, token: &CancellationToken) -> Result<Self, server::Error> {
        let definitions = ("apiextensions.k8s.io", "customresourcedefinitions");
        Ok(Self {
            services: live(registry, token, (GROUP, RESOURCE), service::parse)?,
            definitions: live(registry, token, definitions, registration::parse_definition)?,
            remotes: Mutex::default(),
            documents: RwLock::default(),
            registered: AtomicBool::new(false),
        })
    }

    /// Waits until the caches have seen what existed at the start.
    pub async fn synced(&self) {
        self.services.synced().await;
        self.definitions.synced().await;
    }

    /// Starts what keeps the objects up to date; ends with the server.
    pub fn start(server: &Arc<ApiServer>) {
        let (weak, token) = (Arc::downgrade(server), server.stopping().clone());
        let (registering, checking) = (registration::run(weak.clone()), availability::run(weak));
        let both = async { tokio::join!(registering, checking) };
        tokio::spawn(async move { token.run_until_cancelled(both).await });
    }

    /// The APIService of a version of a group that another server answers for.
    pub fn remote(&self, group: &str, version: &str) -> Option<Arc<ApiService>> {
        self.services.get("", &format!("{version}.{group}")).filter(|s| s.remote.is_some())
    }

    /// The APIServices that other servers answer for.
    fn remotes(&self) -> Vec<Arc<ApiService>> {
        self.services.values().into_iter().filter(|s| s.remote.is_some()).collect()
    }

    /// The client of a server.
    fn client(&self, server: &ApiServer, reference: &Reference) -> Arc<Remote> {
        let mut remotes = self.remotes.lock();
        let remote = remotes.entry(reference.clone());
        remote.or_insert_with(|| Arc::new(Remote::new(server, reference))).clone()
    }

    /// Forgets the clients and documents of servers that no object names any more.
    fn forget_others(&self, services: &[Arc<ApiService>]) {
        let named = |r: &Reference| services.iter().any(|s| s.remote.as_ref() == Some(r));
        self.remotes.lock().retain(|reference, _| named(reference));
        self.documents.write().retain(|name, _| services.iter().any(|s| s.name == *name));
    }
}
