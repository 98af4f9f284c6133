//! Devices for resource claims (structured parameters): which devices a node reaches, which of them a claim asks for,
//! and what is taken already.
//!
//! The flow: [`inventory`] makes pools of the slices in the API, [`needs`] makes requests of a claim, its classes and
//! its constraints; [`allocator`] searches a node for devices that serve all claims of a pod at once, asking
//! [`selector`] for expressions and [`counters`] for shared parts of partitioned devices; [`result`] writes down what
//! was found. [`ledger`] knows what is taken: allocations in the API, and those that are on their way there.
//!
//! Invariants: the search is deterministic and bounded in steps; a device is given once, except for administrators.
//!
//! Deliberately absent: devices that are allocated several times at once (consumable capacity), binding conditions,
//! extended resources backed by devices. Devices that need the first two are never chosen.

pub(crate) mod allocator;
mod constraint;
mod counters;
pub(crate) mod inventory;
pub(crate) mod ledger;
pub(crate) mod needs;
mod result;
pub(crate) mod selector;
mod taints;

/// A device of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DeviceId {
    pub driver: String,
    pub pool: String,
    pub device: String,
}

#[cfg(test)]
mod tests;
