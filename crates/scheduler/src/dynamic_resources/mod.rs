//! Devices for resource claims (structured parameters): which devices a node reaches, which of them a claim asks for,
//! and what is taken already.
//!
//! The flow: [`inventory`] makes pools of the slices in the API, once for all cycles until a slice changes; [`usage`]
//! says for one cycle what is in use of them; [`needs`] makes requests of a claim, its classes and its constraints, and
//! [`extended`] makes such a claim of a pod's extended resources; [`allocator`] searches a node for devices that serve
//! all claims of a pod at once, asking [`selector`] for expressions and [`capacity`] for what a device that is given
//! several times has left; [`result`] writes down what was found. [`ledger`] knows allocations that are on their way
//! into the API, and [`conditions`] whether a driver has prepared what was allocated.
//!
//! Invariants: the search is deterministic (but for the IDs of shares) and bounded, in steps for a
//! node and in time for a pod; a device is given once, except for administrators and where its driver says it may be
//! given several times.
//!
//! Deliberately absent, as their gates are off in v1.36: taint rules, lists as attributes, resources of nodes that
//! devices stand for, claims of pod groups.

pub(crate) mod allocator;
mod capacity;
pub(crate) mod conditions;
mod constraint;
pub(crate) mod extended;
pub(crate) mod inventory;
pub(crate) mod ledger;
pub(crate) mod needs;
mod result;
pub(crate) mod selector;
mod taints;
pub(crate) mod usage;

#[cfg(test)]
mod tests;
