//! Shared informers and what a controller needs besides: workqueue, expectations, events, leader election.
//!
//! The flow: [`InformerFactory`] starts one reflector per kind; the reflector lists, then watches, and
//! puts each change in the [`Informer`]'s store before it tells the handlers; a handler puts a [`Key`]
//! in a [`WorkQueue`]; [`Controller`] workers take keys and call `reconcile(key)`, which reads from
//! informers and writes through a `kube::Client`. [`EventRecorder`] tells people what was done.
//!
//! Invariants: an object is decoded once and shared as `Arc<K>`, without `managedFields`; a handler sees
//! every change in order, beginning with the present state; the store is never older than what a handler
//! was told; nothing here wakes up without an event or a deadline.
//!
//! Deliberately absent: periodic resync, writes through the store, typed clients.

mod controller;
mod events;
mod expectations;
mod factory;
mod leader;
mod reflector;
mod store;
mod subscription;
mod workqueue;

pub use controller::{Controller, Error, Reconcile, Requeue};
pub use events::{EventRecorder, EventType, reference};
pub use expectations::Expectations;
pub use factory::InformerFactory;
pub use leader::LeaderElector;
pub use store::{Event, Informer, Key, Stored};
pub use subscription::Subscription;
pub use tokio_util::sync::CancellationToken;
pub use workqueue::WorkQueue;
