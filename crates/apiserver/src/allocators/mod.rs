//! Allocators: cluster IPs and node ports, handed out once each.
//!
//! What is in use is held in memory and read from the services at start, so a crash between an allocation and
//! its write leaves nothing behind. An [`Allocation`] that is not kept is given back when it is dropped. Each address
//! of a service is recorded in an IPAddress object before the service is written, and none is drawn that another holder
//! has recorded; [`repair`] mends what a crash left.
//! Addresses come from the configured range and from those of every ServiceCIDR of its family that is not refused.

mod addresses;
mod cidr;
mod node_ports;
mod pool;
mod records;
mod services;

pub use records::repair;

use crate::live::Live;
use crate::registry::{Registry, Resource};
use crate::server::{ApiServer, Config, Error, live};
use crate::store::ListOptions;
use addresses::Addresses;
use api::{Object, Status};
use cidr::Cidr;
use parking_lot::Mutex;
use pool::{Pool, Refused};
use serde_json::Value;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// How many addresses are drawn when others of the cluster take them at the same moment.
const DRAWS: usize = 8;

/// What is handed out.
pub struct Allocators {
    pools: Arc<Mutex<Pools>>,
    cidr: Cidr,
    node_ports: RangeInclusive<u16>,
    /// The addresses that have a record, whoever made it.
    recorded: Arc<Live<()>>,
}

struct Pools {
    addresses: Addresses,
    ports: Pool<u64>,
}

/// What one write has taken, and what it will give back when it succeeds.
#[derive(Default)]
pub struct Allocation {
    pools: Option<Arc<Mutex<Pools>>>,
    taken: Vec<Item>,
    /// Whether the address among these is any: none was asked for.
    drawn: bool,
    released: Vec<Item>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Item {
    Address(IpAddr),
    Port(u64),
}

impl Allocation {
    /// One that holds nothing.
    pub fn none() -> Self {
        Self::default()
    }

    fn of(pools: &Arc<Mutex<Pools>>) -> Self {
        Self { pools: Some(pools.clone()), taken: Vec::new(), drawn: false, released: Vec::new() }
    }

    /// Records the address that a service is about to be written with. A service that asked for none gets another
    /// where one has just been recorded by someone else.
    pub async fn record(&mut self, server: &ApiServer, service: &mut Object) -> Result<(), Status> {
        for draw in 1..=DRAWS {
            let Some(address) = addresses_of(&self.taken).next() else { return Ok(()) };
            if records::put(server, service, address).await? {
                return Ok(());
            }
            if !self.drawn {
                return Err(services::taken(service, address));
            }
            if draw == DRAWS {
                break;
            }
            // The one that is taken is given back after the next is drawn.
            let next = server.allocators().draw().map_err(|_| services::full(service))?;
            self.taken.retain(|item| *item != Item::Address(address));
            self.taken.push(Item::Address(next));
            server.allocators().pools.lock().addresses.release(address);
            services::set_address(service, next);
        }
        Err(services::full(service))
    }

    /// Whether a service got addresses by it.
    pub fn has_addresses(&self) -> bool {
        addresses_of(&self.taken).next().is_some()
    }

    /// The write has ended its service: what it had goes, and, with the allocation, what it took.
    pub async fn end(self, server: &ApiServer, resource: &Resource, service: &Object) {
        self.unrecord(server, service).await;
        on_delete(server, resource, service).await;
    }

    /// The write failed: its records go.
    pub async fn unrecord(&self, server: &ApiServer, service: &Object) {
        for address in addresses_of(&self.taken) {
            records::remove(server, service, address).await;
        }
    }

    /// The write succeeded: what was taken stays taken.
    pub async fn keep(mut self, server: &ApiServer, service: &Object) {
        self.taken.clear();
        for address in addresses_of(&self.released) {
            records::remove(server, service, address).await;
        }
        if let Some(pools) = &self.pools {
            let mut pools = pools.lock();
            self.released.drain(..).for_each(|item| pools.release(item));
        }
    }
}

fn addresses_of(items: &[Item]) -> impl Iterator<Item = IpAddr> {
    items.iter().filter_map(|item| match item {
        Item::Address(address) => Some(*address),
        Item::Port(_) => None,
    })
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
            Item::Address(address) => self.addresses.release(address),
            Item::Port(port) => self.ports.release(port),
        }
    }
}

impl Allocators {
    /// Empty allocators of the configured ranges.
    pub fn new(config: &Config, registry: &Registry, token: &CancellationToken) -> Result<Self, Error> {
        let cidr = Cidr::parse(&config.service_cidr).map_err(Error::Config)?;
        let recorded = live(registry, token, (records::GROUP, records::RESOURCE), |_| Some(()))?;
        let addresses = Addresses::new(cidr.clone());
        let ports = Pool::new(u64::from(*config.node_ports.start()), u64::from(*config.node_ports.end()));
        let pools = Arc::new(Mutex::new(Pools { addresses, ports }));
        Ok(Self { pools, cidr, node_ports: config.node_ports.clone(), recorded })
    }

    /// Takes any address, one with a record only where there is no other: that record may just have gone.
    fn draw(&self) -> Result<IpAddr, Refused> {
        let free = |address: IpAddr| self.recorded.get("", &address.to_string()).is_none();
        let addresses = &mut self.pools.lock().addresses;
        addresses.take_any(free).or_else(|_| addresses.take_any(|_| true))
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
            for item in services::used(&service) {
                match item {
                    Item::Address(address) => pools.addresses.occupy(address),
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
    follow_ranges(server);
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
    follow_ranges(server);
    services::update(server.allocators(), new, old, dry_run)
}

/// Gives back what an object that is gone used.
pub async fn on_delete(server: &ApiServer, resource: &Resource, object: &Object) {
    if is_services(resource) {
        let used = services::used(object);
        for address in addresses_of(&used) {
            records::remove(server, object, address).await;
        }
        let mut pools = server.allocators().pools.lock();
        used.into_iter().for_each(|item| pools.release(item));
    }
}

/// Addresses come from every range of the configured family that is neither going nor refused.
fn follow_ranges(server: &ApiServer) {
    let allocators = server.allocators();
    let ranges = server.lives().service_cidrs.values();
    let usable = ranges.iter().filter(|range| !api::meta::is_deleting(range) && !is_refused(range));
    let texts = usable.filter_map(|range| range.pointer("/spec/cidrs")?.as_array()).flatten();
    let cidrs = texts.filter_map(|text| Cidr::parse(text.as_str()?).ok());
    let same_family = cidrs.filter(|cidr| cidr.family() == allocators.cidr.family());
    allocators.pools.lock().addresses.also(same_family);
}

/// Whether its controller says anything but that it is ready; one that it has not looked at yet is.
fn is_refused(range: &Object) -> bool {
    let mut conditions = range.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.find(|c| c["type"] == "Ready").is_some_and(|c| c["status"] != "True")
}

fn is_services(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.resource == "services"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ranges_are_used_until_their_controller_says_otherwise() {
        let check = |conditions: Value, refused: bool| {
            assert_eq!(is_refused(&json!({"status": {"conditions": conditions}})), refused, "{conditions}");
        };
        check(json!(null), false);
        check(json!([{"type": "Other", "status": "False"}]), false);
        for (status, refused) in [("True", false), ("False", true), ("Unknown", true)] {
            check(json!([{"type": "Other", "status": "False"}, {"type": "Ready", "status": status}]), refused);
        }
    }
}
