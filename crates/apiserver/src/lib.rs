//! The API server: everything between a connection and the object store.
//!
//! [`ApiServer`] is the whole. A request, from TCP or from memory, goes through [`chain`]: request info →
//! authentication → [`audit`] → impersonation → [`fairness`] → authorization → a handler of its verb ([`handlers`]) or
//! something that is no resource ([`discovery`], health, [`metrics`], OpenAPI). Writes go through [`registry`], which calls the kind's strategy,
//! [`admission`] and the [`allocators`], to the [`store`]. Authorization and admission read [`live`] caches fed
//! by the stores' own watches.
//!
//! Invariants: one order of the chain, visible in one function; objects are decoded on writes only; nothing a
//! client sends can panic the server or make it hold more than the body limit; no request skips authentication
//! and authorization (the server's own parts send theirs through the same chain with an identity attached).
//!
//! Deliberately absent: reconciling (controllers do it), knowledge of single kinds (strategies have it), flags.

pub mod admission;
mod aggregator;
pub mod allocators;
pub mod audit;
pub mod authn;
pub mod authz;
mod body;
pub mod bootstrap;
mod cache;
mod chain;
pub mod custom;
mod deadline;
mod discovery;
pub mod encryption;
mod fairness;
#[doc(hidden)]
pub mod fuzzing;
mod handlers;
mod health;
mod live;
mod media;
mod onward;
mod metrics;
mod query;
pub mod registry;
mod request_info;
mod server;
pub mod store;
mod subresources;
mod tls;
pub mod webhook;

pub use authn::UserInfo;
pub use server::{ApiServer, Config, Error, Limits};
