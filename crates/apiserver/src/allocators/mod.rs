//! Allocators: cluster IPs and node ports, handed out once each.
//!
//! What is in use is held in memory and read from the services at start, so a crash between an allocation and
//! its write leaves nothing behind. An [`Allocation`] that is not kept is given back when it is dropped.

mod cidr;
mod pool;
mod services;

use crate::registry::Resource;
use crate::server::{ApiServer, Config, Error};
use crate::store::ListOptions;
use api::{Object, Status};
use cidr::Cidr;
use parking_lot::Mutex;
use pool::Pool;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// What is handed out.
pub struct Allocators {
    pools: Arc<Mutex<Pools>>,
    cidr: Cidr,
    node_ports: RangeInclusive<u16>,
}

struct Pools {
    addresses: Pool<u64>,
    ports: Pool<u64>,
}

/// What one write has taken, and what it will give back when it succeeds.
#[derive(Default)]
pub struct Allocation {
    pools: Option<Arc<Mutex<Pools>>>,
    taken: Vec<Item>,
    released: Vec<Item>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Address(u64),
    Port(u64),
}

impl Allocation {
    /// One that holds nothing.
    pub fn none() -> Self {
        Self::default()
    }

    fn of(pools: &Arc<Mutex<Pools>>) -> Self {
        Self { pools: Some(pools.clone()), taken: Vec::new(), released: Vec::new() }
    }

    /// The write succeeded: what was taken stays taken.
    pub fn keep(mut self) {
        self.taken.clear();
        if let Some(pools) = &self.pools {
            let mut pools = pools.lock();
            self.released.drain(..).for_each(|item| pools.release(item));
        }
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if let Some(pools) = &self.pools {
            let mut pools = pools.lock();
            self.taken.drain(..).for_each(|item| pools.release(item));
        }
    }
}

impl Pools {
    fn release(&mut self, item: Item) {
        match item {
            Item::Address(offset) => self.addresses.release(offset),
            Item::Port(port) => self.ports.release(port),
        }
    }
}

impl Allocators {
    /// Empty allocators of the configured ranges.
    pub fn new(config: &Config) -> Result<Self, String> {
        let cidr = Cidr::parse(&config.service_cidr)?;
        // Neither the network's nor the broadcast address, and the first is for `kubernetes`.
        let addresses = Pool::new(1, cidr.size().saturating_sub(2));
        let ports = Pool::new(u64::from(*config.node_ports.start()), u64::from(*config.node_ports.end()));
        let pools = Arc::new(Mutex::new(Pools { addresses, ports }));
        Ok(Self { pools, cidr, node_ports: config.node_ports.clone() })
    }

    /// The first address of the range, which the service `kubernetes` has.
    pub fn kubernetes_service_ip(&self) -> IpAddr {
        self.cidr.address(1)
    }

    /// Takes what the stored services use.
    pub async fn load(&self, server: &ApiServer) -> Result<(), Error> {
        let Some(store) = server.store("", "services") else { return Ok(()) };
        let list = store.list(ListOptions::default()).await?;
        for stored in list.items {
            let service = stored.object()?;
            let mut pools = self.pools.lock();
            for item in services::used(self, &service) {
                match item {
                    Item::Address(offset) => drop(pools.addresses.take(offset)),
                    Item::Port(port) => drop(pools.ports.take(port)),
                }
            }
        }
        Ok(())
    }
}

/// Allocates what a new object asks for.
pub async fn on_create(
    server: &ApiServer,
    resource: &Resource,
    object: &mut Object,
    dry_run: bool,
) -> Result<Allocation, Status> {
    if !is_services(resource) {
        return Ok(Allocation::none());
    }
    services::create(server.allocators(), object, dry_run)
}

/// Allocates what a changed object asks for in addition, and gives back what it no longer uses when kept.
pub async fn on_update(
    server: &ApiServer,
    resource: &Resource,
    new: &mut Object,
    old: &Object,
    dry_run: bool,
) -> Result<Allocation, Status> {
    if !is_services(resource) {
        return Ok(Allocation::none());
    }
    services::update(server.allocators(), new, old, dry_run)
}

/// Gives back what an object that is gone used.
pub fn on_delete(server: &ApiServer, resource: &Resource, object: &Object) {
    if is_services(resource) {
        let allocators = server.allocators();
        let mut pools = allocators.pools.lock();
        services::used(allocators, object).into_iter().for_each(|item| pools.release(item));
    }
}

fn is_services(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.resource == "services"
}
