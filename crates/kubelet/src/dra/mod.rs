//! Dynamic resource allocation, the node's part: drivers prepare what claims were allocated.
//!
//! The scheduler has allocated a claim's devices and reserved the claim for the pod; here each driver that has a
//! device in it is asked to prepare it before anything of the pod runs ([`prepare`]), and its answer — names of CDI
//! devices — goes to the containers that name the claim. When the last pod of the node that uses a claim has ended,
//! it is undone. What was prepared survives the kubelet ([`checkpoint`]). [`health`] follows what drivers say of
//! their devices.
//!
//! Absent: ResourceSlices, which drivers write themselves (the kubelet removes those of a driver that went).

mod checkpoint;
mod driver;
mod health;
mod prepare;
#[cfg(test)]
mod tests;

pub use health::Health;

use crate::context::Context;
use api::k8s::resource::v1::ResourceSlice;
use driver::Driver;
use kube::api::{DeleteParams, ListParams};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a driver that went may take to come back before its slices are removed, as upstream.
const WIPE_AFTER: Duration = Duration::from_secs(30);

/// A device that was prepared.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PreparedDevice {
    /// Requests of the claim it is for.
    pub requests: Vec<String>,
    /// Pool.
    pub pool: String,
    /// Name in the pool.
    pub name: String,
    /// Names the runtime knows.
    pub cdi_ids: Vec<String>,
    /// Share of a device that several claims have.
    pub share_id: Option<String>,
}

/// A claim of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Claim {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Uids of the pods that use it.
    pub pods: BTreeSet<String>,
    /// Drivers that take part.
    pub drivers: BTreeSet<String>,
    /// Devices by driver, once all have prepared.
    pub devices: BTreeMap<String, Vec<PreparedDevice>>,
    /// Whether all drivers have prepared.
    pub prepared: bool,
}

/// Claims by uid.
type Claims = BTreeMap<String, Claim>;

/// Drivers, and what they prepared.
pub struct Manager {
    dir: PathBuf,
    drivers: Mutex<BTreeMap<String, Arc<Driver>>>,
    claims: Mutex<Claims>,
    /// One change of claims at a time: two pods may share one.
    turn: tokio::sync::Mutex<()>,
    health: Mutex<BTreeMap<(String, String, String), Health>>,
}

impl Manager {
    /// Reads what an earlier kubelet had prepared.
    pub fn open(root_dir: &Path) -> Self {
        Self {
            dir: root_dir.to_owned(),
            drivers: Mutex::default(),
            claims: Mutex::new(checkpoint::read(root_dir)),
            turn: Default::default(),
            health: Mutex::default(),
        }
    }

    /// Takes a driver over.
    pub fn register(&self, ctx: &Arc<Context>, name: &str, endpoint: &Path, versions: &[String]) -> Result<(), String> {
        if !versions.iter().any(|v| v == driver::SERVICE) {
            return Err(format!(
                "unsupported version(s) of plugin {name}: {versions:?}, the kubelet supports {}",
                driver::SERVICE
            ));
        }
        let watches_health = versions.iter().any(|v| v == health::SERVICE);
        let driver = Arc::new(Driver::new(name, endpoint));
        if watches_health {
            driver.keep(tokio::spawn(health::follow(ctx.clone(), driver.clone_channel(), name.to_owned())));
        }
        self.drivers.lock().insert(name.to_owned(), driver);
        // What waited for it goes on.
        self.claims.lock().values().filter(|c| !c.prepared).flat_map(|c| &c.pods).for_each(|uid| (ctx.wake)(uid));
        Ok(())
    }

    /// Lets a driver go; its slices go too, unless it is back soon.
    pub fn deregister(&self, ctx: &Arc<Context>, name: &str) {
        self.drivers.lock().remove(name);
        let (ctx, name) = (ctx.clone(), name.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(WIPE_AFTER).await;
            if ctx.plugins.dra.drivers.lock().contains_key(&name) {
                return;
            }
            let slices: kube::Api<ResourceSlice> = kube::Api::all(ctx.config.client.clone());
            let of_driver = format!("spec.nodeName={},spec.driver={name}", ctx.config.node_name);
            let list = ListParams::default().fields(&of_driver);
            if let Err(error) = slices.delete_collection(&DeleteParams::default(), &list).await {
                let error = crate::context::api_message(&error);
                tracing::warn!(driver = name, error, "cannot remove the resource slices of a driver that is gone");
            }
        });
    }

    fn driver(&self, name: &str) -> Result<Arc<Driver>, String> {
        let found = self.drivers.lock().get(name).cloned();
        found.ok_or_else(|| format!("DRA driver {name} is not registered"))
    }

    /// Names of the CDI devices of a container, in the order of its claims.
    pub fn cdi_devices(&self, claims: &[(String, Option<String>)]) -> Vec<String> {
        let known = self.claims.lock();
        let mut out = Vec::new();
        for (uid, request) in claims {
            let devices = known.get(uid).into_iter().flat_map(|c| c.devices.values().flatten());
            for id in devices.filter(|d| serves(d, request.as_deref())).flat_map(|d| &d.cdi_ids) {
                if !out.contains(id) {
                    out.push(id.clone());
                }
            }
        }
        out
    }

    /// The prepared claims among those of a container, for the pod-resources API.
    pub fn of_container(&self, claims: &[(String, Option<String>)]) -> Vec<(Claim, Vec<(String, PreparedDevice)>)> {
        let known = self.claims.lock();
        let one = |(uid, request): &(String, Option<String>)| {
            let claim = known.get(uid)?;
            let all = claim.devices.iter().flat_map(|(driver, list)| list.iter().map(move |d| (driver.clone(), d)));
            let own = all.filter(|(_, d)| serves(d, request.as_deref())).map(|(driver, d)| (driver, d.clone()));
            Some((claim.clone(), own.collect()))
        };
        claims.iter().filter_map(one).collect()
    }

    fn save(&self, claims: &Claims) -> Result<(), String> {
        checkpoint::write(&self.dir, claims).map_err(|e| format!("failed to checkpoint claim state: {e}"))
    }
}

/// Whether a device is for a request (or a subrequest of it); no request means all.
fn serves(device: &PreparedDevice, request: Option<&str>) -> bool {
    let Some(request) = request.filter(|r| !r.is_empty()) else { return true };
    device.requests.is_empty() || device.requests.iter().any(|r| r == request || r.split('/').next() == Some(request))
}
