//! What is in use of an inventory: whole devices, parts of devices that are given several times, shared counters.

use super::capacity::{Consumed, add};
use super::inventory::Inventory;
use api::k8s::resource::v1::{AllocationResult, DeviceRequestAllocationResult};
use api::quantity::Quantity;
use std::collections::{HashMap, HashSet};

/// The state that one cycle starts from.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    whole: HashSet<usize>,
    shares: HashMap<usize, Consumed>,
    /// What is left of every counter.
    left: Vec<Quantity>,
}

impl Usage {
    /// Adds up allocations; devices that are not in the inventory (any more) do not count.
    pub fn new<'a>(inventory: &Inventory, allocations: impl IntoIterator<Item = &'a AllocationResult>) -> Self {
        let mut out = Self { left: inventory.counters.clone(), ..Self::default() };
        let devices = allocations.into_iter().flat_map(|a| a.devices.iter().flat_map(|d| d.results.iter().flatten()));
        // Administrators take nothing from anybody.
        for result in devices.filter(|r| r.admin_access != Some(true)) {
            let Some(device) = inventory.find(&result.driver, &result.pool, &result.device) else {
                continue;
            };
            if !out.is_in_use(device) {
                for (counter, amount) in &inventory.devices[device].consumes {
                    out.left[*counter] = out.left[*counter].minus(amount);
                }
            }
            out.add(device, result);
        }
        out
    }

    fn add(&mut self, device: usize, result: &DeviceRequestAllocationResult) {
        if result.share_id.is_none() {
            self.whole.insert(device);
            return;
        }
        let consumed = result.consumed_capacity.iter().flatten();
        let consumed = consumed.filter_map(|(name, amount)| Some((name.clone(), Quantity::parse(&amount.0).ok()?)));
        add(self.shares.entry(device).or_default(), &consumed.collect());
    }

    /// Whether a device is given to somebody alone.
    pub fn is_taken(&self, device: usize) -> bool {
        self.whole.contains(&device)
    }

    /// Whether anybody has a device or a part of it.
    pub fn is_in_use(&self, device: usize) -> bool {
        self.whole.contains(&device) || self.shares.contains_key(&device)
    }

    /// What is consumed of a device that is given several times.
    pub fn consumed(&self, device: usize) -> Option<&Consumed> {
        self.shares.get(&device)
    }

    /// What is left of a counter.
    pub fn left(&self, counter: usize) -> Option<&Quantity> {
        self.left.get(counter)
    }
}
