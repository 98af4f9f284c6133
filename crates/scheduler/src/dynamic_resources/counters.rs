//! Shared counters: what partitions of one device have in common, and use up together.

use super::DeviceId;
use super::inventory::{Candidate, Inventory};
use api::k8s::resource::v1::DeviceCounterConsumption;
use api::quantity::{Format, Quantity};
use std::collections::{HashMap, HashSet};

/// Driver, pool, set and counter.
type CounterId = (String, String, String, String);

/// What is left of every counter.
#[derive(Default)]
pub(super) struct Counters(HashMap<CounterId, Quantity>);

impl Counters {
    /// The counters of all pools, less what devices in use consume.
    pub fn new(inventory: &Inventory, taken: &HashSet<DeviceId>) -> Self {
        let mut out = Self::default();
        for pool in inventory.pools() {
            for set in pool.counter_sets() {
                for (name, counter) in &set.counters {
                    let id = (pool.driver.clone(), pool.name.clone(), set.name.clone(), name.clone());
                    let value = Quantity::parse(&counter.value.0).unwrap_or_else(|_| zero());
                    out.0.insert(id, value);
                }
            }
        }
        if !out.0.is_empty() {
            taken.iter().filter_map(|id| inventory.find(id)).for_each(|device| out.change(&device, false));
        }
        out
    }

    /// Whether enough is left for a device.
    pub fn suffice(&self, device: &Candidate) -> bool {
        consumption(device).all(|(id, amount)| self.0.get(&id).is_some_and(|left| *left >= amount))
    }

    /// Takes what a device consumes.
    pub fn take(&mut self, device: &Candidate) {
        self.change(device, false);
    }

    /// Gives it back.
    pub fn give_back(&mut self, device: &Candidate) {
        self.change(device, true);
    }

    fn change(&mut self, device: &Candidate, add: bool) {
        for (id, amount) in consumption(device) {
            if let Some(left) = self.0.get_mut(&id) {
                *left = if add { left.plus(&amount) } else { left.minus(&amount) };
            }
        }
    }
}

fn zero() -> Quantity {
    Quantity::from_units(0, Format::DecimalSi)
}

fn consumption(device: &Candidate) -> impl Iterator<Item = (CounterId, Quantity)> {
    let (driver, pool) = (device.id.driver.clone(), device.id.pool.clone());
    let sets = device.device().consumes_counters.iter().flatten();
    sets.flat_map(move |set: &DeviceCounterConsumption| {
        let (driver, pool) = (driver.clone(), pool.clone());
        set.counters.iter().map(move |(name, counter)| {
            let id = (driver.clone(), pool.clone(), set.counter_set.clone(), name.clone());
            (id, Quantity::parse(&counter.value.0).unwrap_or_else(|_| zero()))
        })
    })
}
