//! The wire vocabulary of Kubernetes: the words that every other crate shares.
//!
//! On the server an object is a JSON value (writes) or shared bytes (reads); the modules
//! here give that value names: [`meta`] reads and writes its metadata, [`gvk`] says what
//! kind it is, [`status`] is the only error that crosses the wire, [`selector`] and
//! [`quantity`] parse what clients send. Typed kinds come from `k8s-openapi`
//! (re-exported as [`k8s`]) and are for components, not for the server's hot path.
//!
//! Deliberately absent: IO, clocks, randomness, defaulting, validation.

pub mod duration;
pub mod gvk;
pub mod meta;
pub mod node_selector;
pub mod quantity;
pub mod quote;
pub mod selector;
pub mod status;
pub mod table;

pub use gvk::{GroupVersion, Gvk, Gvr};
pub use k8s_openapi::api as k8s;
pub use k8s_openapi::apimachinery::pkg as machinery;
pub use quote::quoted;
pub use status::{Cause, CauseType, Status};

/// An API object as the server handles it on the way of a write.
pub type Object = serde_json::Value;
